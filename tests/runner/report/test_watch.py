import http.client
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cli.dcreport import main
from runner.config.errors import InputError
from runner.report.live_jobs import LiveJobs
from runner.report.watch import ReportServer

MakeRun = Callable[..., Path]


@pytest.fixture
def built() -> list[int]:
    """A number for each time that the report was built."""
    return []


@pytest.fixture
def server(tmp_path: Path, built: list[int]) -> Iterator[ReportServer]:
    (tmp_path / "runs").mkdir()

    def render() -> str:
        built.append(len(built))
        return f"report {len(built)} ±"

    with ReportServer(LiveJobs([tmp_path / "runs"]), render, 0, "Mine <b>") as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def asked(server: ReportServer, path: str) -> str:
    with urllib.request.urlopen(server.address + path) as answer:
        return answer.read().decode()


def test_jobs_are_told_as_they_are_now(server: ReportServer, make_run: MakeRun) -> None:
    assert "<h1>Mine &lt;b&gt;</h1>" in asked(server, "")
    assert json.loads(asked(server, "jobs.json"))["jobs"] == []
    make_run("a", [60.0, 30.0])
    (job,) = json.loads(asked(server, "jobs.json"))["jobs"]
    assert (job["name"], job["state"], job["error"]) == ("a", "completed", 30.0)


def test_the_report_is_built_when_runs_have_changed(server: ReportServer, make_run: MakeRun, built: list[int]) -> None:
    make_run("a", [60.0])
    assert asked(server, "report.html?filter=asgd") == "report 1 ±"
    assert asked(server, "report.html") == "report 1 ±"
    make_run("b", [60.0], seed=1)
    assert asked(server, "report.html") == "report 2 ±"
    assert built == [0, 1]
    assert "plotly" in asked(server, "plotly.min.js")[:500]


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/../summary.json", None, 404), ("/a/summary.json", None, 404), ("/jobs.json", "evil.example:80", 403)],
)
def test_nothing_else_is_served(server: ReportServer, path: str, host: str | None, status: int) -> None:
    """Neither files, nor a page elsewhere that gives its name this machine's address."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    assert connection.getresponse().status == status
    connection.close()


def test_only_this_machine_is_answered(server: ReportServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named(server: ReportServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"--port={server.server_port}: cannot be listened at .*; allowed: a free"):
        ReportServer(LiveJobs([tmp_path]), str, server.server_port, "x")
    with pytest.raises(InputError, match="--port=99999: "):
        ReportServer(LiveJobs([tmp_path]), str, 99999, "x")


def test_watch_serves_the_report_and_writes_nothing(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("a", [60.0, 30.0])
    make_run("b", [60.0, 31.0], algorithm="ssgd")
    runs = tmp_path / "runs"
    served: dict[str, str] = {}

    def ended(server: ReportServer) -> None:
        for path in ("/report.html", "/jobs.json"):
            answer = server.answer(path)
            assert answer is not None
            served[path] = answer[1]
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportServer, "serve_forever", ended)
    before = sorted(runs.rglob("*"))
    assert main([str(runs), "--watch"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(rf"http://127.0.0.1:\d+/ shows the runs below {runs}; Ctrl-C ends it\n", out)
    assert "asgd</strong> is best" in served["/report.html"]
    assert 'id="newer"' in served["/report.html"]
    assert len(json.loads(served["/jobs.json"])["jobs"]) == 2
    assert sorted(runs.rglob("*")) == before
