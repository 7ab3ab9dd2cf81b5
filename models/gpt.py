"""A decoder-only language model, GPT-2's network in the small (Radford et al. 2019; written after Karpathy's nanoGPT).

Token and position embeddings, blocks of causal self-attention and a two-layer perceptron with layer norm before each,
a last layer norm and a linear layer without bias. With vocabulary V, context T, width C and L layers it has
V C + T C + L (12 C² + 13 C) + 2 C parameters, and V C more for the last layer unless its weight is tied.

Deviation from nanoGPT: no dropout.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import Chain, sizes
from models.tokens import token_errors, token_loss

STD = 0.02
"""Standard deviation of the initial weights, GPT-2's."""


class GPT(Chain):
    """GPT-2's network on windows of token numbers; it guesses the next token at every position.

    The blocks are ``embedding``, ``layers.0`` ... ``layers.N``, ``norm`` and ``head``.

    Initial weights: N(0, 0.02), those that end a residual branch N(0, 0.02 / sqrt(2 layers)), layer norms 1 and 0,
    biases 0, all from torch's global generator.

    Args:
        shape: ``(context,)``: tokens of a window; the number of positions that the model knows.
        classes: size of the vocabulary.
        layers: blocks of attention and perceptron.
        heads: of attention in each block; a divisor of ``width``.
        width: length of the vector at each position.
        tied: whether the last layer's weight is the token embedding's. A pipeline cannot cut such a network.

    Raises:
        ValueError: a size is not a positive whole number, the heads do not divide the width, or the samples are no
            windows of tokens.
    """

    takes_tokens = True

    def __init__(
        self,
        *,
        shape: Sequence[int],
        classes: int,
        layers: int = 2,
        heads: int = 4,
        width: int = 64,
        tied: bool = False,
    ) -> None:
        if len(shape) != 1 or shape[0] < 1:
            raise ValueError(
                f"model=gpt: cannot take inputs of shape {tuple(shape)}; allowed: windows of tokens (context,)"
            )
        for key, value in (("layers", layers), ("heads", heads), ("width", width)):
            sizes(f"model.{key}", value, "positive whole numbers")
        if width % heads:
            divisors = ", ".join(str(d) for d in range(1, width + 1) if width % d == 0)
            raise ValueError(f"model.heads={heads}: does not divide model.width={width}; allowed: {divisors}")
        if not isinstance(tied, bool):
            raise ValueError(f"model.tied={tied}: is neither true nor false; allowed: true, false")
        super().__init__(_blocks(shape[0], classes, layers, heads, width))
        self._initialise(layers)
        if tied:
            # The very parameter: it is in the flat weights once, and gets the sum of both gradients.
            self.get_submodule("head").weight = self.get_submodule("embedding.token").weight

    def _initialise(self, layers: int) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                branch_end = name.endswith(("attention.out", "perceptron.out"))
                nn.init.normal_(module.weight, std=STD / math.sqrt(2 * layers) if branch_end else STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map token numbers ``[B, T]`` to logits ``[B, T, classes]``; those at t depend on tokens 0 to t alone."""
        return super().forward(inputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all positions; see `models.tokens.token_loss`."""
        return token_loss(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """Return the windows' shares of wrong tokens, summed; see `models.tokens.token_errors`."""
        return token_errors(outputs, targets, guesses)


def _blocks(context: int, classes: int, layers: int, heads: int, width: int) -> Iterator[tuple[str, nn.Module]]:
    yield "embedding", Embedding(context, classes, width)
    for index in range(layers):
        yield f"layers.{index}", Block(heads, width)
    yield "norm", nn.LayerNorm(width)
    yield "head", nn.Linear(width, classes, bias=False)


class Embedding(nn.Module):
    """The sum of a vector for each token and one for its position.

    Args:
        context: number of positions.
        classes: size of the vocabulary.
        width: length of a vector.
    """

    def __init__(self, context: int, classes: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(classes, width)
        self.position = nn.Embedding(context, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, T]`` to ``[B, T, width]``."""
        # Expanded over the windows, not added to all of them: each window's part of the gradient is known then.
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        return self.token(tokens) + self.position(positions)


class Block(nn.Module):
    """``y = x + attention(norm1(x))``, then ``y + perceptron(norm2(y))``.

    Args:
        heads: of attention.
        width: length of the vector at each position.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(heads, width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = Perceptron(width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, T, width]`` to the same shape."""
        outputs = inputs + self.attention(self.norm1(inputs))
        return outputs + self.perceptron(self.norm2(outputs))


class CausalAttention(nn.Module):
    """Scaled dot-product attention of several heads, in which a position sees itself and those before it.

    Args:
        heads: how many, a divisor of ``width``.
        width: of all heads together.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, T, width]`` to the same shape."""
        batch, positions, width = inputs.shape
        parts = self.into(inputs).view(batch, positions, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(seen.transpose(1, 2).reshape(batch, positions, width))


class Perceptron(nn.Module):
    """A hidden layer of four times the width with GELU in the middle.

    Args:
        width: of inputs and outputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, T, width]`` to the same shape."""
        return self.out(functional.gelu(self.into(inputs)))
