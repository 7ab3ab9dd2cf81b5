"""Measures what compute processes gain: a simulation of 8 workers with two of one thread, beside one of one and of two.

ResNet-20 on CIFAR-shaped images, batches of 128; run alone, on two idle cores. A side is a whole run with its run
folder; as in `summary.json`, samples/s leave evaluation, checkpoints and the start of processes out.

Modules of a pipeline share processes too: `ddg` in two modules, each in a process of its own. They have 45 and 55 % of
the multiply-adds, so two processes are 1.8 times one at best.

`dc_asgd_a` is compared with two peers as well: a bare PyTorch loop in channels last, which simulates nobody
(`training.py`), and the public simulator of SMEGA2 where a checkout of it is at hand (`peer_smega2.py`). A run in one
process is compared with one of the code from before there could be several where that is at hand (`other_checkout.py`).

What a run takes besides training it takes once: the first gradient of a process is twice as long as others. So a side
has some dozens of gradients, as short runs have.
"""

from __future__ import annotations

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import other_checkout
import peer_smega2
import torch
from sidebyside import Row, Side, in_turn, main, ratios, sized
from subject import build_components, run
from training import bare

BATCH, WORKERS = sized(128, 8), sized(8, 2)
STEPS = sized(48, 4)
"""Gradients that a side computes in a round."""
ROUNDS, SECONDS = sized(5, 1), sized(400.0, 1.0)
METHODS = ("dc_asgd_a", "ssgd", "local_sgd")
CIFAR = (
    f"model={sized('resnet20', 'resnet8')}",
    "dataset=synthetic",
    f"dataset.shape={sized('[3,32,32]', '[3,8,8]')}",
    f"dataset.train={STEPS * BATCH}",
    "dataset.test=10",
    f"run.batch_size={BATCH}",
    f"cluster.workers={WORKERS}",
    "schedule.lr=0.01",
    "run.epochs=1",
    "run.device=cpu",
)


def side(method: str, threads: int, processes: int, *more: str) -> Side:
    """Return a side: so many processes of so many threads; `more` are further overrides."""
    options = (f"run.threads={threads}", f"run.compute_processes={processes}", *more)
    given = build_components([f"algorithm={method}", *CIFAR, *options])

    def speed() -> float:
        # Of this process: building another side has set others.
        torch.set_num_threads(threads)
        return run(given)["samples_per_second"]

    return speed


def plain_loop(threads: int) -> Side:
    """Return the bare loop with so many threads."""
    loop = bare(build_components(["algorithm=sgd", *(key for key in CIFAR if not key.startswith("cluster"))]))

    def speed() -> float:
        torch.set_num_threads(threads)
        return loop()

    return speed


def peers() -> list[tuple[str, float, Side]]:
    """Return what `dc_asgd_a` is compared with besides itself: a name, a target, and the side."""
    found = [
        ("a bare loop, one thread", 1.75, plain_loop(1)),
        ("a bare loop, two threads", 1.1, plain_loop(2)),
    ]
    if (place := peer_smega2.checkout()) is not None:
        given = build_components(["algorithm=asgd", *CIFAR])
        found.append(("SMEGA2's simulator, one thread", 1.75, peer_smega2.side(place, given, threads=1)))
    return found


def compare(method: str) -> list[Row]:
    """Return a method with two processes, relative to one process with one thread, to one with two, and to peers."""
    others = [("one thread", 1.75, side(method, 1, 1)), ("two threads", 1.1, side(method, 2, 1))]
    if method == METHODS[0]:
        others += peers()
    two, *speeds = in_turn([side(method, 1, 2), *(other for _, _, other in others)], rounds=ROUNDS, seconds=SECONDS)
    best = f"{method}, two processes of one thread: {max(two):.0f} samples/s at best"
    return [
        Row(f"{method}, two processes / {name}", target, ratios(two, speed), note=f"{best}, {name} {max(speed):.0f}")
        for (name, target, _), speed in zip(others, speeds, strict=True)
    ]


def overhead() -> list[Row]:
    """Return what one process costs since there can be several; nothing without the code from before."""
    place = other_checkout.checkout()
    if place is None:
        return []
    # Short ones, many times: the difference is smaller than what the machine's speed changes by in a minute.
    given = (f"algorithm={METHODS[0]}", *CIFAR, f"dataset.train={max(STEPS // 3, WORKERS) * BATCH}", "run.threads=1")
    sides = [other_checkout.side(where, given) for where in (other_checkout.HERE, place)]
    now, before = in_turn(sides, rounds=3 * ROUNDS, seconds=SECONDS, least=sized(9, 1))
    what = f"{METHODS[0]}, one process / before there could be several"
    return [Row(what, 0.98, ratios(now, before), note=f"{max(now):.0f} samples/s at best, {max(before):.0f} before")]


def compare_modules() -> Row:
    """Return a pipeline of two modules in two processes, relative to one process; all have one thread."""
    cut = "cluster.workers=2"
    two, one = in_turn([side("ddg", 1, 2, cut), side("ddg", 1, 1, cut)], rounds=ROUNDS, seconds=SECONDS)
    note = f"two processes {max(two):.0f} samples/s at best, one {max(one):.0f}"
    return Row("ddg in two modules, two processes / one", 1.5, ratios(two, one), note=note)


def measure() -> list[Row]:
    """Return the rows of all methods."""
    return [*(row for method in METHODS for row in compare(method)), compare_modules(), *overhead()]


if __name__ == "__main__":
    main(measure)
