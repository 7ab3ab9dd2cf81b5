import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder.tensorboard_log import TensorBoardLog, numbers

Scalar = tuple[str, float, int]


def row(epoch: int) -> dict[str, Any]:
    return {"epoch": float(epoch), "samples": 100 * epoch, "test_error": 10.0 * epoch, "lr": None}


class Writer:
    """What a SummaryWriter would write, as text in its own file."""

    def __init__(self, logdir: str) -> None:
        folder = Path(logdir)
        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{len(list(folder.iterdir()))}"
        self.path.touch()

    def add_text(self, tag: str, text: str) -> None:
        self.path.write_text(f"{self.path.read_text()}{tag} {text!r}\n")

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.path.write_text(f"{self.path.read_text()}{tag} {value} {global_step}\n")

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_each_row_is_in_the_events_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Module:
        SummaryWriter = Writer

    monkeypatch.setitem(sys.modules, "tensorboardX", Module)
    first = TensorBoardLog(tmp_path, {"seed": 3})
    assert not list(tmp_path.iterdir()), "a logger that another one refuses leaves nothing"
    first.take_over([])
    first.log(row(1))
    first.log(row(2))
    again = TensorBoardLog(tmp_path, {"seed": 3})
    again.take_over([row(1)])
    again.log(row(2))
    again.finish({"status": "completed"})
    [path] = (tmp_path / "tensorboard").iterdir()
    config, *lines, summary = path.read_text().splitlines()
    assert "seed: 3" in config
    assert "completed" in summary
    assert [line for line in lines if line.startswith("test_error")] == ["test_error 10.0 100", "test_error 20.0 200"]
    assert not [line for line in lines if line.startswith("lr")]


def test_numbers_leave_out_what_cannot_be_drawn():
    assert numbers({"a": 1, "b": 2.5, "c": None, "d": True, "e": "x"}) == {"a": 1, "b": 2.5}


def test_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"^logger=tensorboard: tensorboardX .*pip install 'dcrun\[tensorboard\]'"):
        TensorBoardLog(tmp_path, {})


def scalars(path: Path) -> Iterator[Scalar]:
    """The scalars of an event file: records with their length and two checksums around."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports]

    content, place = path.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        event = Event.FromString(content[place + 12 : place + 12 + length])
        place += 16 + length
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, value.simple_value, event.step


def test_real_library_writes_an_event_file(tmp_path: Path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    logger = TensorBoardLog(tmp_path, {"seed": 3})
    logger.take_over([row(1)])
    logger.log(row(2))
    logger.finish({"status": "completed"})
    [path] = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    found = [scalar for scalar in scalars(path) if scalar[0] == "test_error"]
    assert found == [("test_error", 10.0, 100), ("test_error", 20.0, 200)]
