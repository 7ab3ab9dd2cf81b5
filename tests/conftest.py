"""What tests of several parts share: real data where there are some, and a cache folder of their own."""

import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.config.process_settings import set_process

set_process()  # before any test loads torch
# Whoever starts the fork server first decides what it has imported. If that was a pool of decoders, every rank of every
# later test would import torch by itself.
multiprocessing.set_forkserver_preload(["runner.train.ranks"])
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the tests, and the processes they start, out of the user's cache of decoded datasets."""
    folder = tmp_path_factory.mktemp("dcrun-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCRUN_CACHE", str(folder))
        patch.delenv("DCRUN_DATA", raising=False)
        yield folder


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Takes back what a command line that runs in this process sets of logging: its streams end with its test."""
    root, dcrun = logging.getLogger(), logging.getLogger("dcrun")
    handlers, levels = [*root.handlers], (root.level, dcrun.level)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    for logger, level in zip((root, dcrun), levels, strict=True):
        logger.setLevel(level)
        logger.disabled = False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `MNIST/raw` and `cifar10-jpeg.tar.gz`: DCRUN_TEST_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("DCRUN_TEST_DATA") or REPOSITORY.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set DCRUN_TEST_DATA to a folder with MNIST/raw)")
    return folder
