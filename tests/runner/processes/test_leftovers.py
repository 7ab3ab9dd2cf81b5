import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.processes import leftovers

MAKES = """
import sys, time
from pathlib import Path
from runner.processes import leftovers
leftovers.MEMORY = Path(sys.argv[1])
(leftovers.make_folder() / "store").touch()
leftovers.make_file(100)
print("made", flush=True)
time.sleep(60)
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folders for temporary folders and for memory."""
    found = (tmp_path / "temporary", tmp_path / "memory")
    for place in found:
        place.mkdir()
    monkeypatch.setattr(leftovers, "MEMORY", found[1])
    monkeypatch.setattr(leftovers.tempfile, "gettempdir", lambda: str(found[0]))
    monkeypatch.setattr(leftovers, "NEW_SECONDS", -1.0)
    return found


def test_next_run_removes_what_a_killed_one_left(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    environment = os.environ | {"TMPDIR": str(places[0]), "PYTHONPATH": str(Path(leftovers.__file__).parents[2])}
    command = [sys.executable, "-c", MAKES, str(places[1])]
    for place in places:
        (place / "dcrun-notes").touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"made\n"
        leftovers.remove_leftovers()
        assert [len(list(place.iterdir())) for place in places] == [2, 2], "their owner lives"
        other.send_signal(signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "NEW_SECONDS", 60.0)
        leftovers.remove_leftovers()
        assert [len(list(place.iterdir())) for place in places] == [2, 2], "an owner may be about to lock them"
    leftovers.remove_leftovers()
    assert [[path.name for path in place.iterdir()] for place in places] == [["dcrun-notes"], ["dcrun-notes"]]


def test_own_files_stay_until_they_are_discarded(places: tuple[Path, Path]):
    file = leftovers.make_file(5000)
    assert file.parent == places[1]
    assert file.stat().st_blocks * 512 >= 5000, "allocated, not only sized"
    leftovers.remove_leftovers()
    assert file.exists()
    leftovers.discard(file)
    assert not file.exists()
    assert file not in leftovers._owned


def test_missing_room_is_said_and_leaves_nothing(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int, offset: int, nbytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leftovers.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        leftovers.make_file(10)
    assert list(places[1].iterdir()) == []
