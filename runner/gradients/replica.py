"""A network whose weights are one flat vector.

A replica's parameters are views of one contiguous buffer, their gradients of another, so that a pull, a push, a
checkpoint or an all-reduce is one tensor, and an update rule is element-wise code on vectors. Batch-norm layers write
the statistics of the last training batch (mean and unbiased variance) into a third flat vector; the running averages
belong to whoever owns the weights, see `running_average`.

With `channels_last`, a convolution's weight is a permuted view of its piece of the buffer. `module.to(...)` after
flattening would silently break the aliasing; `check_aliasing` finds that out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.base import Layer

BATCH_NORM_MOMENTUM = 0.1
"""Weight of a new batch in the running statistics, PyTorch's default."""


class Replica:
    """Flatten `module` in place.

    Args:
        module: a network with float32 parameters, already on its device.
        channels_last: store convolution weights in channels-last order.

    Attributes:
        module: the network.
        weights: flat parameters, (n,).
        gradient: flat gradients, (n,).
        statistics: flat batch-norm statistics of the last training batch, means and unbiased variances, (k,).
        layers: the modules that own weights, in the order of their pieces, which are contiguous and cover the vector.
    """

    def __init__(self, module: nn.Module, *, channels_last: bool = False) -> None:
        self.module = module
        self.channels_last = channels_last
        parameters = list(module.parameters())
        device = parameters[0].device
        n = sum(p.numel() for p in parameters)
        self.layers = _layers(module)
        # Two buffers that never move from here on, but for `collect_in`: graphs and tapes know them by their addresses.
        self.weights = torch.empty(n, device=device)
        # Of the system's own zeros, which take no memory until something is written.
        self.gradient = torch.zeros(n, device=device)
        for p, low in zip(parameters, _offsets(parameters), strict=True):
            with torch.no_grad():
                view = self._view(self.weights, low, p)
                view.copy_(p)
                # The parameter stays the same object: shared weights, hooks and `state_dict` keep knowing it.
                p.data = view
                # A gradient that is there is added to in place, so it stays in the flat vector.
                p.grad = self._view(self.gradient, low, p)
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        # Layers that do not track statistics normalise by the batch in evaluations too, and have nothing to store.
        buffers = [(m, name) for m in norms for name in ("running_mean", "running_var") if m.track_running_stats]
        self._trained = [p for p in parameters if p.requires_grad]
        # By address of a flat vector, the views of it that are the parameters' gradients.
        self._views = dict[int, list[Tensor]]()
        self.statistics = torch.empty(sum(getattr(m, name).numel() for m, name in buffers), device=device)
        low = 0
        for m, name in buffers:
            buffer = getattr(m, name)
            piece = self.statistics[low : low + buffer.numel()]
            piece.copy_(buffer)
            setattr(m, name, piece)
            low += buffer.numel()
        # Means 0 and variances 1, unless the network came with weights that were trained before.
        self._initial_statistics = self.statistics.clone()
        # So a batch's own statistics can be read after it, and pushed; the average is made by whoever owns the weights.
        for m in norms:
            m.momentum = 1.0  # running statistics = those of the last batch

    def _view(self, flat: Tensor, low: int, p: Tensor) -> Tensor:
        piece = flat[low : low + p.numel()]
        if self.channels_last and p.dim() == 4:
            out, channels, height, width = p.shape
            # In memory the channels come last, in shape they stay second, which is what the layers expect.
            return piece.view(out, height, width, channels).permute(0, 3, 1, 2)
        return piece.view(p.shape)

    def collect_in(self, flat: Tensor) -> None:
        """Have all gradients from here on in the flat vector (n,) instead: one of a few that outlive the replica.

        So a gradient that is to end up there needs no memory elsewhere, and no copy. Not while steps are captured.
        """
        if flat.data_ptr() == self.gradient.data_ptr():
            return
        parameters = list(self.module.parameters())
        if flat.data_ptr() not in self._views:
            lows = _offsets(parameters)
            self._views[flat.data_ptr()] = [self._view(flat, low, p) for p, low in zip(parameters, lows, strict=True)]
        self.gradient = flat
        for p, view in zip(parameters, self._views[flat.data_ptr()], strict=True):
            p.grad = view

    def check_aliasing(self) -> None:
        """Raise RuntimeError if a parameter or gradient no longer lives in the flat buffers."""
        base = self.weights.untyped_storage().data_ptr(), self.gradient.untyped_storage().data_ptr()
        for name, p in self.module.named_parameters():
            assert p.grad is not None
            # The storage, not the tensor's own address: a parameter lies somewhere in the middle of the buffer.
            if (p.untyped_storage().data_ptr(), p.grad.untyped_storage().data_ptr()) != base:
                raise RuntimeError(f"parameter {name} left the flat buffer")

    def backpropagate(self, loss: Tensor) -> None:
        """Make the flat gradient that of a loss (0-d), whatever it was before.

        The same as zeroing it and `loss.backward()`, without an addition for every parameter: gradients are collected
        by few kernels.
        """
        gradients = torch.autograd.grad(loss, self._trained, allow_unused=True)
        views: list[Tensor] = []
        values: list[Tensor] = []
        for p, value in zip(self._trained, gradients, strict=True):
            if value is not None:
                assert p.grad is not None
                # Only those the loss reaches: one call copies all, since a kernel for each
                # parameter would cost more than its copy.
                views.append(p.grad)
                values.append(value)
        # Parameters that the loss does not reach keep no gradient of the step before.
        if sum(value.numel() for value in values) < self.gradient.numel():
            self.gradient.zero_()
        torch._foreach_copy_(views, values)  # pyright: ignore[reportPrivateImportUsage]

    def named_weights(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value, in logical order and shape, of each parameter as it stands in a flat vector (n,)."""
        parameters = dict(self.module.named_parameters())
        for (name, p), low in zip(parameters.items(), _offsets(list(parameters.values())), strict=True):
            yield name, self._view(flat, low, p)

    def named_statistics(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of each running statistic as it stands in a flat vector (k,)."""
        low = 0
        for name, m in self.module.named_modules():
            if isinstance(m, _BatchNorm) and m.track_running_stats:
                for buffer in ("running_mean", "running_var"):
                    size = getattr(m, buffer).numel()
                    yield f"{name}.{buffer}" if name else buffer, flat[low : low + size]
                    low += size

    def initial_statistics(self) -> Tensor:
        """Return a copy of the flat running statistics that the network came with."""
        return self._initial_statistics.clone()

    def state_dict(self, weights: Tensor, statistics: Tensor, updates: int) -> dict[str, Tensor]:
        """Return an ordinary, contiguous state dict of the network for flat weights and statistics; views where it can.

        `updates` fills the `num_batches_tracked` of batch-norm layers.
        """
        values = dict(self.named_weights(weights)) | dict(self.named_statistics(statistics))
        first = {id(p): name for name, p in self.module.named_parameters()}
        # A shared weight has every name that the network gives it: who loads the file may look for any of them.
        for name, p in self.module.named_parameters(remove_duplicate=False):
            values[name] = values[first[id(p)]]
        result = {}
        for name, tensor in self.module.state_dict().items():
            value = values.get(name)
            if value is None:
                value = torch.full_like(tensor, updates) if name.endswith("num_batches_tracked") else tensor
            # Contiguous in logical order: who loads the file need not know of channels-last weights.
            result[name] = value.detach().to("cpu").contiguous()
        return result


def running_average(running: Tensor, batch: Tensor, batches: int = 1) -> None:
    """Take a batch's flat statistics into the running ones, in place: r ← 0.9 r + 0.1 b.

    Those of several batches are taken in at once as r ← 0.9^H r + 0.1 b, with b = Σ_j 0.9^(H−j) b_j.
    """
    # Every executor averages here: the same two operations in the same order give the same bits.
    running.mul_((1 - BATCH_NORM_MOMENTUM) ** batches).add_(batch, alpha=BATCH_NORM_MOMENTUM)


def _layers(module: nn.Module) -> tuple[Layer, ...]:
    """Return the modules that own weights; a weight that several modules share belongs to the first of them."""
    layers, seen, low = [], set(), 0
    for name, part in module.named_modules():
        # By identity: `parameters()` of the network lists a shared weight once, and the pieces must add up to that.
        own = [p for p in part.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        high = low + sum(p.numel() for p in own)
        if own:
            layers.append(Layer(name or "network", low, high))
        low = high
    return tuple(layers)


def _offsets(parameters: list[nn.Parameter]) -> Iterator[int]:
    low = 0
    for p in parameters:
        yield low
        low += p.numel()
