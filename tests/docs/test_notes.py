"""The numbers in docs/notes.md are those of the archived runs: each is computed here and must stand in its remark."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from runner.report import metrics
from runner.report.archive import ArchivedRun, read
from runner.report.notes import Notes

DOCS = Path(__file__).resolve().parents[2] / "docs"
HUO = "huo_thesis2020"
MNIST = ("fcn5", "cnn5")
FCN_LATER = ("hidden2.linear", "hidden3.linear", "hidden4.linear", "classifier")
CNN_LATER = ("conv2.conv", "hidden1.linear", "hidden2.linear", "classifier")
RESNET_BETWEEN = tuple(f"stage{stage}.0.conv{number}" for stage in (1, 2, 3) for number in (1, 2))


@functools.cache
def archived(name: str) -> list[ArchivedRun]:
    return read(DOCS / "runs" / f"{name}.jsonl")


def runs(name: str, **wanted: Any) -> list[ArchivedRun]:
    """The archived runs with these settings; a dot of a key is written as two underscores."""
    found = [
        run
        for run in archived(name)
        if all(run.value(key.replace("__", ".")) == value for key, value in wanted.items())
    ]
    assert found, wanted
    return found


def mean(metric: str, name: str, **wanted: Any) -> float:
    values = [metrics.measured(run, metric) for run in runs(name, **wanted)]
    assert None not in values
    return fmean(value for value in values if value is not None)


def figure1_by_iterations() -> str:
    """Compare losses by iterations: of SGD's at each even pass, of SVRG's at the last evaluation before thrice that."""
    sgd = runs(f"{HUO}/figure1", algorithm="hogwild", schedule__lr=0.15, schedule__power=0.0)
    svrg = runs(f"{HUO}/figure1", algorithm="shared_asysvrg", schedule__lr=0.3, algorithm__sgd_epochs=0.0)
    for ours, theirs in zip(svrg, sgd, strict=True):
        assert ours.seed == theirs.seed
        for iteration, loss in zip(theirs.curve("epoch"), theirs.curve("train_loss"), strict=True):
            assert iteration is not None
            assert loss is not None
            if iteration <= 20:
                passes = zip(ours.curve("epoch"), ours.curve("train_loss"), strict=True)
                assert [v for p, v in passes if p and v and p <= 3 * iteration + 0.01][-1] < loss, iteration
    ratios = [
        (ours.curve("train_loss")[-1] or 0) / (theirs.curve("train_loss")[9] or 1)
        for ours, theirs in zip(svrg, sgd, strict=True)
    ]
    return f"{fmean(ratios):.2f} of the training loss of SGD's 20"


def figure2_speed_up() -> str:
    times = [mean("seconds_to(train_loss,0.3)", f"{HUO}/figure2", workers=workers) for workers in (1, 32)]
    return f"{times[0] / times[1]:.0f}"


def figure6_passes(batch: int) -> str:
    lr = {"algorithm": "dis_dfsdca", "schedule__lr": 0.0002, "run__batch_size": batch}
    ours = mean("epochs_to(duality_gap,1e-4)", f"{HUO}/figure6", **lr)
    cocoa = mean("epochs_to(duality_gap,1e-4)", f"{HUO}/figure6", algorithm="cocoa_plus", run__batch_size=batch)
    return f"{ours / cocoa:.1f} times (H={batch})"


def figure6_diverged() -> str:
    tried = runs(f"{HUO}/figure6", schedule__lr=0.001)
    return f"{sum(run.status == 'diverged' for run in tried)} of {len(tried)} runs"


def figure6_ends(algorithm: str, batch: int, lr: float) -> str:
    wanted = {"algorithm": algorithm, "run__batch_size": batch, "schedule__lr": lr}
    return f"{mean('final_duality_gap', f'{HUO}/figure6', **wanted):.0e}"


def figure7_speed_up(algorithm: str) -> str:
    times = [
        mean("seconds_to(duality_gap,1e-4)", f"{HUO}/figure7", algorithm=algorithm, workers=workers)
        for workers in (1, 16)
    ]
    return f"{times[0] / times[1]:.1f}"


def figure6_covtype_diverged() -> str:
    tried = runs(f"{HUO}/figure6_covtype_shape", run__batch_size=1000, schedule__lr=2e-4)
    return f"{sum(run.status == 'diverged' for run in tried)} of {len(tried)} runs"


def figure8_seconds(algorithm: str, mu: float, lr: float, workers: int = 4) -> str:
    wanted = {"algorithm": algorithm, "model__mu": mu, "schedule__lr": lr, "workers": workers}
    return f"{mean('seconds_to(suboptimality,1e-5)', f'{HUO}/figure8', **wanted):.0f}"


def figure8_ends(algorithm: str, mu: float, lr: float) -> str:
    wanted = {"algorithm": algorithm, "model__mu": mu, "schedule__lr": lr, "workers": 4}
    return f"{mean('final_suboptimality', f'{HUO}/figure8', **wanted):.0e}"


def figure8_same_evaluation() -> str:
    seconds = [
        [
            metrics.measured(run, "seconds_to(suboptimality,1e-5)")
            for run in runs(f"{HUO}/figure8", algorithm=name, model__mu=100.0, workers=4)
        ]
        for name in ("dis_dfsdca", "asgd")
    ]
    assert seconds[0] == seconds[1]
    return "the same evaluation"


def figure9_bounds(layer: str) -> Sequence[float]:
    tried = runs(f"{HUO}/figure9", model="fcn5")
    return [row["largest_rate"][layer] for run in tried for row in run.layers("largest_rate")]


def figure9(model: str, factor: float, *layers: str) -> list[ArchivedRun]:
    """The runs in which one of these layers has so many times 0.01."""
    wanted = [{layer: factor} for layer in layers]
    return [run for run in runs(f"{HUO}/figure9", model=model) if run.config["algorithm"]["layer_scale"] in wanted]


def reached(tried: Sequence[ArchivedRun]) -> str:
    return f"{sum(metrics.measured(run, 'epochs_to_target') is not None for run in tried)} of {len(tried)}"


def epochs(tried: Sequence[ArchivedRun]) -> str:
    values = [metrics.measured(run, "epochs_to_target") for run in tried]
    assert None not in values
    return f"{fmean(value for value in values if value is not None):.0f}"


def figure12(epoch: int, *models: str) -> list[list[float]]:
    """M_k of each layer after so many epochs, run by run."""
    tried = [run for model in models for run in runs(f"{HUO}/figure12", model=model)]
    return [list(run.layers("variance_factor")[epoch - 1]["variance_factor"].values()) for run in tried]


def figure12_falls() -> str:
    curves = [run.curve("train_loss") for run in runs(f"{HUO}/figure12", model="resnet8_nobn")]
    falls = [100 * (1 - (curve[-1] or 0) / (curve[0] or 1)) for curve in curves]
    return f"{min(falls):.0f} to {max(falls):.0f} %"


def share(values: list[list[float]], holds: Callable[[list[float]], bool]) -> str:
    return f"{sum(map(holds, values))} of {len(values)}"


def rising(values: list[float]) -> bool:
    return values == sorted(values)


def seconds_of(method: str) -> str:
    return f"{mean('seconds', 'other/dasgd', algorithm=method):.0f}"


# The heading of a remark, its words with a place for each number, what computes the numbers.
REMARKS: list[tuple[str, str, list[Callable[[], str]]]] = [
    (f"{HUO}/figure1", "end at {}", [figure1_by_iterations]),
    (
        f"{HUO}/figure2",
        "({} times as fast)",
        [figure2_speed_up],
    ),
    (f"{HUO}/figure6_epochs", "needs {} and {}", [lambda: figure6_passes(100), lambda: figure6_passes(1000)]),
    (f"{HUO}/figure6_epochs", "0.001 diverged with H=100 and with H=1000, in {}", [figure6_diverged]),
    (
        f"{HUO}/figure6_epochs",
        "is at a gap of {} (H=100) and of {} (H=1000), CoCoA+ at {} and {}",
        [
            lambda: figure6_ends("dis_dfsdca", 100, 0.0002),
            lambda: figure6_ends("dis_dfsdca", 1000, 0.0002),
            lambda: figure6_ends("cocoa_plus", 100, 0.0001),
            lambda: figure6_ends("cocoa_plus", 1000, 0.0001),
        ],
    ),
    (
        f"{HUO}/figure6_epochs",
        "40 passes end at a gap of {}",
        [lambda: figure6_ends("dis_dfsdca", 100, 1e-5)],
    ),
    (f"{HUO}/figure6_covtype_shape_time", "diverged in {}, and 1e-4", [figure6_covtype_diverged]),
    (
        f"{HUO}/figure7",
        "({} against {} with sixteen workers)",
        [lambda: figure7_speed_up("dis_dfsdca"), lambda: figure7_speed_up("cocoa_plus")],
    ),
    (
        f"{HUO}/figure8",
        "of the {} runs {} are asynchronous SGD",
        [lambda: f"{len(archived(f'{HUO}/figure8'))}", lambda: f"{len(runs(f'{HUO}/figure8', algorithm='asgd'))}"],
    ),
    (
        f"{HUO}/figure8",
        "a suboptimality of 1e-5 after {} virtual seconds, before Distributed-AsySVRG ({})",
        [lambda: figure8_seconds("dis_dfsdca", 100.0, 1e-4), lambda: figure8_seconds("asysvrg", 100.0, 1e-3)],
    ),
    (
        f"{HUO}/figure8",
        "the same {} seconds, at {}",
        [lambda: figure8_seconds("asgd", 100.0, 1e-3), figure8_same_evaluation],
    ),
    (
        f"{HUO}/figure8",
        "noise, {} and {} on average, while AsySVRG goes to {}",
        [
            lambda: figure8_ends("dis_dfsdca", 100.0, 1e-4),
            lambda: figure8_ends("asgd", 100.0, 1e-3),
            lambda: figure8_ends("asysvrg", 100.0, 1e-3),
        ],
    ),
    (
        f"{HUO}/figure8",
        "with eight after {}, before {}",
        [
            lambda: figure8_seconds("dis_dfsdca", 100.0, 1e-4, workers=8),
            lambda: figure8_seconds("asysvrg", 100.0, 1e-3, workers=8),
        ],
    ),
    (
        f"{HUO}/figure8",
        "AsySVRG is at 1e-5 after {} seconds and Dis-dfSDCA after {}, with eight after {} and {}. Both converge, with "
        "four to {} and {}; asynchronous SGD at the rate of Dis-dfSDCA stays at {}, at a tenth of it at {}.",
        [
            lambda: figure8_seconds("asysvrg", 0.5, 1e-1),
            lambda: figure8_seconds("dis_dfsdca", 0.5, 1e-2),
            lambda: figure8_seconds("asysvrg", 0.5, 1e-1, workers=8),
            lambda: figure8_seconds("dis_dfsdca", 0.5, 1e-2, workers=8),
            lambda: figure8_ends("asysvrg", 0.5, 1e-1),
            lambda: figure8_ends("dis_dfsdca", 0.5, 1e-2),
            lambda: figure8_ends("asgd", 0.5, 1e-2),
            lambda: figure8_ends("asgd", 0.5, 1e-3),
        ],
    ),
    (
        f"{HUO}/figure9a",
        "the first layer reaches the loss at a rate of 10 in {} runs, none of the others does ({}). At 1 the second "
        "and third layer and the classifier reach it in {}, the fourth in {}. With a rate of 1 in the first layer "
        "alone the network needs {} epochs, with 0.01 in all of them {}.",
        [
            lambda: reached(figure9("fcn5", 1e3, "hidden1.linear")),
            lambda: reached(figure9("fcn5", 1e3, *FCN_LATER)),
            lambda: reached(figure9("fcn5", 1e2, "hidden2.linear", "hidden3.linear", "classifier")),
            lambda: reached(figure9("fcn5", 1e2, "hidden4.linear")),
            lambda: epochs(figure9("fcn5", 1e2, "hidden1.linear")),
            lambda: epochs(figure9("fcn5", 1, "hidden1.linear")),
        ],
    ),
    (
        f"{HUO}/figure9b",
        "it reaches the loss at a rate of 100 in {} runs, while none of the others reaches it at 10 ({}). At a rate of "
        "1 those do so in {},",
        [
            lambda: reached(figure9("cnn5", 1e4, "conv1.conv")),
            lambda: reached(figure9("cnn5", 1e3, *CNN_LATER)),
            lambda: reached(figure9("cnn5", 1e2, *CNN_LATER)),
        ],
    ),
    (
        f"{HUO}/figure9c",
        "the layers between the first and the last reach the loss in {} runs, the first and the classifier in {}, of "
        "which {} diverged.",
        [
            lambda: reached(figure9("resnet8_nobn", 1e3, *RESNET_BETWEEN)),
            lambda: reached(figure9("resnet8_nobn", 1e3, "stem.conv", "classifier")),
            lambda: str(sum(r.status == "diverged" for r in figure9("resnet8_nobn", 1e3, "stem.conv", "classifier"))),
        ],
    ),
    (
        f"{HUO}/figure9d",
        "{} to {} for the first layer, {} to {} for the second, at most {} for the third and {} for the fourth. The "
        "classifier's is {} to {};",
        [
            lambda: f"{min(figure9_bounds('hidden1.linear')):.1f}",
            lambda: f"{max(figure9_bounds('hidden1.linear')):.0f}",
            lambda: f"{min(figure9_bounds('hidden2.linear')):.1f}",
            lambda: f"{max(figure9_bounds('hidden2.linear')):.1f}",
            lambda: f"{max(figure9_bounds('hidden3.linear')):.1f}",
            lambda: f"{max(figure9_bounds('hidden4.linear')):.1f}",
            lambda: f"{min(figure9_bounds('classifier')):.1f}",
            lambda: f"{max(figure9_bounds('classifier')):.1f}",
        ],
    ),
    (
        f"{HUO}/figure12",
        "input to the classifier, in {} runs of the two networks on MNIST. In ResNet-8 it does so in {}",
        [lambda: share(figure12(1, *MNIST), rising), lambda: share(figure12(1, "resnet8_nobn"), rising)],
    ),
    (
        f"{HUO}/figure12",
        "is the classifier in {} runs and the one before it in the others, and the first layer's is {} of",
        [
            lambda: share(figure12(1, "resnet8_nobn"), lambda values: max(values) == values[-1]),
            lambda: f"{fmean(values[0] / values[-1] for values in figure12(1, 'resnet8_nobn')):.1f}",
        ],
    ),
    (
        f"{HUO}/figure12",
        "still rises from layer to layer in {} runs on MNIST, and is largest in the classifier in {} of all",
        [
            lambda: share(figure12(10, *MNIST), rising),
            lambda: share(figure12(10, *MNIST, "resnet8_nobn"), lambda values: max(values) == values[-1]),
        ],
    ),
    (f"{HUO}/figure12", "its training loss falls by only {} in ten epochs", [figure12_falls]),
    (
        "dasgd_iclr2022/table1",
        "it is at {} % accuracy",
        [lambda: f"{100 * mean('final_accuracy', 'dasgd_iclr2022/table1', algorithm='sgd', model='mobilenet_v2'):.0f}"],
    ),
    (
        "DaSGD and CLARS at quick scale",
        "({} and {} against {})",
        [lambda: seconds_of("dasgd"), lambda: seconds_of("local_sgd"), lambda: seconds_of("ssgd")],
    ),
]


@pytest.mark.parametrize(("heading", "words", "numbers"), REMARKS)
def test_a_remarks_numbers_are_the_runs(heading: str, words: str, numbers: list[Callable[[], str]]) -> None:
    remark = re.sub(r"\s+", " ", Notes(DOCS / "notes.md").take(heading, DOCS / "notes.md"))
    assert words.format(*(number() for number in numbers)) in remark
