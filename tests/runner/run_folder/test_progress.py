import io
import logging
import sys

import pytest
import torch

from runner.run_folder import progress as progress_module
from runner.run_folder.console import row_line
from runner.run_folder.progress import Progress
from tests.terminal import ROW, console, written


def test_no_terminal_prints_plain_lines():
    target = console(width=40)
    display = Progress(epochs=3, virtual=False, console=target)
    display.start()
    for epoch in (1.0, 2.0):
        display.update(epoch=epoch, samples=10, train_loss=1.0)
        display.row({**ROW, "epoch": epoch})
    display.stop()
    assert written(target) == "".join(row_line({**ROW, "epoch": epoch}, 3, "s") + "\n" for epoch in (1.0, 2.0))


def test_live_numbers_are_read_when_refreshed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress_module, "_REFRESH_SECONDS", 1000.0)
    target = console(terminal=True)
    display = Progress(epochs=3, virtual=True, console=target, live=True)
    display.start()
    display.row(ROW)
    calls = []

    def loss() -> torch.Tensor:
        calls.append(1)
        return torch.tensor(0.75)

    for samples in (32, 64, 96):
        display.update(epoch=1.5, samples=samples, train_loss=loss, staleness=torch.tensor(7))
    display.stop()
    display.stop()
    assert len(calls) == 1
    live = written(target).split("\n")[-2]
    for part in ("epoch 1.50/3", "test error 33.33 %", "train loss 0.7500", "staleness 7.0", "left"):
        assert part in live


def test_the_rate_leaves_evaluation_out(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
    target = console(terminal=True)
    display = Progress(epochs=3, virtual=True, console=target, live=True)
    display.start()
    for samples in (100, 200, 300):
        now += 1.0
        display.update(epoch=samples / 1000, samples=samples)
    now += 1000.0
    display.row(ROW)
    for samples in (400, 500):
        now += 1.0
        display.update(epoch=samples / 1000, samples=samples)
    display.stop()
    rates = [part.split()[0] for part in written(target).split("  ") if "samples/s" in part and "virtual" not in part]
    assert set(rates) == {"100"}


def test_time_left_of_a_resumed_run(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
    target = console(terminal=True)
    display = Progress(epochs=10, virtual=True, console=target, live=True)
    display.start(8.0)
    now = 60.0
    display.update(epoch=9.0, samples=100)
    display.stop()
    assert "epoch 9.00/10  1:00 left" in written(target)


def test_updates_between_refreshes_do_nothing(monkeypatch: pytest.MonkeyPatch):
    now, drawn = 0.0, []
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
    display = Progress(epochs=3, virtual=True, console=console(terminal=True), live=True)
    display.start()
    monkeypatch.setattr(display, "_describe", lambda *numbers: drawn.append(numbers) or "")
    for index in range(500):
        display.update(epoch=1.0, samples=index, train_loss=1.0, staleness=7)
    assert len(drawn) == 1, "a run calls it for every update, the terminal is written to a few times a second"
    now = 1.0
    display.update(epoch=1.0, samples=500)
    assert len(drawn) == 2
    display.stop()


def test_log_lines_go_above_the_bar(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("dcrun")
    logger.addHandler(handler)
    try:
        target = console(terminal=True)
        display = Progress(epochs=3, virtual=True, console=target, live=True)
        display.start()
        logger.warning("a warning")
        display.stop()
        assert "a warning\n" in written(target)
        assert stream.getvalue() == ""
        assert handler.stream is stream
        logger.warning("afterwards")
        assert stream.getvalue() == "afterwards\n"
    finally:
        logger.removeHandler(handler)
