"""The network that guesses error gradients: what it computes, that it learns, where its weights lie."""

import numpy as np
import pytest
import torch

from algorithms.optimizer import Optimizer, OptimizerOptions
from algorithms.synthesizer import Synthesizer

CPU = torch.device("cpu")


def random_weights(synthesizer: Synthesizer) -> list[np.ndarray]:
    """Set all layers, the last one too, and return them: weight and bias of each."""
    generator = torch.Generator().manual_seed(1)
    synthesizer.weights.copy_(torch.randn(synthesizer.weights.shape, generator=generator))
    return [parameter.detach().numpy() for parameter in synthesizer.parameters]


def test_flat_guess_is_three_numpy_layers():
    synthesizer = Synthesizer((4,), 3, seed=0, device=CPU)
    # The flat weights are the layers' own memory: what is written there is what guesses.
    w1, b1, w2, b2, w3, b3 = random_weights(synthesizer)
    features, targets = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 2, 1, 1, 0])
    labelled = np.hstack([features.numpy(), np.eye(3)[targets.numpy()]])
    hidden = np.maximum(np.maximum(labelled @ w1.T + b1, 0) @ w2.T + b2, 0)
    np.testing.assert_allclose(synthesizer(features, targets).numpy(), hidden @ w3.T + b3, rtol=1e-5, atol=1e-5)


def test_gradient_is_a_finite_difference():
    synthesizer = Synthesizer((4,), 3, seed=0, device=CPU)
    synthesizer.network.double()
    generator = torch.Generator().manual_seed(3)
    for parameter in synthesizer.parameters:
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    features, delta = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    targets = torch.tensor([0, 2, 1, 1, 0])
    _, g = synthesizer.learn(features, targets, delta)
    bias = synthesizer.parameters[-1].data
    losses = []
    for shift in (1e-6, -2e-6):
        bias[0] += shift
        losses.append(float(synthesizer.learn(features, targets, delta)[0]))
    # The last layer's bias is the end of the flat vector.
    assert float(g[-len(bias)]) == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5)


def test_seed_decides_the_layers():
    first, second, other = (Synthesizer((3, 4, 4), 10, seed=seed, device=CPU).weights for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(6,), (3, 4, 4)])
def test_synthesizer_starts_at_zero_and_learns(shape: tuple[int, ...]):
    synthesizer = Synthesizer(shape, 10, seed=0, device=CPU)
    torch.manual_seed(0)
    features, targets = torch.randn(8, *shape), torch.arange(8)
    delta = 0.1 * torch.randn(8, *shape)
    assert torch.equal(synthesizer(features, targets), torch.zeros(8, *shape))
    adam = Optimizer(OptimizerOptions(optimizer="adam"))
    adam.start(synthesizer.weights)
    losses = []
    for _ in range(200):
        loss, g = synthesizer.learn(features, targets, delta)
        adam(synthesizer.weights, g, 1e-2)
        losses.append(float(loss))
    torch.testing.assert_close(losses[0], float((8 * delta).square().sum() / 8))
    assert losses[-1] < 0.1 * losses[0]


def test_labels_tell_it_what_features_cannot():
    synthesizer = Synthesizer((16,), 3, seed=0, device=CPU)
    torch.manual_seed(0)
    for parameter in synthesizer.parameters:
        parameter.data.copy_(torch.randn_like(parameter))
    guesses = synthesizer(torch.ones(2, 16), torch.tensor([0, 1]))
    assert not torch.equal(guesses[0], guesses[1])


def test_guess_at_each_position_is_that_of_its_vector():
    windows, rows = (Synthesizer(shape, 3, seed=0, device=CPU) for shape in ((6, 4), (4,)))
    for each in (windows, rows):
        random_weights(each)
    features, targets = torch.randn(5, 6, 4), torch.randint(3, (5, 6))
    guess = windows(features, targets)
    torch.testing.assert_close(guess.view(30, 4), rows(features.view(30, 4), targets.flatten()))
    assert windows.operations == 6 * rows.operations
