"""How tensors get from where a process computes to the memory that processes share, and back.

On CPUs nothing travels: every process computes on the shared memory itself. On GPUs each process has tensors of its own
on its device, and the shared memory is a mailbox of page-locked CPU memory between them. Copies to and from such memory
are queued on the device's stream like kernels, so the host waits once, before it tells another process of them.

Why not from GPU to GPU, through CUDA's handles for other processes (IPC)? The copies would be faster, and the host
would not wait. But such a handle is refused in many containers, by MIG and under WSL; GPUs that are no peers copy
through the CPU's memory all the same; and the memory of a process that is killed must not be mapped by another one,
while a compute process may be killed at any time. Here all that processes share is memory that outlives each of them.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Protocol

import torch

from algorithms.base import Message
from runner.simulated.arena import Arena, NotShareable

log = logging.getLogger("dcrun")

PORTABLE = 1
"""The flag `cudaHostRegisterPortable`, as PyTorch itself registers memory: page-locked for every GPU of a process."""


class Transfers(Protocol):
    """Brings tensors to the shared memory and back; one object a process.

    Attributes:
        in_place: whether the process computes on the shared memory itself, so that nothing has to be brought.
    """

    in_place: bool

    def attach(self, arena: Arena) -> None:
        """Prepare a shared memory for transfers; called once, before any."""
        ...

    def share(self, own: Message, shared: Message) -> None:
        """Begin to copy tensors to those of the same names in the shared memory, which may have more."""
        ...

    def fetch(self, shared: Message) -> Message:
        """Return what the shared memory holds, on this process' device; where in place, the tensors themselves."""
        ...

    def fetch_into(self, shared: Message, own: Message) -> None:
        """Begin to copy tensors of the shared memory to this process' own ones."""
        ...

    def finish(self) -> None:
        """Return when all that was begun is done: others may be told, and what was fetched be overwritten."""
        ...

    def close(self) -> None:
        """Make no more transfers."""
        ...


class InPlace:
    """The transfers of processes that compute on the shared memory itself: results are put there, and nothing else."""

    in_place = True

    def attach(self, arena: Arena) -> None:
        """See `Transfers.attach`."""

    def share(self, own: Message, shared: Message) -> None:
        """See `Transfers.share`; it is done at once."""
        for name, tensor in own.items():
            # A gradient may have been collected where it is to be.
            if tensor.data_ptr() != shared[name].data_ptr():
                shared[name].copy_(tensor)

    def fetch(self, shared: Message) -> Message:
        """See `Transfers.fetch`."""
        return shared

    def fetch_into(self, shared: Message, own: Message) -> None:
        """See `Transfers.fetch_into`: they are the same tensors."""

    def finish(self) -> None:
        """See `Transfers.finish`."""

    def close(self) -> None:
        """See `Transfers.close`."""


class PinnedTransfers:
    """The transfers of a process that computes on a GPU.

    Every copy is queued on the current stream: what is computed before it is in it, and what is computed after it, on
    this device, sees it. Only the host, and so other processes, must wait.

    Args:
        device: the GPU.
    """

    in_place = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._done = torch.cuda.Event()
        self._arena: Arena | None = None

    def attach(self, arena: Arena) -> None:
        """See `Transfers.attach`: page-locks the memory for this process.

        Raises:
            NotShareable: the system does not lock so much.
        """
        # In every process: a lock is one process' own. It is taken in place, since a tensor that PyTorch allocates
        # page-locked could not be shared.
        if error := int(_cudart().cudaHostRegister(arena.address, arena.nbytes, PORTABLE)):
            # Not without a lock either: each copy would make the host wait.
            self._take_error()
            what = f"{arena.nbytes / 2**20:.0f} MiB of shared memory cannot be page-locked (CUDA error {error})"
            raise NotShareable.because(what)
        self._arena = arena

    def _take_error(self) -> None:
        """Let CUDA forget an error that was handled; it would tell it to the next kernel that is launched."""
        with suppress(RuntimeError):
            torch.ones(1, device=self.device)

    def share(self, own: Message, shared: Message) -> None:
        """See `Transfers.share`."""
        for name, tensor in own.items():
            shared[name].copy_(tensor, non_blocking=True)

    def fetch(self, shared: Message) -> Message:
        """See `Transfers.fetch`."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in shared.items()}

    def fetch_into(self, shared: Message, own: Message) -> None:
        """See `Transfers.fetch_into`."""
        for name, tensor in shared.items():
            own[name].copy_(tensor, non_blocking=True)

    def finish(self) -> None:
        """See `Transfers.finish`."""
        self._done.record(torch.cuda.current_stream(self.device))
        self._done.synchronize()

    def close(self) -> None:
        """See `Transfers.close`: unlocks the memory, which must be done before it goes."""
        if self._arena is None:
            return
        # Of what was begun before an error nobody has waited for the end yet.
        self.finish()
        arena, self._arena = self._arena, None
        if error := int(_cudart().cudaHostUnregister(arena.address)):
            # No reason to lose a run that has come to its end; the lock goes with the process.
            log.warning("the memory of the compute processes could not be unlocked (CUDA error %d)", error)
            self._take_error()


def _cudart() -> Any:
    """Return the functions of CUDA's runtime, of which PyTorch's types say that there may be none."""
    return torch.cuda.cudart()


def transfers_on(device: torch.device) -> Transfers:
    """Return the transfers of a process that computes on a device."""
    return PinnedTransfers(device) if device.type == "cuda" else InPlace()
