"""What the rest of dcrun knows of a network: a chain of named blocks, a loss and a count of errors."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Chain(nn.Module):
    """A network that runs its blocks one after the other.

    A block takes the tensor that the block before it returned and never changes that tensor in place, so that a chain
    can be cut between any two blocks. Names may have dots: block ``stage1.0`` owns the parameters ``stage1.0.*``; no
    prefix is added, so a state dict reads like the list of blocks.

    Args:
        blocks: (name, module) pairs in the order in which they run.

    Attributes:
        classifies: whether it guesses classes; if not, no rate of errors is reported.
        takes_numbers: whether a dataset's targets may be numbers to regress on: float32, with 0 classes.
        takes_tokens: whether its inputs are windows of token numbers ``[B, T]``, int64, and its targets the next ones.
    """

    classifies: bool = True
    takes_numbers: ClassVar[bool] = False
    takes_tokens: ClassVar[bool] = False

    def __init__(self, blocks: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        names: list[str] = []
        places: list[tuple[nn.Module, str]] = []
        for name, block in blocks:
            parent: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            if leaf in parent._modules:
                raise ValueError(f"two blocks are named {name!r}")
            parent.add_module(leaf, block)
            names.append(name)
            places.append((parent, leaf))
        self.block_names = tuple(names)
        # Walking down the dotted names in every forward pass would cost 3 µs a block.
        self._places = tuple(places)

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Return the (name, module) pairs in the order in which they run."""
        for name, (parent, leaf) in zip(self.block_names, self._places, strict=True):
            yield name, parent.get_submodule(leaf)

    def forward(self, inputs: Tensor) -> Tensor:
        """Run all blocks.

        Args:
            inputs: ``[B, *shape]``, float.

        Returns:
            The last block's output; for classifiers the logits ``[B, classes]``.
        """
        outputs = inputs
        for parent, leaf in self._places:
            outputs = getattr(parent, leaf)(outputs)
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy in nats, mean over the batch.

        Args:
            outputs: Logits ``[B, classes]``.
            targets: Class numbers ``[B]``, int64.
        """
        return functional.cross_entropy(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """Return how many samples of the batch are classified wrongly, a 0-d int64 tensor on the outputs' device.

        Args:
            outputs: Logits ``[B, classes]``.
            targets: Class numbers ``[B]``, int64.
            guesses: A sample counts as right if its class has one of so many largest logits.
        """
        return count_errors(outputs, targets, guesses)


def count_errors(outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
    """Return how many samples of a batch are classified wrongly; see `Chain.errors`."""
    if guesses == 1:
        return torch.count_nonzero(outputs.argmax(dim=1) != targets)
    best = outputs.topk(min(guesses, outputs.shape[1]), dim=1).indices
    return len(targets) - torch.count_nonzero(best == targets[:, None])


def check_images(model: str, shape: Sequence[int], smallest: int) -> None:
    """Refuse shapes that are not images (channels, height, width), or smaller ones than a network can halve.

    Args:
        model: how the network is called in messages, as ``resnet20``.
        shape: Shape of an input.
        smallest: Pixels that height and width must have at least.

    Raises:
        ValueError: The message names the model, the shape and what is allowed.
    """
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < smallest:
        raise ValueError(
            f"model={model}: cannot take inputs of shape {tuple(shape)}; "
            f"allowed: images (channels, height, width) of at least {smallest}x{smallest}"
        )


def sizes(key: str, values: int | Sequence[int], allowed: str) -> tuple[int, ...]:
    """Return one value or several as a tuple of positive whole numbers.

    Raises:
        ValueError: One of them is not a whole number or below one; the message names ``key`` and what is ``allowed``.
    """
    several = tuple(values) if isinstance(values, Sequence) else (values,)
    for value in several:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            given = list(several) if isinstance(values, Sequence) else value
            raise ValueError(f"{key}={given}: {value!r} is not a positive whole number; allowed: {allowed}")
    return several
