from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.base import Batch, Message, Step, message_bytes
from algorithms.ef_asgd import EFASGD, pack_signs, unpack_signs
from tests.algorithms.driven import N, course, start
from tests.trial import train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=16", "run.epochs=2")


class Together(EFASGD):
    """The method with its workers: it is pushed gradients."""

    def start(self, w: torch.Tensor, workers: int, compiled: bool = False) -> None:
        super().start(w, workers, compiled)
        self.halves = [self.worker(worker) for worker in range(workers)]
        self.kept = [{"e": torch.zeros_like(w)} for _ in range(workers)]
        for half, state in zip(self.halves, self.kept, strict=True):
            half.keep(state)
        self.pulled: list[Message] = [{}] * workers

    def pull(self, worker: int) -> Message:
        self.pulled[worker] = {name: tensor.clone() for name, tensor in super().pull(worker).items()}
        return self.pulled[worker]

    def push(self, worker: int, message: Message, step: Step) -> None:
        oracle: Any = SimpleNamespace(gradient=lambda w, batch: message["g"].clone())
        pushed = self.halves[worker].work(oracle, self.pulled[worker], Batch(0, 0, torch.arange(1)))
        super().push(worker, pushed, step)


class Paper:
    """EF-SGD in NumPy, an error for each worker; and ASGD on the same gradients."""

    def __init__(self, share: float | None, weight_decay: float = 0.0) -> None:
        self.w = start().astype(np.float64)
        self.asgd = self.w.copy()
        self.e = np.zeros((3, N))
        self.pulled = [(self.w, 0.0)] * 3
        self.share, self.weight_decay = share, weight_decay

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.pulled[worker] = (self.w, lr)
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        w, lr = self.pulled[worker]
        step = lr * (g + self.weight_decay * w)
        p = self.e[worker] + step
        if self.share is None:
            delta = np.abs(p).mean() * np.where(p >= 0, 1.0, -1.0)
        else:
            largest = np.argsort(-np.abs(p))[: int(np.ceil(self.share * N))]
            delta = np.zeros(N)
            delta[largest] = p[largest]
        self.e[worker] = p - delta
        self.w = self.w - delta
        self.asgd = self.asgd - step


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("share", [None, 0.01, 0.3])
def test_updates_match_numpy(share: float | None, weight_decay: float):
    paper = Paper(share, weight_decay)
    method = Together(share=share, weight_decay=weight_decay)
    course(method, paper=paper)
    errors = sum(state["e"] for state in method.kept)
    np.testing.assert_allclose(errors, paper.e.sum(0), rtol=1e-7, atol=1e-9)
    # What compression holds back is in the errors, all of it.
    np.testing.assert_allclose(method.w - errors, paper.asgd, rtol=1e-7, atol=1e-7)
    assert np.abs(paper.w - paper.asgd).max() > 0.1


@pytest.mark.parametrize("n", [1, 8, 13, 64])
def test_signs_survive_packing(n: int):
    p = torch.randn(n, generator=torch.Generator().manual_seed(n))
    p[0] = 0.0
    packed = pack_signs(p)
    assert (packed.dtype, packed.shape) == (torch.uint8, ((n + 7) // 8,))
    assert torch.equal(unpack_signs(packed, p), torch.where(p >= 0, 1.0, -1.0))


def test_messages_are_as_small_as_they_say():
    n = 80_000
    assert message_bytes(EFASGD().layout(n).push) == 4 + n // 8
    assert message_bytes(EFASGD(share=0.01).layout(n).push) == 800 * (4 + 4)
    assert message_bytes(EFASGD(share=1e-9).layout(n).push) == 8


def test_whole_share_of_one_worker_is_sgd(tmp_path: Path):
    """To rounding: the step is rounded before it is taken."""
    options = (*RUN, "algorithm.weight_decay=0.01", "schedule.lr=0.1")
    one = train("algorithm=ef_asgd", "algorithm.share=1", "cluster.workers=1", *options, folder=tmp_path)
    for name, value in train("algorithm=sgd", *options, folder=tmp_path).weights.items():
        torch.testing.assert_close(one.weights[name], value, rtol=1e-5, atol=1e-6)


def test_compressed_runs_send_less(tmp_path: Path):
    sent = {}
    for name, options in {"asgd": (), "ef_asgd": (), "a tenth": ("algorithm.share=0.1",)}.items():
        method = "asgd" if name == "asgd" else "ef_asgd"
        sent[name] = train(f"algorithm={method}", *RUN, *options, folder=tmp_path).notes.rows[-1]["bytes_sent"]
    # Weights go down in full: a half of all.
    assert 0.5 < sent["ef_asgd"] / sent["asgd"] < 0.52
    assert 0.59 < sent["a tenth"] / sent["asgd"] < 0.61


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, r"algorithm\.share=0: nothing would be pushed; allowed: 0 < share <= 1, or null"),
        ({"share": 1.5}, r"algorithm\.share=1\.5: out of range; allowed: 0 <= share <= 1"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0: out of range"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        EFASGD(**options)
