"""Ranks killed and stopped, checkpoints damaged, a full disk: one of each; `benchmarks/faults.py` makes hundreds."""

from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from faults import KINDS, Bench
from machine_faults import MACHINE_KINDS
from machines import missing

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc (Linux)")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("faults"), seed=1)
    yield made
    made.host.close()


TIMEOUT = 5
"""Seconds of `cluster.timeout` in the runs that have faults."""
QUICK = ("killed_server",)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS])
def test_a_fault_is_survived(bench: Bench, kind: str):
    if kind in MACHINE_KINDS and (reason := missing()):
        pytest.skip(reason)
    result: faults.Try = bench.make(kind)
    assert result.survived, result.why
    assert result.lost == 0
    if result.seconds is not None:
        # A peer that is stopped or cut off is told from a slow one by its silence, for most of cluster.timeout; one
        # that died at once, and so before that. benchmarks/faults.py measures how long it takes.
        assert result.seconds < (2 * TIMEOUT if "cut" in kind or "stuck" in kind else TIMEOUT)
