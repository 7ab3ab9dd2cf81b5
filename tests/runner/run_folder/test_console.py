import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner.run_folder.console import duration, row_line, show_result, sparkline, staleness_line, wall_line
from runner.run_folder.progress import Progress
from tests.terminal import ROW, console, written


def test_line_shows_the_row():
    text = row_line(ROW, 3, "virtual s", 1234.6)
    parts = ["epoch 1.00/3", "test error  33.33 %", "train error  40.00 %", "train loss 1.5000", "lr     0.1"]
    parts += ["staleness  7.0", "max   9", "12.2 virtual s", "1,235 samples/s", "test loss 1.2500"]
    for part in parts:
        assert part in text
    assert "None" not in row_line({**ROW, "test_error": None, "train_loss": float("nan")}, 3, "s")


def test_lines_show_added_columns():
    last = {**ROW, "epoch": 10.0, "test_error": 5.0, "staleness_max": 120, "seconds": 12345.6, "duality_gap": 1e-7}
    first, second = (row_line(row, 10, "s", 9.0) for row in ({**ROW, "duality_gap": 0.25}, last))
    assert len(first) == len(second)
    assert first.index("duality gap") == second.index("duality gap")
    assert "duality gap      1e-07" in second


def test_line_fits_a_narrow_terminal():
    text = row_line({**ROW, "sigma": 0.1}, 3, "virtual s", 1234.6, width=80)
    assert len(text) <= 80
    assert "test error" in text
    assert "samples/s" in text
    assert "sigma" not in text


SUMMARY: dict[str, Any] = {
    "status": "completed",
    "algorithm": "dc_asgd_a",
    "model": "resnet20",
    "dataset": "digits",
    "cluster": "simulated",
    "workers": 4,
    "epochs": 3.0,
    "best_test_error": 4.5,
    "final_test_error": 5.25,
    "seconds": 321.0,
    "clock": "virtual",
    "wall_seconds": 61.25,
    "samples_per_second": 1234.0,
}


def test_result_names_run_and_ending():
    target = console(width=80)
    show_result(target, SUMMARY, Path("outputs/a"), curve=[80.0, None, 40.0, 5.25])
    text = written(target)
    parts = ["dc_asgd_a", "resnet20", "digits", "4 (simulated)", "best 4.50 %, final 5.25 %", "321.0 virtual s"]
    for part in [*parts, "61.2 s", "1,234 samples/s", "completed", "█▅▁"]:
        assert part in text
    assert text.endswith("run folder: outputs/a\n")
    assert "schedule.lr" not in text


def test_validation_is_beside_the_test_error():
    row = {**ROW, "validation_error": 30.5, "validation_loss": 1.125, "validation_error_top5": 4.0}
    text = row_line(row, 3, "s")
    for part in ("validation error  30.50 %", "validation loss 1.1250", "top-5 validation error   4.00 %"):
        assert text.count(part) == 1
    assert text.count("validation_error ") == text.count("validation_loss ") == 0
    target = console()
    sizes = {"train_samples": 45000, "validation_samples": 5000, "test_samples": 10000}
    found = {"best_validation_error": 6.5, "final_validation_error": 7.0, "test_error_at_best_validation": 4.75}
    show_result(target, {**SUMMARY, **sizes, **found}, Path("outputs/a"))
    for part in ("train 45,000, validation 5,000, test 10,000", "best 6.50 %, final 7.00 %"):
        assert part in written(target)
    assert "4.75 % at the best validation error, final 5.25 %" in written(target)
    target = console()
    show_result(target, {**SUMMARY, **sizes, "validation_samples": None}, Path("outputs/a"))
    assert "45,000" not in written(target)


def test_measured_seconds_are_not_called_virtual():
    target = console()
    show_result(target, {**SUMMARY, "clock": "measured", "cluster": "processes"}, Path("outputs/a"))
    assert "321.0 s" in written(target)
    assert "virtual" not in written(target)


def test_hints_after_divergence_and_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = console()
    empty = {"best_test_error": None, "final_test_error": None, "samples_per_second": None}
    show_result(target, {**SUMMARY, **empty, "status": "diverged"}, Path("outputs/a"), lr=0.5)
    assert "smaller schedule.lr (it is 0.5), or a warm-up: schedule.warmup_epochs=5" in written(target)
    assert "best - %, final - %" in written(target)
    monkeypatch.chdir(tmp_path)
    show_result(target, {**SUMMARY, "status": "interrupted"}, Path("outputs/a").absolute())
    assert "run.resume" not in written(target), "there is no checkpoint to go on from"
    Path("outputs/a/checkpoints").mkdir(parents=True)
    Path("outputs/a/checkpoints/step-000000000001.pt").touch()
    show_result(target, {**SUMMARY, "status": "interrupted"}, Path("outputs/a").absolute())
    assert "dcrun run.resume=outputs/a" in written(target)


def test_durations_and_sparklines():
    assert [duration(seconds) for seconds in (7, 754, 3723)] == ["0:07", "12:34", "1:02:03"]
    assert sparkline([100, 50, 0]) == "█▅▁"
    assert sparkline([float("nan"), 3.0, None]) == ""
    assert len(sparkline(list(range(160)))) == 40
    assert sparkline([0.0, 0.0]) == "▁▁"


def test_wall_time_counts_the_start():
    assert wall_line({"wall_seconds": 2.0, "start_seconds": 30.13}) == (
        "32.1 s, 30.1 s of them from the command to the first step"
    )
    # A summary from before the start was counted, and one of a run that has not ended.
    assert wall_line({"wall_seconds": 2.0}) == "2.0 s"
    assert wall_line({"wall_seconds": None, "start_seconds": None}) == "- s"


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (2.30258, "2.3026"),
        (12.34567, "12.346"),
        (12345.678, " 12346"),
        (6404329289.9556, " 6.4e9"),
        (-6404329289.9556, "-6.4e9"),
        (3e38, "3.0e38"),
    ],
)
def test_large_losses_keep_to_their_column(loss: float, shown: str):
    text = row_line({**ROW, "train_loss": loss}, 3, "s")
    assert f"train loss {shown}  " in text
    assert len(text) == len(row_line({**ROW, "train_loss": 1.0}, 3, "s"))


def test_counts_are_whole_however_large():
    assert "max 1234567" in row_line({**ROW, "staleness_max": 1234567}, 3, "s")


def test_staleness_of_many_says_which_end():
    assert staleness_line([4.0, None, 2.5]) == "worker 0: 4.0, worker 2: 2.5"
    many = [10.0, 41.04, 4.2, *[9.0] * 7]
    assert staleness_line(many) == "lowest worker 2: 4.2, highest worker 1: 41.0"


def test_further_columns_have_names():
    more = {"duality_gap": 0.5, "disagreement_mean": 0.25, "hidden_seconds": 12.0, "activation_bytes": 2.5e6}
    line = row_line({**ROW, **more, "activation_bytes_module1": 1e6, "my_own": 3.0}, 3, "virtual s")
    for text in (
        "duality gap        0.5",
        "apart       0.25",
        "of it hidden     12.0 virtual s",
        "activations  2.5 MB",
    ):
        assert text in line
    assert "my own          3" in line
    assert "_" not in line


def test_lines_of_a_pipe_fit_a_wide_screen():
    stream = io.StringIO()
    more = {f"activation_bytes_module{k}": 1e9 for k in range(9)} | {"activation_bytes": 9e9, "suboptimality": 1e-7}
    shown = Progress(epochs=3, virtual=True, console=Console(file=stream, width=80))
    shown.row({**ROW, "communication_seconds": 1.0, **more}, 1234.6)
    (line,) = stream.getvalue().splitlines()
    assert 100 < len(line) <= 160
    assert "suboptimality      1e-07" in line, "the number that such a run is about"
    assert "module" not in line
