import pytest
import torch

from runner.simulated.memory_worker import PIECES, SimulatedMemoryWorker, coordinates_within, piece_bounds, piece_count


@pytest.mark.parametrize("n", [1, 7, 8, 100])
def test_pieces_cover_a_vector_in_order(n: int):
    pieces = [piece_bounds(n, piece, PIECES) for piece in range(PIECES)]
    assert [i for piece in pieces for i in range(n)[piece]] == list(range(n))
    assert max(len(range(n)[piece]) for piece in pieces) <= -(-n // PIECES)


def test_only_what_takes_time_is_cut():
    assert (piece_count(0.0), piece_count(0.5)) == (1, PIECES)


def test_coordinates_are_cut_by_address():
    coordinates = torch.tensor([0, 3, 4, 9])
    assert coordinates_within(coordinates, slice(3, 9)).tolist() == [3, 4]  # type: ignore[union-attr]
    assert coordinates_within(coordinates, slice(5, 9)).tolist() == []  # type: ignore[union-attr]
    assert coordinates_within(None, slice(3, 9)) == slice(3, 9)


def test_states_survive_a_checkpoint():
    one = SimulatedMemoryWorker(torch.ones(3), coordinates=torch.tensor([1]), writing=True, piece=2, version=5, end=1.5)
    other = SimulatedMemoryWorker(torch.zeros(3))
    state = one.state_dict()
    assert "v" not in state, "nothing is being written yet"
    other.load_state_dict(state, torch.device("cpu"))
    assert other.coordinates is not None
    assert other.coordinates.tolist() == [1]
    assert (other.writing, other.piece, other.version, other.end) == (True, 2, 5, 1.5)
    assert torch.equal(other.read, torch.ones(3))


def test_files_call_coordinates_chosen():
    """As files of all versions do."""
    assert SimulatedMemoryWorker(torch.ones(3), coordinates=torch.tensor([1])).state_dict()["chosen"].tolist() == [1]
