import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from runner.run_folder import weights
from tests.disk import limited


def test_file_has_the_users_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        weights.write(tmp_path, {"w": np.arange(3.0)})
    finally:
        os.umask(before)
    path = tmp_path / weights.FILE
    assert path.stat().st_mode & 0o777 == 0o640
    assert load_file(path)["w"].tolist() == [0.0, 1.0, 2.0]


def test_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path):
    weights.write(tmp_path, {"w": np.arange(3.0)})
    before = (tmp_path / weights.FILE).read_bytes()
    with limited(2000), pytest.raises(OSError) as raised:
        weights.write(tmp_path, {"w": np.arange(3000.0)})
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / weights.FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [weights.FILE]


def test_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order, real = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), real(*paths)))
    weights.write(tmp_path, {"w": np.arange(3.0)})
    assert order == [(tmp_path / weights.FILE).stat().st_size, "replace"]
