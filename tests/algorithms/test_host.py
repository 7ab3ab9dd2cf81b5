import importlib
import warnings

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import host
from algorithms.host import array_of, each_once, rounded, tensor_of, with_places


@given(drawn=st.lists(st.integers(0, 30), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_each_number_comes_once_with_its_count(drawn: list[int]):
    given = torch.tensor(drawn)
    ids, times = each_once(given)
    expected, counts = given.unique(return_counts=True)
    assert torch.equal(ids, expected)
    assert given.tolist() == drawn, "left as it was"
    if len(set(drawn)) == len(drawn):
        assert times is None
    else:
        assert times is not None
        assert torch.equal(times, counts)


@given(drawn=st.lists(st.integers(0, 30), max_size=40))
@settings(max_examples=80, deadline=None)
def test_each_draw_has_its_place(drawn: list[int]):
    ids, places = with_places(torch.tensor(drawn, dtype=torch.int64))
    if places is None:
        assert ids.tolist() == drawn
        assert len(set(drawn)) == len(drawn)
    else:
        assert ids.tolist() == sorted(set(drawn))
        assert ids[places].tolist() == drawn


def test_results_are_rounded_to_the_weights():
    exact = np.array([1 + 2**-30, 1 / 3])
    found = rounded(exact, like=torch.zeros(1))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(exact).float())
    assert torch.equal(rounded(exact, like=torch.zeros(1).double()), torch.from_numpy(exact))
    assert torch.equal(rounded(torch.from_numpy(exact), like=torch.zeros(1)), found)


def test_arrays_share_the_memory_of_tensors():
    tensor = torch.zeros(3)
    array = array_of(tensor, like=torch.empty(0))
    assert isinstance(array, np.ndarray)
    array[1] = 2
    assert tensor.tolist() == [0, 2, 0]
    back = tensor_of(array)
    assert back.data_ptr() == tensor.data_ptr()


def test_overflow_in_methods_and_models_is_silent():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.reload(host)
        for module in ("algorithms.dis_dfsdca", "dcrun.models.ridge", "runner.simulated.server"):
            warnings.warn_explicit("overflow encountered in multiply", RuntimeWarning, module, 1, module)
        warnings.warn_explicit("something else", RuntimeWarning, "algorithms.asgd", 1, "algorithms.asgd")
    assert [warning.filename for warning in caught] == ["runner.simulated.server", "algorithms.asgd"]


def test_tensors_elsewhere_stay_tensors():
    elsewhere = torch.zeros(3, device="meta")
    assert array_of(elsewhere) is elsewhere
    assert tensor_of(elsewhere) is elsewhere
    assert array_of(torch.zeros(3), like=elsewhere).device.type == "meta"
