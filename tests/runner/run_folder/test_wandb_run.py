import sys
from pathlib import Path

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
