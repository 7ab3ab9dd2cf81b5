import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder.wandb_run import begin


def test_online_without_a_login_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Module:
        Settings = dict

        @staticmethod
        def init(**arguments: object) -> None:
            raise RuntimeError("No API key configured.\nUse `wandb login`")

    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "wandb", Module)
    with pytest.raises(InputError, match=r"^logger\.mode=online: wandb cannot begin \(No API key configured\.\)"):
        begin(tmp_path, mode="online")
    with pytest.raises(InputError, match=r"^logger\.mode=cloud: is not a mode"):
        begin(tmp_path, mode="cloud")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"^logger=wandb: cannot be imported"):
        begin(tmp_path, mode="offline")


CONTINUED = """
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from runner.run_folder.run_writer import RunWriter
cfg = {"seed": 3, "logger": {"kind": "wandb", "mode": "offline", "project": "p", "group": None}}
def row(epoch): return {"epoch": float(epoch), "test_error": 10.0 * epoch}
run = RunWriter(Path(sys.argv[1]), cfg, epochs=3, virtual=True)
run.start({})
run.log(row(1))
saved = run.state_dict()
run.log(row(2))
run.finish("interrupted")
run = RunWriter(Path(sys.argv[1]), cfg, epochs=3, virtual=True)
run.start({}, resumed=saved)
for epoch in (2, 3):
    run.log(row(epoch))
run.finish("completed")
print(saved["wandb_id"])
"""


def records(path: Path) -> Iterator[Any]:
    """What a file of an offline run holds: a header of 7 bytes, then records in blocks, as in a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue] (generated)

    content, place, data = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, place + 4)
        # The end of a block that has no room for a header is filled with zeros.
        if 32768 - place % 32768 < 7 or not kind:
            place += 32768 - place % 32768
            continue
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        # Whole in one piece (1), or the last piece (4).
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(data)
            data = b""
            yield record


def test_wandb_has_one_run_after_a_resume(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", CONTINUED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    assert path.stem == f"run-{done.stdout.split()[-1]}"
    logged = []
    for record in records(path):
        if record.HasField("history"):
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            logged.append((record.history.step.num, items.get("epoch")))
        if record.HasField("exit"):
            assert record.exit.exit_code == 0
    assert [epoch for _, epoch in logged] == [1.0, 2.0, 3.0]
    assert [step for step, _ in logged] == sorted({step for step, _ in logged})
