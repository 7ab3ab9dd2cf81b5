import pytest
import torch
from torch import nn

from data.base import Split
from data.digits import Digits
from data.text import Text
from models.base import Chain
from models.gpt import GPT
from models.resnet import ResNet
from models.ridge import Ridge
from runner.gradients.evaluate import Evaluator
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica

DIGITS = Digits(limit_train=64, limit_test=50, augment=True)


def network() -> ResNet:
    torch.manual_seed(3)
    return ResNet(depth=8, shape=(1, 8, 8), classes=10)


def oracle() -> NetworkOracle:
    return NetworkOracle(Replica(network()), DIGITS.train, seed=0)


@pytest.mark.parametrize("batch_size", [1000, 50, 16, 7])
def test_score_is_independent_of_batch_size(batch_size: int):
    asked = oracle()
    statistics = asked.replica.initial_statistics()
    weights = asked.replica.weights.clone()
    score = Evaluator(asked, DIGITS.test, batch_size=batch_size)(weights, statistics)

    plain = network().eval()
    inputs, targets = DIGITS.test.batch(torch.arange(50))
    with torch.no_grad():
        outputs = plain(inputs)
    assert score.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, targets)), rel=1e-5)
    assert score.error == pytest.approx(100 * float((outputs.argmax(1) != targets).double().mean()))


def test_given_weights_and_statistics_are_scored():
    asked = oracle()
    evaluate = Evaluator(asked, DIGITS.test, batch_size=50)
    weights, statistics = asked.replica.weights.clone(), asked.replica.initial_statistics()
    first = evaluate(weights, statistics)
    assert evaluate(torch.zeros_like(weights), statistics).loss == pytest.approx(float(torch.tensor(10.0).log()))
    assert evaluate(weights, statistics + 0.5) != first
    assert evaluate(weights, statistics) == first


def test_an_evaluation_is_no_training():
    asked = oracle()
    weights, statistics = asked.replica.weights.clone(), asked.replica.initial_statistics()
    kept = statistics.clone()
    Evaluator(asked, DIGITS.test, batch_size=50)(weights, statistics)
    assert torch.equal(statistics, kept)
    assert not asked.totals.any()
    assert torch.equal(weights, asked.replica.weights)


def test_top5_is_scored_where_asked():
    asked = oracle()
    weights, statistics = asked.replica.weights.clone(), asked.replica.initial_statistics()
    score = Evaluator(asked, DIGITS.test, batch_size=16, top5=True)(weights, statistics)
    inputs, targets = DIGITS.test.batch(torch.arange(50))
    with torch.no_grad():
        outputs = network().eval()(inputs)
    ranks = (outputs > outputs.gather(1, targets[:, None])).sum(1)
    assert score.error_top5 == pytest.approx(100 * float((ranks >= 5).double().mean()))
    assert score.error_top5 is not None
    assert score.error is not None
    assert 0 < score.error_top5 < score.error
    assert Evaluator(asked, DIGITS.test, batch_size=16)(weights, statistics) == score._replace(error_top5=None)


def test_scores_of_networks_that_draw_repeat():
    """A function that drops units in evaluation too, as attention does whose author forgot to turn it off."""

    class Forgetful(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(inputs, 0.5)

    torch.manual_seed(0)
    chain = Chain([("flat", nn.Flatten()), ("drop", Forgetful()), ("out", nn.Linear(64, 10))])
    asked = NetworkOracle(Replica(chain), DIGITS.train, seed=0)
    evaluate = Evaluator(asked, DIGITS.test, batch_size=16)
    weights, statistics = asked.replica.weights.clone(), asked.replica.initial_statistics()
    first = evaluate(weights, statistics)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert evaluate(weights, statistics) == first
    assert torch.equal(torch.rand(1), expected), "whoever trains draws on as if nothing had been evaluated"


def test_numbers_are_scored_without_errors():
    """Half the mean squared error, over batches of which the last is short."""
    x, targets = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-2, 5, 7)
    split = Split(x, targets)
    asked = NetworkOracle(Replica(Ridge(shape=(3,), classes=0)), split, seed=0)
    w = torch.tensor([0.5, -1.0, 2.0])
    score = Evaluator(asked, split, batch_size=3)(w, asked.replica.initial_statistics())
    assert score.loss == pytest.approx(float((x @ w - targets).square().mean() / 2), rel=1e-6)
    assert score.error is None


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_perplexity_and_wrong_tokens_of_a_text(batch_size: int):
    text = Text(context=6, limit_train=8, limit_test=20)
    torch.manual_seed(0)
    module = GPT(shape=text.shape, classes=text.classes, layers=1, width=8)
    asked = NetworkOracle(Replica(module), text.train, seed=0)
    evaluate = Evaluator(asked, text.test, batch_size=batch_size, perplexity=True)
    score = evaluate(asked.replica.weights.clone(), asked.replica.initial_statistics())
    with torch.no_grad():
        outputs = module(text.test.inputs).double()
    shares = (outputs - outputs.logsumexp(-1, keepdim=True)).gather(-1, text.test.targets[..., None])
    assert score.loss == pytest.approx(-float(shares.mean()), rel=1e-6)
    assert score.perplexity == pytest.approx(float(shares.mean().neg().exp()), rel=1e-6)
    assert score.error == pytest.approx(100 * float((outputs.argmax(-1) != text.test.targets).double().mean()))


def test_perplexity_of_a_huge_loss_is_infinite():
    text = Text(context=6, limit_train=8, limit_test=20)
    module = GPT(shape=text.shape, classes=text.classes, layers=1, width=8)
    asked = NetworkOracle(Replica(module), text.train, seed=0)
    score = Evaluator(asked, text.test, batch_size=20, perplexity=True)(
        asked.replica.weights * 1e6, asked.replica.initial_statistics()
    )
    assert score.loss > 1000
    assert score.perplexity == float("inf")
