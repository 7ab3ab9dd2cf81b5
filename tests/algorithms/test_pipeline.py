"""The cut of a chain, and what all pipeline methods share."""

from pathlib import Path

import pytest
import torch

from algorithms.optimizer import Optimizer
from algorithms.pipeline import cut
from models.resnet import ResNet
from tests.trial import Trial, train

SHORT = ("model=resnet8", "dataset.limit_train=44", "dataset.limit_test=20", "run.batch_size=8", "run.epochs=2")
"""Six batches an epoch, the last of four."""


def sizes(blocks: int, workers: int) -> list[int]:
    chain = [(f"b{i}", 1) for i in range(blocks)] + [("classifier", 1)]
    return [high - low for low, high in cut(chain, workers, None)]


@pytest.mark.parametrize(
    ("units", "workers", "expected"),
    [(58, 2, [29, 29]), (58, 4, [15, 15, 15, 13]), (85, 4, [22, 22, 22, 19]), (35, 4, [9, 9, 9, 8]), (52, 4, [13] * 4)],
)
def test_units_are_split_as_the_authors_do(units: int, workers: int, expected: list[int]):
    expected = [*expected[:-1], expected[-1] + 1]  # the classifier joins the last
    assert sizes(units, workers) == expected


def test_resnet110_has_the_units_of_the_literature():
    names = ResNet(shape=(3, 8, 8), classes=10, depth=110).block_names
    assert len(names) == 58 + 1


def test_a_short_chain_gives_each_module_weights():
    chain = [("flatten", 0), ("hidden", 5), ("relu", 0), ("classifier", 3)]
    assert cut(chain, 2, None) == [(0, 2), (2, 4)]
    assert cut(chain[:2] + chain[3:], 2, None) == [(0, 2), (2, 3)]


@pytest.mark.parametrize(
    ("workers", "split", "message"),
    [
        (3, None, r"^cluster\.workers=3: .*; allowed: 1 to 2$"),
        (
            2,
            ["head"],
            r"^algorithm\.split=\[head\]: no module can begin at head; allowed: 1 of hidden, relu, classifier",
        ),
        (2, ["flatten"], r"^algorithm\.split=\[flatten\]: no module can begin"),
        (2, ["hidden", "relu"], r"^algorithm\.split=\[hidden,relu\]: makes 3 modules"),
        (2, ["hidden"], r"leaves a module without weights"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(workers: int, split: list[str] | None, message: str):
    chain = [("flatten", 0), ("hidden", 5), ("relu", 0), ("classifier", 3)]
    with pytest.raises(ValueError, match=message):
        cut(chain, workers, split)


def test_a_split_against_the_order_is_refused():
    with pytest.raises(ValueError, match=r"^algorithm\.split=\[c,b\]: is not in the order"):
        cut([(name, 1) for name in "abc"], 3, ["c", "b"])


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam_is_pytorchs_to_the_bit(decay: float):
    torch.manual_seed(0)
    w = torch.randn(100)
    theirs = w.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.01, weight_decay=decay, foreach=False)
    ours = Optimizer(optimizer="adam", weight_decay=decay)
    ours.start(w)
    for _ in range(20):
        g = torch.randn(100)
        theirs.grad = g.clone()
        adam.step()
        ours(w, g, 0.01)
        assert torch.equal(w, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, r"^algorithm\.momentum=0\.9: adam has none; allowed: "),
        ({"optimizer": "sgd", "beta1": 0.9}, r"^algorithm\.beta1=0\.9: sgd has none; allowed: "),
        ({"optimizer": "adam", "beta2": 1.0}, r"^algorithm\.beta2=1\.0: .*; allowed: "),
    ],
)
def test_an_optimizer_refuses_what_the_other_has(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Optimizer(**options)


@pytest.mark.parametrize("momentum", ["0.0", "0.9"])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_back_propagation_in_modules_is_sgd_to_the_bit(workers: int, momentum: str, tmp_path: Path):
    common = (*SHORT, f"algorithm.momentum={momentum}", "schedule.lr=0.05")
    whole = train("algorithm=sgd", *common, folder=tmp_path)
    pieces = train("algorithm=bp", f"cluster.workers={workers}", *common, folder=tmp_path)
    assert pieces.sha256 == whole.sha256
    assert torch.equal(pieces.executor.running_statistics(), whole.executor.running_statistics())
    scores = ("train_loss", "train_error", "test_loss", "test_error")
    for ours, theirs in zip(pieces.notes.rows, whole.notes.rows, strict=True):
        assert [ours[name] for name in scores] == [theirs[name] for name in scores]


@pytest.mark.parametrize("name", ["ddg", "fr", "dni"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_single_module_is_back_propagation_to_the_bit(name: str, optimizer: str, tmp_path: Path):
    common = (*SHORT, "cluster.workers=1", f"algorithm.optimizer={optimizer}", "schedule.lr=0.01")
    assert train(f"algorithm={name}", *common, folder=tmp_path).sha256 == (
        train("algorithm=bp", *common, folder=tmp_path).sha256
    )


@pytest.mark.parametrize("extra", [("algorithm=ddg",), ("algorithm=ddg", "algorithm.weights=current")])
def test_graphs_in_flight_survive_a_checkpoint_with_adam_and_four_modules(extra: tuple[str, ...], tmp_path: Path):
    common = (*SHORT, *extra, "cluster.workers=4", "algorithm.optimizer=adam", "schedule.lr=0.01")
    common += ("run.checkpoint_every=100",)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = train(*common, folder=tmp_path / "a")
    for stop in (2, 7):
        state = Trial(*common, folder=tmp_path / "b", stop_after=stop).stopped()
        continued = Trial(*common, folder=tmp_path / "b").resume(state).run()
        assert continued.sha256 == expected.sha256
        assert continued.executor.columns() == expected.executor.columns()
