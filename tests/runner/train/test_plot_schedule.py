from pathlib import Path

import pytest

from runner.config.errors import InputError
from runner.loop.schedule import Schedule
from runner.train import plot_schedule
from tests.trial import compose

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", list(MAGIC))
def test_schedule_is_drawn_and_printed(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / f"lr.{kind}"
    overrides = ("schedule=polynomial", "schedule.warmup_epochs=5", "run.epochs=20", "algorithm=ssgd")
    assert plot_schedule.show(compose(*overrides, f"run.plot_schedule={path}")) == 0
    assert path.read_bytes().startswith(MAGIC[kind])
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    rates = {float(epoch): float(lr) for epoch, lr in rows}
    assert rates[0] == 0.025
    assert rates[5] == 0.1
    assert rates[20] == 0.0
    assert rates[8] == pytest.approx(0.1 * 0.8**2)


def test_linear_scaling_takes_all_workers_batches(tmp_path: Path, capsys: pytest.CaptureFixture):
    overrides = ("schedule.base_batch=64", "run.batch_size=32", "cluster.workers=8", "schedule.lr=0.1")
    path = f"run.plot_schedule={tmp_path}/lr.svg"
    for algorithm, lr in (("ssgd", "0.4"), ("asgd", "0.05")):
        plot_schedule.show(compose(f"algorithm={algorithm}", *overrides, path))
        assert f" {lr} " in capsys.readouterr().out


def test_jump_is_drawn_upright():
    epochs, rates = plot_schedule.curve(Schedule(lr=1.0, workers=1, epochs=10, milestones=[5]))
    assert epochs == sorted(epochs)
    jump = next(i for i, rate in enumerate(rates) if rate == pytest.approx(0.1))
    assert epochs[jump] - epochs[jump - 1] < 1e-6


def test_missing_folder_is_wrong_input(tmp_path: Path):
    with pytest.raises(InputError, match=r"run\.plot_schedule=.*cannot be written"):
        plot_schedule.show(compose(f"run.plot_schedule={tmp_path}/none/lr.png"))
