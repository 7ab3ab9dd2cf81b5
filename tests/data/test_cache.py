import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data.cache import Tensors, cache_folders, cached, check_cache, source_state


class Builder:
    """Counts how often the source is decoded."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensors:
        self.calls += 1
        return {"inputs": torch.arange(12, dtype=torch.uint8).view(3, 4), "targets": torch.arange(3)}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCRUN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "source.tar.gz"
    path.write_bytes(b"0" * 200_000)
    return path


def cache_file(source: Path) -> Path:
    return next((source.parent / "cache").glob("*.safetensors"))


def test_decodes_once(source: Path):
    build = Builder()
    first = cached(source, {}, build)
    second = cached(source, {}, build)
    assert build.calls == 1
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not list((source.parent / "cache").glob(".*safetensors*.*[0-9]"))


def test_other_options_are_another_cache(source: Path):
    build = Builder()
    cached(source, {"size": 8}, build)
    cached(source, {"size": 9}, build)
    cached(source, {"size": 8}, build)
    assert build.calls == 2


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_damage_is_found_and_rebuilt(source: Path, place: int, caplog: pytest.LogCaptureFixture):
    build = Builder()
    good = cached(source, {}, build)
    content = bytearray(cache_file(source).read_bytes())
    content[place] ^= 1
    cache_file(source).write_bytes(content)
    with caplog.at_level(logging.INFO):
        again = cached(source, {}, build)
    assert build.calls == 2
    assert "rebuilding" in caplog.text
    assert torch.equal(good["inputs"], again["inputs"])
    cached(source, {}, build)
    assert build.calls == 2


@pytest.mark.parametrize("keep", [0, 5, 300])
def test_truncation_is_found(source: Path, keep: int):
    build = Builder()
    cached(source, {}, build)
    with cache_file(source).open("r+b") as file:
        file.truncate(keep)
    cached(source, {}, build)
    assert build.calls == 2


def test_foreign_file_is_replaced(source: Path):
    build = Builder()
    cached(source, {}, build)
    save_file({"inputs": torch.zeros(3, 4)}, cache_file(source))
    assert torch.equal(cached(source, {}, build)["targets"], torch.arange(3))
    assert build.calls == 2


def test_changed_source_is_decoded_again(source: Path):
    build = Builder()
    cached(source, {}, build)
    times = source.stat().st_mtime_ns
    source.write_bytes(b"0" * 199_999 + b"1")  # same size; the end differs
    os.utime(source, ns=(times, times))
    cached(source, {}, build)
    assert build.calls == 2
    os.utime(source, ns=(times, times + 1))
    cached(source, {}, build)
    assert build.calls == 3
    assert len(list((source.parent / "cache").glob("*.safetensors"))) == 1


def test_state_of_a_folder_follows_its_files(tmp_path: Path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"1")
    before = source_state(tmp_path)
    (tmp_path / ".dcrun-cache").mkdir()
    assert source_state(tmp_path) == before
    (tmp_path / "train" / "cat" / "2.png").write_bytes(b"1")
    assert source_state(tmp_path) != before


def test_hidden_files_are_no_part_of_the_state(tmp_path: Path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").write_bytes(b"a")
    before = source_state(tmp_path)
    (tmp_path / "train" / ".DS_Store").write_bytes(b"b")
    (tmp_path / ".dcrun-cache").mkdir()
    (tmp_path / ".dcrun-cache" / "train.safetensors").write_bytes(b"c")
    assert source_state(tmp_path) == before


def test_cache_is_readable_by_all(source: Path):
    cached(source, {}, Builder())
    assert cache_file(source).stat().st_mode & 0o777 == 0o644


def test_failing_build_leaves_nothing(source: Path):
    def fail() -> Tensors:
        raise ValueError("dataset.root=x: broken")

    with pytest.raises(ValueError, match="broken"):
        cached(source, {}, fail)
    assert not list((source.parent / "cache").glob("*.safetensors"))


def test_cache_folders_in_order_of_preference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "x.tar"
    file.touch()
    monkeypatch.setenv("DCRUN_CACHE", "/chosen")
    assert cache_folders(file) == [Path("/chosen")]
    monkeypatch.delenv("DCRUN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/caches")
    assert cache_folders(file) == [tmp_path / ".dcrun-cache", Path("/home/caches/dcrun")]
    assert cache_folders(tmp_path) == [tmp_path / ".dcrun-cache", Path("/home/caches/dcrun")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    tmp_path.chmod(0o555)
    try:
        assert cache_folders(file) == [Path("/home/me/.cache/dcrun")]
    finally:
        tmp_path.chmod(0o755)


def test_works_without_any_writable_folder(source: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    (source.parent / "file").touch()
    monkeypatch.setenv("DCRUN_CACHE", str(source.parent / "file" / "below"))
    build = Builder()
    cached(source, {}, build)
    assert torch.equal(cached(source, {}, build)["targets"], torch.arange(3))
    assert build.calls == 2
    assert "no writable folder" in caplog.text


def test_only_one_builds_at_a_time(source: Path):
    """Threads stand for processes: the lock belongs to the opened file, of which each has its own."""
    build, together = Builder(), threading.Barrier(3)

    def slowly() -> Tensors:
        time.sleep(0.3)
        return build()

    def open_it() -> Tensors:
        together.wait(30)
        return cached(source, {}, slowly)

    with ThreadPoolExecutor(3) as pool:
        results = [future.result(60) for future in [pool.submit(open_it) for _ in range(3)]]
    assert build.calls == 1
    assert all(torch.equal(result["targets"], torch.arange(3)) for result in results)


def test_chosen_folder_wins_over_the_environment(source: Path, tmp_path: Path):
    build, chosen = Builder(), check_cache(str(tmp_path / "mine" / "deep"))
    cached(source, {}, build, chosen)
    assert [path.suffix for path in (tmp_path / "mine" / "deep").glob("*")].count(".safetensors") == 1
    assert not (tmp_path / "cache").exists()
    cached(source, {}, build, chosen)
    assert build.calls == 1
    cached(source, {}, build)
    assert build.calls == 2


def test_chosen_folder_that_cannot_be_written_is_refused(source: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"^dataset.cache=.*/below: cannot be written; allowed: a writable folder, or null$"
    ):
        cached(source, {}, Builder(), check_cache(str(tmp_path / "file" / "below")))
    for wrong in (tmp_path / "file", 3, ""):
        with pytest.raises(
            ValueError, match=rf"^dataset.cache={wrong}: is .*; allowed: a folder, made if missing, or null$"
        ):
            check_cache(wrong if isinstance(wrong, int) else str(wrong))


def test_home_of_nobody_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"^dataset.cache=~nobody-here/c: the home folder behind ~ is not known; allowed"
    ):
        check_cache("~nobody-here/c")
    monkeypatch.setenv("DCRUN_CACHE", "~nobody-here/c")
    with pytest.raises(ValueError, match=r"^DCRUN_CACHE=~nobody-here/c: the home folder"):
        cache_folders(tmp_path)


def test_user_without_home_has_no_cache_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    for name in ("DCRUN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folders(tmp_path) == [tmp_path / ".dcrun-cache"]
    tmp_path.chmod(0o555)
    try:
        assert cache_folders(tmp_path) == []
    finally:
        tmp_path.chmod(0o755)


def test_links_in_a_circle_have_a_state(tmp_path: Path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "round.png").symlink_to("round.png")
    before = source_state(tmp_path)
    (tmp_path / "train" / "up").symlink_to(tmp_path)
    assert source_state(tmp_path) == before
    (tmp_path / "train" / "a.png").touch()
    assert source_state(tmp_path) != before
