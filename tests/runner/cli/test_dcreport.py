import json
import re
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from runner.cli.dcreport import main
from runner.report.collect import collect
from runner.report.provenance import commands
from tests.page_contents import data_of

MakeRun = Callable[..., Path]
EVIL = "<img src=x onerror=alert(1)>|*a*"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    for seed in (0, 1):
        for workers in (4, 8):
            make_run(f"asgd{workers}/{seed}", [60.0, 31.0 + seed], workers=workers, seed=seed)
            make_run(f"ssgd{workers}/{seed}", [60.0, 30.0 + seed], algorithm="ssgd", workers=workers, seed=seed)
        make_run(f"sgd/{seed}", [60.0, 29.0 + seed], algorithm="sgd", workers=1, seed=seed)
    make_run("other", [50.0, 45.0], model="mlp", dataset="digits")
    broken = make_run("broken", [50.0])
    (broken / "summary.json").write_text('{"status": "comp')
    make_run("running", [50.0], status="running", model="mlp", dataset="digits", summary={"final_test_error": None})
    return tmp_path / "runs"


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has figures written as their numbers, not drawn: that takes seconds, and `test_markdown_and_figures` does it."""

    def write(figure: Figure, path: Path, **options: object) -> None:
        Path(path).write_text(str([np.array(line.get_data()).tolist() for axes in figure.axes for line in axes.lines]))

    monkeypatch.setattr(Figure, "savefig", write)


def test_a_page_with_everything_in_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs)]) == 0
    page = (runs / "report.html").read_text()
    out, err = capsys.readouterr()
    assert out == f"13 runs -> {runs / 'report.html'}\n"
    assert "broken: summary.json:" in err
    data = data_of(page)
    assert len(data["runs"]) == 13
    assert {run["fields"]["status"] for run in data["runs"]} == {"completed", "running", "broken"}
    assert data["runs"][0]["curve"]["test_error"] == [60.0, 31.0]
    # The paper's table stands beside.
    assert "ResNet-20 on CIFAR-10" in page
    assert "paper 9.27" in page
    assert "<strong>31.50 ± 0.71</strong>" in page
    assert "experiment=dc_asgd_icml2017/table2" in page
    # One row for each measured setting, before any of the tables.
    begin = page.index("Claims at a glance")
    glance = re.sub(r"<[^>]+>|\s", " ", page[begin : page.index("<article", begin)])
    assert "dc_asgd_icml2017/table1 Own setting: 2 effective passes, seeds 0, 1" in " ".join(glance.split())
    assert "Claims not measured: " in page
    best = "<strong>sgd</strong> M=1 is best with 29.50\u00a0±\u00a00.71 % test error"
    assert page.index(best) < begin, "the result stands first"


def test_it_needs_nothing_from_elsewhere(runs: Path) -> None:
    main([str(runs)])
    tags = Tags()
    tags.feed((runs / "report.html").read_text())
    for tag, attributes in tags.seen:
        assert tag != "link" or (attributes["href"] or "").startswith("data:"), attributes
        assert "src" not in attributes, (tag, attributes)


@pytest.mark.usefixtures("sketched")
def test_own_files_are_not_runs(runs: Path) -> None:
    main([str(runs), "--out", str(runs / "report")])
    assert main([str(runs), "--out", str(runs / "report")]) == 0
    assert len(data_of((runs / "report" / "report.html").read_text())["runs"]) == 13


def test_markdown_and_figures(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    for summary in runs.glob("*/*/summary.json"):
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "git_commit": "0123456789abcdef-dirty"}))
    assert main([str(runs), "--out", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert "| M=8 |  | 31.50 ± 0.71 (paper 10.26, +21.24) | 30.50 ± 0.71 (paper 10.10, +20.40) |" in text
    assert "`final_test_error[SSGD, M=8] <= final_test_error[ASGD, M=8]` | table 1 | **holds**" in text
    assert "M=8, best first: SSGD, ASGD; the paper's order" in text
    [row] = re.findall(r"^\|.*\(dc\\_asgd\\_icml2017/table1\) \|.*$", text, re.M)
    *_, holds, fails, undecided, unmeasured, _ = (part.strip() for part in row.split("|"))
    told = text.partition("## ResNet-20 on CIFAR-10, test error")[2].partition("\n## ")[0]
    counts = [told.count(f"**{word}**") for word in ("holds", "fails", "undecided")]
    assert [int(holds), int(fails), int(undecided)] == counts
    assert counts[0] > 0
    assert f"{unmeasured} further claims were not measured" in told
    assert "commit: 0123456789ab-dirty" in text
    assert "dcrun -m algorithm=asgd seed=0,1" in text
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (out / link).stat().st_size > 5000
        assert (out / link).with_suffix(".svg").read_text().startswith("<?xml")
    assert "figures/dc_asgd_icml2017-figure2-own-test_error.png" in text
    assert "mlp on digits" in text
    assert "broken" in text


@pytest.mark.parametrize(
    "given",
    [
        ["dataset.root='/data/my sets/[old] $HOME'", "dataset=digits", "dataset.shape=[1,8,8]", "~run.compile"],
        ["experiment=dasgd_iclr2022/table1", "dataset.root='/data/my sets/it\\'s'", "schedule.lr=0.1"],
    ],
)
@pytest.mark.parametrize("seeds", [(0, 1), (3,)])
def test_quoted_values_survive_a_shell(
    make_run: MakeRun, tmp_path: Path, given: list[str], seeds: tuple[int, ...]
) -> None:
    for seed in seeds:
        folder = make_run(f"a{seed}", [50.0], algorithm="ssgd", seed=seed)
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([*given, f"seed={seed}"]))
    [command] = commands(collect([tmp_path]))
    shell = f"dcrun() {{ printf '%s\\n' \"$@\"; }}; {command}"
    words = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [word for word in words if word in given] == given * (len(seeds) if "for " in command else 1)
    plain = [word for word in given if not set(word) & set("'[~ ")]
    assert all(f" {word} " in command for word in plain)


@pytest.mark.parametrize("experiment", [True, False])
def test_the_page_tells_one_runs_own_command(make_run: MakeRun, tmp_path: Path, experiment: bool) -> None:
    given = ["algorithm=ssgd", "dataset.root='/data/my sets/[old] $HOME'"]
    given += ["experiment=dasgd_iclr2022/table1"] if experiment else []
    for seed in (0, 1):
        folder = make_run(f"a{seed}", [50.0], algorithm="ssgd", seed=seed)
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(["logger.group=x", f"seed={seed}", *given]))
    main([str(tmp_path)])
    facts = [dict(run["facts"]) for run in data_of((tmp_path / "report.html").read_text())["runs"]]
    for seed in (0, 1):
        shell = f"dcrun() {{ printf '%s\\n' \"$@\"; }}; {facts[seed]['command']}"
        words = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
        assert words == [*given, *(["run.resume=null", "hydra.mode=RUN"] if experiment else []), f"seed={seed}"]


@pytest.mark.usefixtures("sketched")
def test_remarks_stand_where_they_belong(runs: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n\nAt the top.\n\n## dc_asgd_icml2017/table1\n\nOf the table.\n\n## Later\n\nThe end.\n")
    out = tmp_path / "report"
    assert main([str(runs), "--out", str(out), "--notes", str(notes)]) == 0
    text = (out / "report.md").read_text()
    places = [text.index(part) for part in ("At the top.", "table 1. ", "Of the table.", "### Own", "## Later")]
    assert places == sorted(places)


@pytest.mark.usefixtures("sketched")
def test_results_are_an_index_and_pages(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, pages, figures = tmp_path / "RESULTS.md", tmp_path / "docs" / "pages", tmp_path / "docs" / "figs"
    arguments = [str(runs), "--results", str(results), "--pages", str(pages), "--figures", str(figures)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"13 runs -> {results}, 3 pages in {pages}")
    assert "](docs/pages/dc_asgd_icml2017.md)" in results.read_text()
    paper = (pages / "dc_asgd_icml2017.md").read_text()
    assert "](../figs/" in paper
    assert not (runs / "report.html").exists()
    main(arguments)
    assert (pages / "dc_asgd_icml2017.md").read_text() == paper


@pytest.mark.usefixtures("sketched")
def test_pages_and_figures_lie_beside_the_index(runs: Path, tmp_path: Path) -> None:
    assert main([str(runs), "--results", str(tmp_path / "r" / "RESULTS.md")]) == 0
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["RESULTS.md", "figures", "results"]


@pytest.mark.usefixtures("sketched")
def test_folders_and_their_archive_report_the_same(runs: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "table1.jsonl"
    (runs / "broken" / "summary.json").write_text('{"status": "failed"}')
    assert main([str(runs), "--archive", str(kept)]) == 0
    for path, name in ((runs, "folders"), (kept, "archived")):
        assert main([str(path), "--out", str(tmp_path / name)]) == 0
    folders, archived = (
        {file.relative_to(top): file.read_bytes() for file in top.rglob("*") if file.is_file()}
        for top in (tmp_path / "folders", tmp_path / "archived")
    )
    assert len(folders) > 4
    assert archived == folders


def test_an_archive_alone_is_reported_beside_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0])
    kept = tmp_path / "kept" / "a.jsonl"
    assert main([str(tmp_path / "runs"), "--archive", str(kept)]) == 0
    assert main([str(kept)]) == 0
    assert (tmp_path / "kept" / "report.html").exists()


def test_an_archive_is_not_overwritten_unasked(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, kept = make_run("a", [50.0]), tmp_path / "a.jsonl"
    kept.write_text("mine")
    assert main([str(folder), "--archive", str(kept)]) == 2
    message = f"dcreport: --archive={kept}: exists; allowed: a new file, or --overwrite\n"
    assert capsys.readouterr().err == message
    assert kept.read_text() == "mine"
    assert main([str(folder), "--archive", str(kept), "--overwrite"]) == 0
    assert kept.read_text().startswith('{"archive"')


def test_broken_runs_are_left_out_of_archives(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs), "--archive", str(tmp_path / "a.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert out == f"12 runs -> {tmp_path / 'a.jsonl'}; 1 broken left out\n"
    assert "broken: summary.json:" in err
    assert main([str(runs / "broken"), "--archive", str(tmp_path / "b.jsonl")]) == 2
    assert "b.jsonl: nothing to archive: no run's summary can be read" in capsys.readouterr().err


@pytest.mark.usefixtures("sketched")
def test_results_refuse_runs_of_no_commit(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("clean", [40.0])
    make_run("dirty", [41.0], summary={"git_commit": "0" * 40 + "-dirty"})
    kept, results = tmp_path / "kept" / "a.jsonl", ["--results", str(tmp_path / "RESULTS.md")]
    assert main([str(tmp_path / "runs"), "--archive", str(kept)]) == 0
    assert capsys.readouterr().out == f"2 runs -> {kept}; 1 of no commit kept, which --results refuses\n"
    assert main([str(kept), *results]) == 2
    assert capsys.readouterr().err.startswith(f"dcreport: --results: {kept}: dirty: the commit is unknown or dirty")
    assert not (tmp_path / "RESULTS.md").exists()
    # A page of one's own outputs is still written.
    assert main([str(kept)]) == 0
    capsys.readouterr()
    assert main([str(kept), "--archive", str(kept), "--overwrite", "--committed"]) == 0
    assert capsys.readouterr().out == f"1 runs -> {kept}; 1 of no commit left out\n"
    assert main([str(kept), *results]) == 0


def test_archive_of_no_commit_alone_is_refused(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("dirty", [41.0], summary={"git_commit": "0" * 40 + "-dirty"})
    assert main([str(folder), "--archive", str(tmp_path / "a.jsonl"), "--committed"]) == 2
    assert "a.jsonl: nothing to archive: no run is of a commit; allowed: without --committed" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()


def test_a_broken_archive_is_one_line(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", [50.0])
    kept = tmp_path / "kept" / "a.jsonl"
    main([str(tmp_path / "runs"), "--archive", str(kept)])
    kept.write_text(kept.read_text() + "<<<<<<< HEAD\n")
    capsys.readouterr()
    assert main([str(kept.parent)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"dcreport: {kept}:5: is not JSON")
    assert err.count("\n") == 1


def test_report_names_differing_settings(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (algorithm, config) in enumerate(
        [
            ("lars", {"schedule.warmup_epochs": 0.0, "algorithm.eta": 0.1}),
            ("lars", {"schedule.warmup_epochs": 5.0, "algorithm.eta": 0.1}),
            ("nag", {"schedule.warmup_epochs": 5.0}),
        ]
    ):
        make_run(f"a{number}", [50.0], algorithm=algorithm, model="mlp", config={"schedule.base_batch": 64, **config})
    make_run("b", [40.0], algorithm="nag", model="mlp", config={"run.batch_size": 32, "schedule.warmup_epochs": 5.0})
    out = tmp_path / "report"
    main([str(tmp_path / "runs"), "--out", str(out)])
    text = (out / "report.md").read_text()
    assert "| lars M=4 | schedule.warmup\\_epochs=0 | 0 | completed |" in text
    assert "| lars M=4 | schedule.warmup\\_epochs=5 | 0 | completed |" in text
    assert "| nag M=4 | schedule.warmup\\_epochs=5 | 0 | completed |" in text
    # What a table's runs share, and others do not, stands above it.
    assert "**mlp on cifar10, simulated**: run.batch\\_size=128" in text
    assert "**mlp on cifar10, simulated**: run.batch\\_size=32, schedule.warmup\\_epochs=5" in text
    assert "| run | seeds | status |" in text


def test_search_reports_the_best_neighbours(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error in ((0.1, 30.0), (0.2, 20.0), (0.4, 25.0)):
        for seed in (0, 1):
            name, config = f"{lr}/{seed}", {"schedule.lr": lr}
            make_run(name, [error + seed], model="mlp", dataset="digits", seed=seed, config=config)
    out = tmp_path / "report"
    main([str(tmp_path / "runs"), "--out", str(out)])
    best = "best of 3: schedule.lr=0.2 at 20.50 ± 0.71"
    beside = "schedule.lr=0.1 30.50 ± 0.71 (+10.00); schedule.lr=0.4 25.50 ± 0.71 (+5.00)"
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert f"<h3>asgd M=4, mlp on digits</h3>\n  <ul><li>{best}</li><li>beside it: {beside}</li></ul>" in page
    assert f"- search among asgd M=4, mlp on digits: {best}; beside it: {beside}" in text


def test_names_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0], algorithm=EVIL, config={"algorithm.note": "</script><script>alert(1)</script>"})
    make_run("b", [50.0], algorithm="asgd", summary={"git_commit": EVIL, "device_name": EVIL})
    make_run("c", [50.0], workers=8)
    out = tmp_path / "report"
    assert main([str(tmp_path / "runs"), "--out", str(out), "--title", EVIL]) == 0
    page = (out / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert "img" not in {tag for tag, _ in tags.seen}
    assert sum(tag == "script" for tag, _ in tags.seen) == 4
    assert data_of(page)["runs"][0]["fields"]["algorithm"] == EVIL
    text = (out / "report.md").read_text()
    assert "<img" not in re.sub(r"^```$.*?^```$", "", text, flags=re.S | re.M)
    assert r"\|\*a\*" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [(None, "no such folder or file"), ("empty", "holds no run folders")],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str | None, message: str
) -> None:
    folder = tmp_path / "x"
    if make:
        folder.mkdir()
    assert main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("--archive a.jsonl --notes n.md", "--notes=n.md: would do nothing; allowed: without --archive"),
        ("--results r.md --library beside", "--library=beside: would do nothing; allowed: without --results"),
        ("--yes", "--yes: would do nothing; allowed: with --clean"),
        ("--port 8000", "--port=8000: would do nothing; allowed: with --watch"),
        ("--watch --out o", "--out=o: would do nothing; allowed: without --watch"),
        ("--out o --figures f", "--figures=f: would do nothing; allowed: with --results"),
        ("--results r.md --out o", "--out=o: would do nothing; allowed: without --results"),
        ("--pages p", "--pages=p: would do nothing; allowed: with --results"),
        ("--overwrite", "--overwrite: would do nothing; allowed: with --archive"),
        ("--committed", "--committed: would do nothing; allowed: with --archive"),
        ("--archive a.jsonl --results r.md", "--results=r.md: would do nothing; allowed: without --archive"),
        ("--archive a.jsonl --out o", "--out=o: would do nothing; allowed: without --results and --archive"),
        ("--archive a.json", "--archive=a.json: dcreport would not find it again; allowed: names ending in .jsonl"),
        ("--results r.md --title mine", "--title=mine: would do nothing; allowed: without --results"),
    ],
)
def test_overrides_without_effect_are_refused(
    runs: Path, given: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(runs.iterdir())
    assert main([str(runs), *given.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"dcreport: {line}")
    assert err.count("\n") == 1
    assert sorted(runs.iterdir()) == before


def test_an_unwritable_place_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(runs), "--out", str(tmp_path / "file")]) == 2
    assert "file: cannot be used: File exists" in capsys.readouterr().err


@pytest.mark.slow
def test_time_is_linear_in_runs(make_run: MakeRun, tmp_path: Path) -> None:
    def seconds(runs: int) -> float:
        for number in range(runs):
            errors: list[float | None] = [90.0 / (k + number % 7 + 1) for k in range(100)]
            make_run(f"{runs}/{number}", errors, workers=4 + 4 * (number % 2), seed=number // 2)
        # Seconds of the processor: one process, one thread; what else runs on the machine is left out.
        start = time.process_time()
        assert main([str(tmp_path / "runs" / str(runs))]) == 0
        return time.process_time() - start

    seconds(10)  # imports
    few, many = seconds(75), seconds(450)
    assert many < 15 * few, "six times as many runs; every run with every other would be 36 times as long"
    assert (tmp_path / "runs" / "450" / "report.html").stat().st_size < 30e6
