import pytest
import torch
from torch import Tensor

from runner.simulated.arena import Arena, NotShareable
from runner.simulated.tensor_slot import TensorSlot

IMAGES = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)


def slot(capacity: int) -> tuple[TensorSlot, Arena]:
    made = TensorSlot.at(64, capacity)
    return made, Arena(made.end)


@pytest.mark.parametrize(
    "tensor",
    [
        IMAGES,
        IMAGES.to(memory_format=torch.channels_last),
        IMAGES[1:],
        IMAGES[:, :, ::2],
        torch.arange(480.0).view(2, 6, 4, 10)[:, 1:4, :, ::2],
        torch.tensor(3.0),
        torch.tensor([[2.0]]).expand(4, 5),
    ],
    ids=["whole", "channels last", "from the middle", "with gaps", "with more gaps than room", "number", "expanded"],
)
def test_numbers_and_strides_are_taken(tensor: Tensor):
    place, arena = slot(120)
    place.put(arena, tensor)
    found = place.take(arena)
    assert found is not None
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()
    assert found.storage_offset() == tensor.storage_offset()
    assert found.untyped_storage().nbytes() == tensor.untyped_storage().nbytes(), "by which memory is counted"
    place.put(arena, torch.zeros(120))
    assert torch.equal(found, tensor), "a copy"


def test_there_may_be_nothing():
    place, arena = slot(120)
    place.put(arena, IMAGES)
    place.put(arena, None)
    assert place.take(arena) is None


def test_a_smaller_tensor_replaces_a_larger():
    place, arena = slot(120)
    place.put(arena, IMAGES)
    place.put(arena, IMAGES[:1])
    found = place.take(arena)
    assert found is not None
    assert torch.equal(found, IMAGES[:1])


def test_what_does_not_fit_is_refused():
    place, arena = slot(100)
    says = r"^run.compute_processes: a module sends a tensor \[2, 3, 4, 5\] with strides .*; allowed: 1$"
    with pytest.raises(NotShareable, match=says):
        place.put(arena, IMAGES)
