import platform
from pathlib import Path

import pytest
import torch

from runner.train import build
from runner.train import warnings as module
from runner.train.warnings import multiplies_bf16, warnings
from tests.trial import compose

CPU = torch.device("cpu")


@pytest.mark.parametrize(("milestones", "said"), [("[4,80,120]", "[80,120]"), ("[4]", None), ("[10]", "[10]")])
def test_milestones_beyond_the_run_are_warned_about(
    milestones: str, said: str | None, caplog: pytest.LogCaptureFixture
):
    given = ("algorithm=sgd", "model=linear", "schedule=multistep", "run.epochs=10")
    build.build_run(compose(*given, f"schedule.milestones={milestones}"))
    line = f"schedule.milestones={said}: beyond run.epochs=10, so the rate does not fall there"
    assert [record.getMessage() for record in caplog.records] == ([line] if said else [])


@pytest.mark.parametrize(("lr", "warned"), [("1e-6", False), ("100", True)])
def test_rate_beyond_the_bound_is_warned_about(lr: str, warned: bool, caplog: pytest.LogCaptureFixture):
    made_up = ("dataset=synthetic", "dataset.classes=2", "dataset.shape=[12]", "dataset.train=203", "dataset.test=40")
    build.build_run(compose("algorithm=dis_dfsdca", "model=ridge", *made_up, "run.batch_size=5", f"schedule.lr={lr}"))
    assert ("this problem needs a rate below" in caplog.text) == warned


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("schedule=multistep", "schedule.milestones=[]"), "schedule.milestones=[]: there are none, so the rate never"),
        (("schedule=multistep", "schedule.milestones=[4]", "schedule.gamma=1"), "schedule.gamma=1: leaves the rate"),
        (("schedule=constant", "schedule.gamma=0.5"), "schedule.gamma=0.5: does nothing, as schedule.kind=constant"),
        (("schedule=inverse", "run.epochs=1"), "run.epochs=1: the rate of schedule.kind=inverse falls after each"),
        (("schedule=polynomial", "schedule.lr_end=0.1"), "schedule.lr_end=0.1: is schedule.lr, so the rate never"),
        (
            ("schedule=one_cycle", "schedule.lr_end=0.01", "schedule.lr_start=0.01"),
            "schedule.lr_end=0.01: is schedule.lr",
        ),
        (("schedule.warmup_epochs=10",), "schedule.warmup_epochs=10: the run ends with it (run.epochs=10), and never"),
        (("schedule.warmup_from=zero",), "schedule.warmup_from=zero: does nothing without schedule.warmup_epochs"),
    ],
)
def test_a_schedule_without_effect_is_warned_about(given: tuple[str, ...], line: str):
    (said,) = warnings(compose("run.epochs=10", *given), None, CPU)
    assert said.startswith(line)


@pytest.mark.parametrize(
    "given",
    [
        ("schedule=constant",),
        ("schedule=multistep", "schedule.milestones=[4]"),
        ("schedule=inverse",),
        ("schedule=inverse", "schedule.power=0", "run.epochs=1"),
        ("schedule=polynomial",),
        ("schedule=one_cycle",),
        ("schedule=one_cycle", "schedule.lr_end=0.01"),
        ("schedule.warmup_epochs=5", "schedule.warmup_from=zero"),
    ],
)
def test_a_schedule_that_has_its_effect_is_not(given: tuple[str, ...]):
    assert list(warnings(compose("run.epochs=10", *given), None, CPU)) == []


@pytest.mark.parametrize(
    ("precision", "device", "native", "warned"),
    [
        ("bf16", "cpu", False, True),
        ("bf16", "cpu", True, False),
        ("bf16", "cuda", False, False),
        ("fp32", "cpu", False, False),
    ],
)
def test_emulated_bf16_is_warned_about(
    precision: str, device: str, native: bool, warned: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "multiplies_bf16", lambda: native)
    said = list(warnings(compose(f"run.precision={precision}"), None, torch.device(device)))
    assert [line.partition(":")[0] for line in said] == (["run.precision=bf16"] if warned else [])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the flags of such a CPU")
def test_bf16_is_asked_of_the_cpu():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if not flags & {"avx512bw", "avx_ne_convert", "amx_bf16"}:
        assert not multiplies_bf16()
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        assert multiplies_bf16()
