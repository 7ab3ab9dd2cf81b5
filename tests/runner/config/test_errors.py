"""Wrong input is one line that names key, value and what is allowed."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from runner.config.errors import InputError, building, one_line, shown

THREE = 3


def test_line_names_key_value_allowed():
    assert str(InputError.of("run.epochs", -1.0, "is out of range", "numbers above 0")) == (
        "run.epochs=-1: is out of range; allowed: numbers above 0"
    )


def test_several_lines_become_one():
    assert one_line("first;\n\n   second   part\nthird") == "first; second part; third"
    assert "\n" not in str(InputError("a\nb"))


@pytest.mark.parametrize(
    ("value", "typed"), [(None, "null"), (True, "true"), (2.0, "2"), (0.5, "0.5"), ([1, None, "a"], "[1,null,a]")]
)
def test_values_are_shown_as_typed(value: object, typed: str):
    assert shown(value) == typed


class Part:
    """What a configuration may name."""

    def __init__(self, *, size: int) -> None:
        if size < 1:
            raise ValueError(f"model.size={size}: is too small; allowed: 1 or more")
        if size > 100:
            raise RuntimeError("a defect")


def build(**arguments: object) -> Part:
    with building():
        return instantiate({"model": {"_target_": f"{__name__}.Part", **arguments}}).model


def test_value_errors_of_targets_are_unwrapped():
    with pytest.raises(InputError, match=r"^model\.size=0: is too small; allowed: 1 or more$"):
        build(size=0)


def test_unknown_arguments_name_their_key():
    with pytest.raises(InputError, match=r"^model\.sizes: unknown key"):
        build(size=1, sizes=2)


def test_target_that_cannot_be_called_is_wrong_input():
    with (
        pytest.raises(InputError, match=r"^model\._target_: is the value 3 of type int; allowed: a class or"),
        building(),
    ):
        instantiate({"model": {"_target_": f"{__name__}.THREE"}})


def test_target_that_hydra_refuses_is_wrong_input():
    with pytest.raises(InputError, match=r"^model\._target_=os\.system: can run any command; allowed: "), building():
        instantiate({"model": {"_target_": "os.system", "command": "true"}})


def test_defects_keep_their_traceback():
    with pytest.raises(InstantiationException, match="a defect"):
        build(size=101)


def test_missing_files_are_wrong_input():
    with pytest.raises(InputError, match="nowhere"), building():
        open("/nowhere/at/all")  # noqa: SIM115


def too_much(*, kind: str) -> None:
    if kind == "numpy":
        raise MemoryError("Unable to allocate 60 GiB for an array")
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: 9 bytes.\nframe #0"
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [("numpy", "Unable to allocate 60 GiB for an array"), ("torch", "can't allocate memory: 9 bytes.")],
)
def test_memory_that_is_not_there_is_wrong_input(kind: str, told: str):
    with pytest.raises(InputError) as error, building():
        instantiate({"dataset": {"_target_": f"{__name__}.too_much", "kind": kind}})
    assert str(error.value) == f"dataset: asks for more memory than there is ({told}); allowed: less of it"


def test_long_values_and_control_characters_are_tamed():
    assert shown("x" * 5000) == f"{'x' * 1000}... (5000 letters)"
    assert str(InputError("a\x1b[31m\x07b\x9bc")) == r"a\x1b[31m\x07b\x9bc"
