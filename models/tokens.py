"""Loss and errors of networks that guess the next token at every position of a window."""

import torch
from torch import Tensor
from torch.nn import functional


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in nats, mean over the positions of all windows, 0-d.

    Args:
        outputs: Logits ``[B, T, classes]``.
        targets: Token numbers ``[B, T]``, int64.
    """
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def token_errors(outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
    """Return the sum over the windows of the share of tokens that are guessed wrongly, a 0-d float64 tensor.

    A sample is a window: divided by their number, this is the share of wrong tokens, as the loss is a mean over tokens.

    Args:
        outputs: Logits ``[B, T, classes]``.
        targets: Token numbers ``[B, T]``, int64.
        guesses: A token counts as right if it has one of so many largest logits.
    """
    if guesses == 1:
        wrong = torch.count_nonzero(outputs.argmax(dim=-1) != targets)
    else:
        best = outputs.topk(min(guesses, outputs.shape[-1]), dim=-1).indices
        wrong = targets.numel() - torch.count_nonzero(best == targets[..., None])
    return wrong.double() / targets.shape[1]
