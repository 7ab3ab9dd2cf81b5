import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from algorithms.base import Stateful
from models.gpt import GPT
from runner.config.errors import InputError
from tests.trial import Trial

METHODS = sorted((Path(__file__).parents[2] / "conf" / "algorithm").glob("*.yaml"))
TINY = (
    *("model=gpt", "model.width=16", "dataset=text", "dataset.context=8", "dataset.limit_train=64"),
    *("dataset.limit_test=16", "run.batch_size=8", "run.epochs=2", "schedule.lr=0.1"),
)


def network(**options: object) -> GPT:
    torch.manual_seed(0)
    settings = {"shape": (6,), "classes": 11, "layers": 2, "heads": 2, "width": 8} | options
    return GPT(**settings).double()  # pyright: ignore[reportArgumentType]


def tokens(windows: int = 3) -> Tensor:
    return torch.randint(11, (windows, 6), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("layers", "width", "context", "vocabulary"), [(1, 8, 6, 11), (3, 12, 5, 2), (2, 64, 64, 36)])
def test_parameters_follow_the_formula(layers: int, width: int, context: int, vocabulary: int, tied: bool):
    net = GPT(shape=(context,), classes=vocabulary, layers=layers, heads=4, width=width, tied=tied)
    formula = vocabulary * width + context * width + layers * (12 * width**2 + 13 * width) + 2 * width
    assert sum(p.numel() for p in net.parameters()) == formula + (0 if tied else vocabulary * width)


@pytest.mark.parametrize("position", range(6))
def test_later_tokens_change_no_earlier_logit(position: int):
    net, inputs = network(), tokens()
    changed = inputs.clone()
    changed[:, position] = (changed[:, position] + 3) % 11
    before, after = net(inputs), net(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    # Without the mask's last position the token itself would not count either.
    assert (before[:, position:] != after[:, position:]).any(-1).all()


def test_forward_is_that_of_numpy():
    net, inputs = network(), tokens()
    w = {name: value.detach().numpy() for name, value in net.named_parameters()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x: np.ndarray, name: str) -> np.ndarray:
        query, key, value = np.split(linear(x, f"{name}.into"), 3, axis=-1)
        outputs = np.zeros_like(x)
        for head in (slice(0, 4), slice(4, 8)):
            for t in range(6):
                scores = np.einsum("bd,bsd->bs", query[:, t, head], key[:, : t + 1, head]) / 2
                shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
                outputs[:, t, head] = np.einsum("bs,bsd->bd", shares, value[:, : t + 1, head])
        return linear(outputs, f"{name}.out")

    x = w["embedding.token.weight"][inputs.numpy()] + w["embedding.position.weight"]
    for layer in ("layers.0", "layers.1"):
        x = x + attention(norm(x, f"{layer}.norm1"), f"{layer}.attention")
        hidden = linear(norm(x, f"{layer}.norm2"), f"{layer}.perceptron.into")
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"{layer}.perceptron.out")
    logits = norm(x, "norm") @ w["head.weight"].T
    np.testing.assert_allclose(net(inputs).detach().numpy(), logits, rtol=1e-9, atol=1e-12)


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    net = GPT(shape=(64,), classes=500, layers=8, heads=4, width=64)
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        else:
            expected = 0.02 / 4 if name.endswith("out.weight") else 0.02
            assert float(value.detach().std()) == pytest.approx(expected, rel=0.06), name


def test_tied_weight_gets_both_gradients():
    net, inputs = network(tied=True), tokens()
    twin = network()
    twin.load_state_dict(net.state_dict())
    for each in (net, twin):
        each.loss(each(inputs), inputs.roll(-1, 1)).backward()
    one, two = (dict(each.named_parameters()) for each in (net, twin))
    assert "head.weight" not in one
    both = [two[name].grad for name in ("embedding.token.weight", "head.weight")]
    assert all(part is not None and part.any() for part in both)
    torch.testing.assert_close(one["embedding.token.weight"].grad, both[0] + both[1])  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "model.heads=3: does not divide model.width=8; allowed: 1, 2, 4, 8"),
        ({"layers": 0}, r"model.layers=0: 0 is not a positive whole number"),
        ({"width": 8.5}, r"model.width=8.5: 8.5 is not a positive whole number"),
        ({"tied": "yes"}, "model.tied=yes: is neither true nor false; allowed: true, false"),
        ({"shape": (3, 8, 8)}, r"model=gpt: cannot take inputs of shape \(3, 8, 8\); allowed: windows of tokens"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        network(**options)


def trained(folder: Path, *overrides: str) -> Trial:
    return Trial(*TINY, *overrides, folder=folder).run()


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_for_networks_trains_it(path: Path, tmp_path: Path):
    method = get_class(str(OmegaConf.load(path)._target_))
    assert issubclass(method, Stateful)
    if method.needs != "gradients":
        with pytest.raises(InputError, match=f"^model=gpt: algorithm={path.stem} needs "):
            trained(tmp_path, f"algorithm={path.stem}")
        return
    trial = trained(tmp_path, f"algorithm={path.stem}")
    start = math.log(trial.components.dataset.classes)
    row = trial.notes.rows[-1]
    assert row["test_perplexity"] == pytest.approx(math.exp(row["test_loss"]))
    assert row["test_loss"] < start
    assert 0 < row["test_error"] <= 100


def test_modules_in_lockstep_are_sgd(tmp_path: Path):
    weights = []
    for algorithm, workers in (("sgd", 1), ("bp", 3)):
        trial = trained(tmp_path, f"algorithm={algorithm}", f"cluster.workers={workers}", "run.threads=1")
        weights.append(trial.executor.weights())
        assert trial.notes.rows[-1]["train_loss"] < trial.notes.rows[0]["train_loss"]
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
