from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from runner.processes import async_collective
from runner.processes.async_collective import AsyncCollective
from runner.processes.rendezvous import file_rendezvous, join_group


class Pretender(torch.overrides.TorchFunctionMode):
    """Answers `tensor.is_cuda` with yes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        return func(*args, **(kwargs or {}))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gloo group of this process alone."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    join_group(file_rendezvous(str(tmp_path / "store"), 0, 1, 6.0), torch.device("cpu"))
    yield
    dist.destroy_process_group()


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of all memory that is handed to the process group."""
    seen: list[int] = []
    for name in ("all_reduce", "all_gather_into_tensor"):
        original = getattr(dist, name)

        def watched(*tensors: Tensor, original: Any = original, **options: Any) -> Any:
            seen.extend(tensor.data_ptr() for tensor in tensors)
            return original(*tensors, **options)

        monkeypatch.setattr(dist, name, watched)
    return seen


@pytest.mark.parametrize("shape", [(5,), (0,), (2, 3), ()])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("combine", ["mean", "gather"])
def test_gloo_carries_gpu_vectors_page_locked(
    alone: None,
    carried: list[int],
    monkeypatch: pytest.MonkeyPatch,
    combine: Literal["mean", "gather"],
    background: bool,
    shape: tuple[int, ...],
):
    locked: list[Tensor] = []

    def ordinary(shape: torch.Size, dtype: torch.dtype) -> Tensor:
        locked.append(torch.empty(shape, dtype=dtype))
        return locked[-1]

    monkeypatch.setattr(async_collective, "page_locked", ordinary)
    vector = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for pretended in (False, True):
        del carried[:]
        given = vector.clone()
        if pretended:
            with Pretender():
                pending = AsyncCollective(combine, 1, background=background).start(given)
            assert pending.device == given.device
            assert set(carried) == {tensor.data_ptr() for tensor in locked}
        else:
            pending = AsyncCollective(combine, 1, background=background).start(given)
            assert (pending.device, locked) == (None, [])
            assert given.data_ptr() in carried
        results.append(pending.wait())
        assert pending.wait() is results[-1]
        assert pending.device is None
    assert torch.equal(results[0], vector[None])
    assert torch.equal(results[1], results[0])
    assert len(locked) == (2 if combine == "gather" else 1)


def test_nccl_copies_no_gpu_vector(alone: None, carried: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(async_collective, "comm_device", lambda device: torch.device("cuda"))
    vector = torch.ones(3)
    with Pretender():
        pending = AsyncCollective("mean", 1).start(vector)
    assert pending.wait().data_ptr() == vector.data_ptr() == carried[0]
