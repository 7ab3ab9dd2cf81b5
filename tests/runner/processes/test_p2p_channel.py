"""Messages between two neighbours, each on a process of its own."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from runner.processes.p2p_channel import P2PChannel, gather_bytes
from runner.processes.rendezvous import file_rendezvous, join_group

SHAPE = (3, 4, 5)


def values() -> torch.Tensor:
    return torch.arange(2 * 60, dtype=torch.float32).view(2, *SHAPE)


def _play(rank: int, path: str, found: Any) -> None:
    join_group(file_rendezvous(path, rank, 2, 10.0), torch.device("cpu"))
    channel = P2PChannel(1 - rank, SHAPE, torch.device("cpu"), lambda: 7.0)
    last = values().contiguous(memory_format=torch.channels_last)
    if rank:
        for message, flag in ((values(), False), (last, True), (None, True), (values()[:1], False)):
            channel.send(message, flag)
            if message is not None:
                message.zero_()
        channel.finish()
    else:
        received = [channel.receive() for _ in range(4)]
        plain, ordered, nothing, short = received
        assert ordered.values is not None and plain.values is not None
        found.put([r.flag for r in received])
        found.put([r.sent for r in received])
        found.put(torch.equal(plain.values, values()) and plain.values.is_contiguous())
        found.put(torch.equal(ordered.values, values()) and ordered.values.stride() == last.stride())
        found.put(nothing.values is None)
        found.put(short.values is not None and tuple(short.values.shape) == (1, *SHAPE))
    states = gather_bytes(bytes([rank] * (3 + rank)), 2)
    if not rank:
        found.put(states == [bytes(3), bytes([1] * 4)])
    else:
        assert states == []
    dist.destroy_process_group()


def test_received_tensor_keeps_values_and_layout(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runner.train.ranks"])
    found = context.Queue()
    players = [context.Process(target=_play, args=(rank, str(tmp_path / "store"), found)) for rank in range(2)]
    for player in players:
        player.start()
    flags, sent, *right = [found.get(timeout=60) for _ in range(7)]
    for player in players:
        player.join(60)
    assert [player.exitcode for player in players] == [0, 0]
    assert flags == [False, True, True, False]
    assert sent == [7.0] * 4
    assert right == [True] * 5
