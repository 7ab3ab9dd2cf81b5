"""What a run is warned of before it begins: settings that are allowed, and do not do what one would expect of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from omegaconf import DictConfig

from runner.config.schema import END_WITH_RUN, ScheduleConfig


def warnings(cfg: DictConfig, bound: float | None, device: torch.device) -> Iterator[str]:
    """Yield a line for each setting that somebody would wonder about later.

    Args:
        cfg: the composed configuration.
        bound: the largest rate with which the problem converges; None if nobody knows.
        device: on which the network is computed.
    """
    if bound is not None and cfg.schedule.lr >= bound:
        yield f"schedule.lr={cfg.schedule.lr:g}: this problem needs a rate below {bound:.3g}, or it diverges"
    yield from _of_shape(cfg.schedule, cfg.run.epochs)
    yield from _of_warm_up(cfg.schedule, cfg.run.epochs)
    if cfg.run.precision == "bf16" and device.type == "cpu" and not multiplies_bf16():
        yield (
            "run.precision=bf16: this CPU has no bf16 arithmetic (AVX-512 or AMX), so it is emulated and several times "
            "slower than fp32; run.precision=fp32 is faster here"
        )


def _of_shape(schedule: DictConfig, epochs: float) -> Iterator[str]:
    """Yield what a schedule is asked for without any effect."""
    kind, milestones = schedule.kind, list(schedule.milestones)
    if beyond := [f"{epoch:g}" for epoch in milestones if epoch >= epochs]:
        what = f"beyond run.epochs={epochs:g}, so the rate does not fall there"
        yield f"schedule.milestones=[{','.join(beyond)}]: {what}"
    if kind == "multistep" and not milestones:
        yield "schedule.milestones=[]: there are none, so the rate never falls"
    if kind == "multistep" and milestones and schedule.gamma == 1:
        yield "schedule.gamma=1: leaves the rate at its milestones as it is"
    if kind != "multistep" and schedule.gamma != ScheduleConfig.gamma:
        yield f"schedule.gamma={schedule.gamma:g}: does nothing, as schedule.kind={kind} has no milestones"
    if kind == "inverse" and epochs <= 1 and schedule.power:
        yield f"run.epochs={epochs:g}: the rate of schedule.kind=inverse falls after each effective pass, so never here"
    if kind in END_WITH_RUN and schedule.lr_end == schedule.lr and schedule.lr_start in (None, schedule.lr):
        yield f"schedule.lr_end={schedule.lr_end:g}: is schedule.lr, so the rate never changes"


def _of_warm_up(schedule: DictConfig, epochs: float) -> Iterator[str]:
    """Yield what is wrong with a warm-up."""
    length = schedule.warmup_epochs
    # Those that end with the run are refused: nothing of them would be left.
    if length and length >= epochs and schedule.kind not in END_WITH_RUN:
        what = f"the run ends with it (run.epochs={epochs:g}), and never comes to schedule.lr={schedule.lr:g}"
        yield f"schedule.warmup_epochs={length:g}: {what}"
    if not length and schedule.warmup_from != ScheduleConfig.warmup_from:
        yield f"schedule.warmup_from={schedule.warmup_from}: does nothing without schedule.warmup_epochs"


def multiplies_bf16() -> bool:
    """Return whether this CPU computes in bf16, rather than convert every number to fp32 and back.

    It is what PyTorch itself asks before it takes the bf16 kernels of oneDNN: convolutions and products of matrices
    are nearly all of a network's time.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except AttributeError:
        # A PyTorch that does not tell: no warning is better than a wrong one.
        return True
