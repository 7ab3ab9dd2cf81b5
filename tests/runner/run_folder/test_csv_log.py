import csv
from pathlib import Path

from runner.run_folder.csv_log import CsvLog


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_lines_of_a_table(tmp_path: Path):
    logger = CsvLog(tmp_path)
    logger.take_over([])
    logger.log({"epoch": 1.0, "test_error": None})
    assert read(tmp_path) == [{"epoch": "1.0", "test_error": ""}], "at once, not at the end"
    logger.log({"epoch": 2.0, "test_error": 12.5, "dual": 3})
    logger.log({"epoch": 3.0})
    assert read(tmp_path) == [
        {"epoch": "1.0", "test_error": "", "dual": ""},
        {"epoch": "2.0", "test_error": "12.5", "dual": "3"},
        {"epoch": "3.0", "test_error": "", "dual": ""},
    ]


def test_resumed_table_has_each_row_once(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("epoch\n1.0\n2.0\n")
    logger = CsvLog(tmp_path)
    logger.take_over([{"epoch": 1.0}])
    logger.log({"epoch": 2.0})
    assert read(tmp_path) == [{"epoch": "1.0"}, {"epoch": "2.0"}]
    logger.take_over([])
    assert read(tmp_path) == [], "a run that begins anew has none"
