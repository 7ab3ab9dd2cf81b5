import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Batch, Collective, ParameterServer, Stateful, Step, zeros
from algorithms.dc_asgd import DCASGDAdaptive
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from algorithms.ssgd import SSGD


def test_zeros_take_type_and_device():
    made = zeros(2, 3, like=torch.ones(1, dtype=torch.float64))
    assert torch.equal(made, torch.zeros(2, 3, dtype=torch.float64))
    assert made.dtype == torch.float64


def started(method: ParameterServer | SSGD, n: int = 5) -> ParameterServer | SSGD:
    if isinstance(method, ParameterServer):
        method.start(torch.arange(float(n)), 2)
    else:
        method.start(torch.arange(float(n)), 0, 2)
    return method


def test_saved_state_is_copied_in_place():
    method = started(DCASGDAdaptive(lambda0=1.0, m=0.5, momentum=0.5))
    assert isinstance(method, DCASGDAdaptive)
    saved = {name: torch.randn_like(tensor) for name, tensor in method.state().items()}
    assert set(saved) == {"w", "v", "bak", "ms"}
    addresses = {name: tensor.data_ptr() for name, tensor in method.state().items()}
    method.load_state(saved)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in method.state().items())
    assert {name: tensor.data_ptr() for name, tensor in method.state().items()} == addresses
    assert torch.equal(method.solution(), saved["w"])


def test_foreign_state_is_refused():
    plain, momentum = started(ASGD()), started(ASGD(momentum=0.9))
    with pytest.raises(ValueError, match=r"algorithm state has \['v', 'w'\]; expected \['w'\]"):
        plain.load_state(momentum.state())
    with pytest.raises(ValueError, match=r"algorithm state w has shape \(6,\), not \(5,\)"):
        plain.load_state(started(ASGD(), 6).state())


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        (ParameterServer, "has_server"),
        (Collective, "steps_together"),
        (SharedMemory, "shares_memory"),
        (Pipeline, "cuts_network"),
    ],
)
def test_protocol_says_how_workers_communicate(protocol: type[Stateful], says: str):
    asked = ("has_server", "steps_together", "shares_memory", "cuts_network")
    assert [name for name in asked if getattr(protocol, name)] == [says]


def test_what_executors_say_by_default():
    assert Step(lr=0.5) == (0.5, 1.0, 0, 1.0)
    assert ASGD().sent(0) is None
    assert Batch(3, 1, torch.tensor([7]))._replace(number=4).epoch == 1
