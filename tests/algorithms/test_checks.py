import pytest

from algorithms.checks import flag, in_range, integer, one_of, positive


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_value_in_range_comes_back(value: float):
    assert in_range("m", value, 0, 1) == value


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_value_out_of_range_is_named(value: float):
    with pytest.raises(ValueError, match=rf"^algorithm\.m={value}: out of range; allowed: 0 <= m <= 1$"):
        in_range("m", value, 0, 1)


def test_open_range_excludes_its_end():
    assert in_range("m", 0.999, 0, 1, open_high=True) == 0.999
    with pytest.raises(ValueError, match=r"^algorithm\.m=1: out of range; allowed: 0 <= m < 1$"):
        in_range("m", 1, 0, 1, open_high=True)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_endless_range_takes_finite_numbers_only(value: float):
    assert in_range("lambda0", 1e9, 0) == 1e9
    with pytest.raises(ValueError, match=rf"^algorithm\.lambda0={value}: out of range; allowed: lambda0 >= 0$"):
        in_range("lambda0", value, 0)


def test_unknown_choice_is_refused():
    assert one_of("backup", "worker", ("server", "worker")) == "worker"
    with pytest.raises(ValueError, match=r"^algorithm\.backup=disk: unknown; allowed: server, worker$"):
        one_of("backup", "disk", ("server", "worker"))


@pytest.mark.parametrize("value", [1.5, True, "4", None])
def test_only_integers_are_integers(value: object):
    assert integer("tau", 4) == 4
    with pytest.raises(ValueError, match=rf"^algorithm\.tau={value}: is not a whole number; allowed: integers$"):
        integer("tau", value)  # type: ignore[arg-type]


def test_positive_refuses_zero():
    assert positive("weight_decay", 0.1) == 0.1
    with pytest.raises(ValueError, match=r"^algorithm\.weight_decay=0: .*; allowed: weight_decay > 0$"):
        positive("weight_decay", 0)


def test_flag_refuses_other_values():
    assert flag("nesterov", True) is True
    with pytest.raises(ValueError, match=r"^algorithm\.nesterov=1: is neither true nor false; allowed: true, false$"):
        flag("nesterov", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1.1e30, 1e300])
def test_factor_beyond_float32_is_refused(value: float):
    with pytest.raises(ValueError, match=r"^algorithm.x=.*: is too large for float32; allowed: x >= 0 and <= 1e\+30$"):
        in_range("x", value, 0)
    assert in_range("x", 1e30, 0) == 1e30
