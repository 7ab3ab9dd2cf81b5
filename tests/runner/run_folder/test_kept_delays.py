"""The copy of the delays in a run folder: which runs have the same ones, and which copy is refused."""

import json
from pathlib import Path

import pytest

from runner.config import delays
from runner.config.errors import InputError
from runner.run_folder import kept_delays
from tests.trial import compose


def test_copy_takes_the_place_of_the_file(tmp_path: Path):
    place = tmp_path / "mine.csv"
    place.write_text("1\n2\n")
    cfg = compose(f"cluster.compute.delays={place}")
    (tmp_path / "run").mkdir()
    kept_delays.keep(cfg, tmp_path / "run", 1)
    assert cfg.cluster.compute.delays == str(tmp_path / "run" / "delays.csv")
    place.write_text("9\n")
    kept_delays.keep(cfg, tmp_path / "run", 1)
    assert delays.read(cfg.cluster.compute.delays).columns == ((1.0, 2.0),)


def test_same_delays_are_told_from_changed_ones(tmp_path: Path):
    place = tmp_path / "mine.csv"
    place.write_text("1\n")
    (tmp_path / "delays.csv").write_text("1\n")
    assert kept_delays.same(str(place), tmp_path)
    assert kept_delays.same(None, tmp_path)
    place.write_text("22\n")
    assert not kept_delays.same(str(place), tmp_path)
    place.write_text("nothing\n")
    assert not kept_delays.same(str(place), tmp_path)
    place.unlink()
    assert kept_delays.same(str(place), tmp_path)


def test_changed_copy_is_refused(tmp_path: Path):
    copy = tmp_path / "delays.csv"
    copy.write_text("1\n")
    (tmp_path / "summary.json").write_text(json.dumps({"delays_sha256": delays.read(str(copy)).sha256}))
    assert kept_delays.kept(tmp_path) == str(copy)
    copy.write_text("1.5\n")
    with pytest.raises(
        InputError, match=r"run\.resume=.*delays\.csv is not what the run began with; allowed: a run folder"
    ):
        kept_delays.kept(tmp_path)
    copy.unlink()
    with pytest.raises(InputError, match=r"delays\.csv is missing; allowed"):
        kept_delays.kept(tmp_path)
