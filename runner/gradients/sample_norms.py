"""Norms of single samples' gradients, layer by layer, taken from a training step as it happens.

A layer's gradient is a sum over samples of what each sample's input to the layer and gradient at its output contribute.
While `recording`, forward hooks catch the inputs and hooks on the outputs the gradients, and the squared norm of every
contribution is computed before back-propagation moves on: no second pass, and no per-sample gradient is kept.

Without batch norm the contributions are the samples' gradients (divided by the batch size, for a mean loss). With batch
norm in training mode a sample's loss depends on the whole batch; contributions remain defined, and still sum to the
batch's gradient. Gram matrices for layers with few positions: Goodfellow 2015, "Efficient per-example gradient
computations"; for convolutions Bu et al. 2022, "Scalable and efficient training of large convolutional neural networks
with differential privacy".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.base import Layer

_KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.LayerNorm, _BatchNorm)
BLOCK = 2**21
"""Elements of temporaries at a time; samples are taken in blocks of so many."""


class SampleNorms:
    """Record squared norms of contributions to the gradients of a network's layers.

    Args:
        network: the network; called once per recording.
        layers: its layers.

    Raises:
        ValueError: a layer is of a kind whose contributions are not known, or shares its weight with another.
    """

    def __init__(self, network: nn.Module, layers: Sequence[Layer]) -> None:
        modules = dict(network.named_modules())
        # The default is for a network that is itself a layer: its `Layer` is called "network", and no module is.
        self.modules = [modules.get(layer.name, network) for layer in layers]
        for layer, module in zip(layers, self.modules, strict=True):
            # Refused when the run is built: a layer left out would make a norm too small without a word.
            if not isinstance(module, _KNOWN) or getattr(module, "scale_grad_by_freq", False):
                kind = type(module).__name__
                what = f"no norms of single samples' gradients are known for layer {layer.name} ({kind})"
                raise ValueError(
                    f"model: {what}; allowed: linear, convolution, embedding, batch- and layer-norm layers"
                )
        _refuse_shared(network)

    @contextmanager
    def recording(self, squares: Tensor) -> Iterator[None]:
        """Fill `squares` in the forward and backward pass made inside.

        Args:
            squares: (layers, samples), zeros; gets the squared norms for the first samples of the batch.
        """
        # Hooks for one pass alone: left in place they would cost time in every step, and hold on to its inputs.
        handles = [
            module.register_forward_hook(_Catch(row), with_kwargs=False)
            for module, row in zip(self.modules, squares, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _refuse_shared(network: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, module in network.named_modules():
        for p in module.parameters(recurse=False):
            # Its gradient is a sum over two layers, whose norm their two norms do not tell.
            if id(p) in owners:
                what = f"{owners[id(p)]} and {name} share a weight: its norms per sample are not known"
                raise ValueError(f"model: {what}; allowed: layers with weights of their own, as with model.tied=false")
            owners[id(p)] = name


class _Catch:
    """Forward hook that registers a hook on the output's gradient."""

    def __init__(self, row: Tensor) -> None:
        self.row = row
        self.calls = 0

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls += 1
        # A weight that is used twice has the norm of a sum of two contributions, which their two norms do not tell.
        if self.calls > 1:
            raise ValueError(
                f"{type(module).__name__} runs twice in a forward pass: its norms per sample are not known"
            )
        inputs, row = args[0].detach(), self.row

        def note(gradient: Tensor) -> None:
            with torch.no_grad():
                # Now, while back-propagation still has this layer's gradient; later it is freed.
                row.copy_(squared_norms(module, inputs, gradient, len(row)))

        output.register_hook(note)


def squared_norms(module: nn.Module, inputs: Tensor, gradients: Tensor, samples: int) -> Tensor:
    """Return the squared norms of the first samples' contributions to the gradient of a module's weights.

    Args:
        module: linear, 1-d or 2-d convolution, embedding, batch norm or layer norm.
        inputs: what it was given, [B, ...].
        gradients: of the loss with respect to what it returned, [B, ...].
        samples: how many of the B samples.

    Returns:
        (samples,) float32.
    """
    gradients = gradients[:samples].float()
    if isinstance(module, nn.Embedding):
        return _embedding_squares(module, inputs, gradients)
    if isinstance(module, _BatchNorm | nn.LayerNorm):
        parts = _normalised(module, inputs, gradients)
        return sum((part.flatten(1).square().sum(1) for part in parts), gradients.new_zeros(len(gradients)))
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    result = gradients.new_empty(len(gradients))
    size = _block(module, inputs, gradients)
    for low in range(0, len(gradients), size):
        block = slice(low, min(low + size, samples))
        outputs, columns = _columns(module, inputs[block], gradients[block])
        # Samples are independent: taking them in blocks bounds the memory and changes no result.
        squares = _squares(outputs, columns)
        if module.bias is not None:
            # Every position adds the same bias, so its contribution is the sum of the gradient at the output.
            squares = squares + outputs.sum(3).square().sum((1, 2))
        result[block] = squares
    return result


def contributions(module: nn.Module, inputs: Tensor, gradients: Tensor) -> list[Tensor]:
    """Return each sample's contribution to the gradients of a module's weight and, where it has one, bias.

    All at once, so for small batches; the arguments are those of `squared_norms`.

    Returns:
        [B, *weight.shape], and [B, *bias.shape].
    """
    gradients = gradients.float()
    if isinstance(module, _BatchNorm | nn.LayerNorm):
        return _normalised(module, inputs, gradients)
    if isinstance(module, nn.Embedding):
        tokens, rows = _positions(module, inputs, gradients)
        places = tokens[..., None].expand(rows.shape)
        return [rows.new_zeros(len(rows), *module.weight.shape).scatter_add_(1, places, rows)]
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    outputs, columns = _columns(module, inputs, gradients)
    out, width, *kernel = module.weight.shape
    # Columns are ordered by place in the kernel first, weights by channel.
    parts = [(outputs @ columns.transpose(2, 3)).reshape(len(gradients), out, *kernel, width).movedim(-1, 2)]
    if module.bias is not None:
        parts.append(outputs.sum(3).reshape(len(gradients), -1))
    return parts


def _positions(module: nn.Embedding, tokens: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return an embedding's tokens (B, positions), and the gradients at its output [B, positions, width]."""
    tokens = tokens[: len(gradients)].flatten(1) if tokens.dim() > 1 else tokens[: len(gradients), None]
    rows = gradients.reshape(*tokens.shape, -1)
    # PyTorch gives the padding's row no gradient.
    return tokens, rows if module.padding_idx is None else rows * (tokens != module.padding_idx)[..., None]


def _embedding_squares(module: nn.Embedding, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Return the squared norms of the samples' contributions to an embedding's weight, [B]."""
    tokens, rows = _positions(module, inputs, gradients)
    positions, width = rows.shape[1:]
    size = max(1, BLOCK // (positions * (2 * positions + width)))
    squares = []
    for low in range(0, len(rows), size):
        part, own = rows[low : low + size], tokens[low : low + size]
        # Positions with the same token add to the same row of the weight: ‖Σ g‖² is the sum of all their products.
        grams = (part @ part.transpose(1, 2)).mul_(own[:, :, None] == own[:, None, :])
        squares.append(grams.sum((1, 2)).clamp_(min=0))
    return torch.cat(squares) if squares else rows.new_zeros(0)


def _normalised(module: _BatchNorm | nn.LayerNorm, inputs: Tensor, gradients: Tensor) -> list[Tensor]:
    """Return contributions to a norm's weight, which multiplies the normalised input, and to its bias."""
    if isinstance(module, nn.LayerNorm):
        inputs = inputs[: len(gradients)].float()
        products = gradients * functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
        within = tuple(range(1, inputs.dim() - len(module.normalized_shape)))
        parts = [products] if module.bias is None else [products, gradients]
        return [part.sum(within) if within else part for part in parts]
    mean, variance = _moments(module, inputs)
    positions = tuple(range(2, inputs.dim()))
    products = gradients * inputs[: len(gradients)]
    bias = gradients.sum(positions) if positions else gradients
    # Σ g (x − mean) scale, without the normalised input ever being there.
    weight = ((products.sum(positions) if positions else products) - bias * mean) * (variance + module.eps).rsqrt()
    return [weight, bias]


def _moments(module: _BatchNorm, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance with which the module has just normalised its input."""
    mean, variance = module.running_mean, module.running_var
    if mean is not None and variance is not None:
        if not module.training:
            return mean, variance
        # A replica's batch norm (`Replica` sets this momentum) has just left the batch's own mean and unbiased variance
        # there. Normalising used the biased one.
        if module.momentum == 1:
            count = inputs.numel() // inputs.shape[1]
            return mean, variance * ((count - 1) / count)
    variance, mean = torch.var_mean(inputs.float(), [a for a in range(inputs.dim()) if a != 1], correction=0)
    return mean, variance


def _columns(module: nn.Linear | nn.Conv1d | nn.Conv2d, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Write a layer as matrix products over groups and positions.

    Returns:
        output gradients [B, groups, out, positions] and inputs [B, groups, kernel x in, positions]: a sample's
        contribution to the weight is the product of the first with the second's transpose.
    """
    inputs, samples = inputs.float(), len(inputs)
    if isinstance(module, nn.Linear):
        outputs = gradients.reshape(samples, 1, -1, module.out_features)
        return outputs.transpose(2, 3), inputs.reshape(samples, 1, -1, module.in_features).transpose(2, 3)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    # Padded here, so that every window lies inside and can be a view.
    inputs = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = tuple(module.kernel_size), tuple(module.dilation), tuple(module.stride)
    if isinstance(module, nn.Conv1d):
        inputs, gradients = inputs.unsqueeze(2), gradients.unsqueeze(2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    groups = module.groups
    # Channels last: a window's row is one piece of memory, copied at once and by several threads.
    columns = _windows(inputs.permute(0, 2, 3, 1).contiguous(), gradients.shape[2:], kernel, dilation, stride)
    columns = columns.reshape(samples, gradients[0, 0].numel(), math.prod(kernel), groups, -1)
    columns = columns.permute(0, 3, 1, 2, 4).reshape(samples, groups, columns.shape[1], -1)
    outputs = gradients.permute(0, 2, 3, 1).reshape(samples, columns.shape[2], groups, -1)
    return outputs.permute(0, 2, 3, 1), columns.transpose(2, 3)


def _windows(
    inputs: Tensor, size: Sequence[int], kernel: tuple[int, ...], dilation: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """Return a view of [B, H, W, C] as [B, *size, *kernel, C]."""
    sample, row, column, channel = inputs.stride()
    steps = (sample, row * stride[0], column * stride[1], row * dilation[0], column * dilation[1], channel)
    # `unfold` would copy every window, so each input as often as the kernel has places.
    return inputs.as_strided((len(inputs), *size, *kernel, inputs.shape[3]), steps, inputs.storage_offset())


def _squares(outputs: Tensor, columns: Tensor) -> Tensor:
    """Return ‖outputs columnsᵀ‖² per sample, by way of the product or of Gram matrices, whichever is less work."""
    if _by_grams(outputs.shape[2], columns.shape[2], outputs.shape[3]):
        grams = (outputs.transpose(2, 3) @ outputs).mul_(columns.transpose(2, 3) @ columns)
        # A sum of products of both signs: rounding can bring a norm of nearly zero below zero.
        return grams.sum((1, 2, 3)).clamp_(min=0)
    return (outputs @ columns.transpose(2, 3)).square_().sum((1, 2, 3))


def _by_grams(rows: int, columns: int, positions: int) -> bool:
    # Multiply-adds for a sample: positions² (rows + columns) by Gram matrices, positions · rows · columns by the
    # product. One factor cancels.
    return positions * (rows + columns) < rows * columns


def _block(module: nn.Linear | nn.Conv1d | nn.Conv2d, inputs: Tensor, gradients: Tensor) -> int:
    """Return how many samples' temporaries fit into one block."""
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    out = module.weight.shape[0] // groups
    width = module.weight[0].numel()
    positions = gradients[0].numel() // (out * groups)
    product = 2 * positions**2 if _by_grams(out, width, positions) else out * width
    # At least one sample, however large it is.
    return max(1, BLOCK // (groups * (positions * width + product) + math.prod(inputs.shape[1:])))
