import json

import pytest
import torch

from runner.loop.communication import Communication, disagreement


def test_sums_survive_a_checkpoint():
    first, second = Communication(), Communication()
    first.add(2.0, 0.5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.add(1.0, 1.0)
    assert second.columns() == {"communication_seconds": 3.0, "hidden_seconds": 1.5}


def test_disagreement_is_mean_and_maximum():
    assert disagreement(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(
        {"disagreement_mean": 3.0, "disagreement_max": 6.0}
    )
