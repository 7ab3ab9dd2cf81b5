import numpy as np
import pytest
import torch

from models.tokens import token_errors, token_loss

OUTPUTS = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(7, (3, 5), generator=torch.Generator().manual_seed(1))


def test_loss_is_that_of_numpy():
    logits, targets = OUTPUTS.numpy(), TARGETS.numpy()
    sums = np.log(np.exp(logits).sum(-1))
    right = np.array([[logits[b, t, targets[b, t]] for t in range(5)] for b in range(3)])
    assert float(token_loss(OUTPUTS, TARGETS)) == pytest.approx((sums - right).mean(), rel=1e-12)


@pytest.mark.parametrize("guesses", [1, 2, 5, 100])
def test_errors_are_shares_of_wrong_tokens(guesses: int):
    order = np.argsort(-OUTPUTS.numpy(), axis=-1)[..., :guesses]
    wrong = (order != TARGETS.numpy()[..., None]).all(-1)
    found = token_errors(OUTPUTS, TARGETS, guesses)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(wrong.mean(1).sum())
