"""The network that guesses error gradients in DNI: three layers on features and labels, with flat weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 5


class Synthesizer:
    """Maps features [B, *shape] and class numbers [B], or [B, positions], to error gradients [B, *shape].

    Args:
        shape: of one sample's features: (channels, height, width), a vector at each position (positions, width), or
            flat (n,).
        classes: number of classes.
        seed: of the initial weights; the output layer starts at zero.
        device: where to compute.

    Attributes:
        weights: flat weights.
        operations: of a guess for one sample, as PyTorch's `FlopCounterMode` counts them.
        held: bytes of what the graph held when it last learned, by address.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int, device: torch.device) -> None:
        self.classes = classes
        images = len(shape) == 3
        width = shape[0] if images else shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for before in (width + classes, width):
                layers += [_layer(images, before, width), *_norm(images, width), nn.ReLU()]
            last = _layer(images, width, width)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.network = nn.Sequential(*layers, last).to(device)
        self.parameters = list(self.network.parameters())
        self.weights = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        pieces = self.weights.split([p.numel() for p in self.parameters])
        for p, piece in zip(self.parameters, pieces, strict=True):
            p.data = piece.view(p.shape)
        positions = math.prod(shape[1:] if images else shape[:-1])
        # Kernels and matrices have dimensions, biases and norms one: those are not counted.
        self.operations = 2.0 * positions * sum(p.numel() for p in self.parameters if p.dim() > 1)
        self.held: dict[int, int] = {}

    def __call__(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the guess, B times the error gradient of a mean loss."""
        with torch.no_grad():
            return self.network(self._with_labels(features, targets))

    def learn(self, features: Tensor, targets: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the guess for the error gradient `delta` of a mean loss, and its flat gradient."""
        size = len(targets)
        self.held = {}

        def pack(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            # The weights are there anyway.
            if storage.data_ptr() != self.weights.untyped_storage().data_ptr():
                self.held[storage.data_ptr()] = storage.nbytes()
            # Detached, or the graph would hold itself alive through its own outputs.
            return saved.detach()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            guess = self.network(self._with_labels(features, targets))
            loss = (guess - size * delta).square().sum() / size
        g = torch.autograd.grad(loss, self.parameters)
        return loss.detach(), torch.cat([piece.reshape(-1) for piece in g])

    def _with_labels(self, features: Tensor, targets: Tensor) -> Tensor:
        labels = functional.one_hot(targets, self.classes).to(features.dtype)
        if features.dim() == 4:
            labels = labels[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return torch.cat([features, labels], dim=1 if features.dim() == 4 else -1)


def _layer(images: bool, before: int, width: int) -> nn.Module:
    return nn.Conv2d(before, width, KERNEL, padding=KERNEL // 2) if images else nn.Linear(before, width)


def _norm(images: bool, width: int) -> list[nn.Module]:
    # Without running statistics: a synthesizer is used on whole batches alone. Flat features of a single sample, as an
    # epoch's last batch may have, cannot be normalised.
    return [nn.BatchNorm2d(width, track_running_stats=False)] if images else []
