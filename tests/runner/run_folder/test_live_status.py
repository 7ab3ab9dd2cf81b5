import io
import os
from collections.abc import Iterator

import pytest
from rich.console import Console

from runner.run_folder import live_status
from runner.run_folder.live_status import VARIABLE, LiveStatus
from runner.run_folder.progress import Progress


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStatus]:
    """What a sweep gave to this process, which is a job of it."""
    monkeypatch.setattr(live_status, "_held", None)
    given = LiveStatus()
    monkeypatch.setenv(VARIABLE, str(os.dup(given.end)))
    yield given
    if live_status._held is not None:
        os.close(live_status._held)
    given.close()


def test_display_tells_the_sweep(status: LiveStatus):
    """Of a job that has no terminal, as with others beside it."""
    live_status.hold()
    assert VARIABLE not in os.environ, "the processes of the job are not asked"
    assert status.read() is None
    shown = Progress(epochs=4, virtual=True, console=Console(file=io.StringIO()), live=False)
    shown.start()
    shown.update(epoch=0.25, samples=100)
    first = status.read()
    assert first is not None
    assert first[:2] == (0.25, 100.0)
    shown.update(epoch=0.5, samples=200)
    assert status.read() == first, "not with every update"


def test_without_a_sweep_nothing_is_told(status: LiveStatus, monkeypatch: pytest.MonkeyPatch):
    os.close(int(os.environ[VARIABLE]))
    monkeypatch.delenv(VARIABLE)
    live_status.hold()
    live_status.write(0.25, 100)
    assert not live_status.is_held()
    assert status.read() is None
