"""Mini-batch Nesterov's accelerated gradient, mNAG, with a learning rate for each layer.

    v_{t+1} = w_t − Σ_k γ_k U_k (1/B) Σ_{i∈I_t} ∇_k f_i(w_t)                               (eq. 4.6)
    w_{t+1} = v_{t+1} + β (v_{t+1} − v_t)

With one γ for all layers this is eq. 4.2. B is the batch size times the number of workers, which average their
gradients every step. U_k picks the weights of layer k; a layer is a module that owns weights.

Source: Huo, PhD thesis 2020, sections 4.2 and 4.3.1. The thesis gives neither v_0 nor β; here v_0 = w_0, and β=0.9 by
default. While γ_k stays the same this is `torch.optim.SGD` with Nesterov momentum, to rounding; when it changes torch
rescales the whole velocity with it, eq. 4.6 only what is added from then on.

Deviations: the thesis mentions no weight decay. Here `weight_decay · w` is added to the mean gradient, which is the
same as adding it to each worker's. Shares that differ by a sample count by their samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Layer, Message, Oracle, Step, in_range
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import MomentumOptions


@dataclass(kw_only=True, eq=False)
class LayerwiseNAG(MomentumOptions, Collective):
    """The step of eq. 4.6, for methods that say how γ_k is found; `momentum` is β, see `MomentumOptions`."""

    default_workers: ClassVar[int] = 1
    replicated: ClassVar[bool] = True

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers: Sequence[Layer] = ()

    def prepare(self, layers: Sequence[Layer]) -> None:
        """See `Collective.prepare`."""
        self.layers = tuple(layers)

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = w.clone()
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return the gradient."""
        return {"g": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        """Return this worker's mean gradient."""
        g = oracle.gradient(self.w, batch)
        return {"g": g if step.relative_size == 1.0 else g.mul_(step.relative_size)}

    def apply(self, combined: Message, step: Step) -> None:
        """Take the step of eq. 4.6; the combined gradient is overwritten."""
        g = combined["g"]
        # before weight decay enters g: LARS and CLARS look at the gradients' own norms
        factors = self.factors(combined)
        if self.weight_decay:
            g.add_(self.w, alpha=self.weight_decay)
        if factors is not None:
            # U_k γ_k/γ: each layer's piece by its own factor
            for piece, factor in zip(self.pieces(g), factors.unbind(), strict=True):
                piece.mul_(factor)
        self.update_blockwise(self.w, g, self.v, lr=step.lr)

    def update(self, w: Tensor, g: Tensor, v: Tensor, s: Tensor, *, lr: float) -> None:
        """Take one step of eq. 4.6 on a block; `s` is scratch."""
        # s = v_{t+1} = w_t − γ Σ_k (γ_k/γ) U_k g, the factors γ_k/γ being in g already
        torch.add(w, g, alpha=-lr, out=s)
        # w_{t+1} = v_{t+1} + β (v_{t+1} − v_t)
        torch.sub(s, v, out=v)
        torch.add(s, v, alpha=self.momentum, out=w)
        v.copy_(s)

    @abstractmethod
    def factors(self, combined: Message) -> Tensor | None:
        """Return γ_k relative to the schedule's learning rate, (layers,), or None if all are 1."""

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """Return a flat vector's pieces, one for each layer."""
        return list(flat.split([layer.high - layer.low for layer in self.layers]))

    def norms(self, flat: Tensor) -> Tensor:
        """Return the Euclidean norm of each layer's piece, (layers,)."""
        return torch.stack([torch.linalg.vector_norm(piece) for piece in self.pieces(flat)])

    def state(self) -> Message:
        """Return `w` and `v`."""
        return {"w": self.w, "v": self.v}


@dataclass(kw_only=True, eq=False)
class NAG(LayerwiseNAG):
    """mNAG; the other arguments are those of `MomentumOptions`.

    Args:
        layer_scale: γ_k as a multiple of the schedule's learning rate for the layers named, 1 for all others.

    Raises:
        ValueError: an argument is out of range.
    """

    layer_scale: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scale_of = _scales(self.layer_scale)

    def prepare(self, layers: Sequence[Layer]) -> None:
        """See `Collective.prepare`."""
        super().prepare(layers)
        names = [layer.name for layer in layers]
        for name, value in self.scale_of.items():
            if name not in names:
                raise ValueError(f"algorithm.layer_scale.{name}={value}: no such layer; allowed: {', '.join(names)}")

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        super().start(w, rank, workers, compiled)
        self.scales = w.new_tensor([self.scale_of.get(layer.name, 1.0) for layer in self.layers])

    def factors(self, combined: Message) -> Tensor | None:
        """See `LayerwiseNAG.factors`."""
        return self.scales if self.scale_of else None


def _scales(given: Mapping[str, float] | None) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"algorithm.layer_scale={given}: does not name layers; allowed: {{<layer>:<number>}}, or null")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"algorithm.layer_scale.{name}={value}: not a number; allowed: numbers from 0")
        in_range(f"layer_scale.{name}", value, 0)
    return {str(name): float(value) for name, value in given.items()}
