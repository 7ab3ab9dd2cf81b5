"""What a message must be: the fields that its method declared, each a flat vector of the declared length and type.

A simulation hands tensors on as they are. On processes they travel in buffers of the declared sizes, where a field that
nobody declared has no place and one of another type would be rounded. So both hold every message against its layout:
what one of them refuses the other refuses too, in the same words, and what a simulation computes processes compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.base import Collective, Fields, Message, Stateful, field_of
from runner.config.errors import InputError


def check_message(
    method: object, what: str, message: Message, declared: Fields, weights: torch.dtype = torch.float32
) -> Message:
    """Return a message that is as it was declared.

    Args:
        method: whose message it is; the error names its class.
        what: which one it is, as "push".
        message: named tensors.
        declared: the fields that it must have.
        weights: type of the weights.

    Raises:
        InputError: a field is unknown, missing, or of another size or type.
    """
    if not isinstance(message, dict):
        raise _wrong(method, what, f"is {_described(message)}", "a dictionary of tensors")
    # Every message, not the first alone: a field takes less than a microsecond, and its type may change later.
    for name, tensor in message.items():
        if name not in declared:
            raise _wrong(method, what, f"field {name} is not declared", ", ".join(declared) or "no fields")
        # By identity and shape alone: the values are not looked at, for which the host would wait for a GPU.
        size, dtype = field_of(declared[name], weights)
        if not isinstance(tensor, Tensor) or tensor.dtype is not dtype or tensor.shape != (size,):
            raise _wrong(method, what, f"field {name} is {_described(tensor)}", f"{_type(dtype)} of shape [{size}]")
    if len(message) != len(declared):
        missing = next(name for name in declared if name not in message)
        raise _wrong(method, what, f"field {missing} is missing", f"all of {', '.join(declared)}")
    return message


def check_states(methods: Sequence[Stateful]) -> None:
    """Check that the states of workers with one each are alike: on processes a checkpoint gathers them by name.

    Raises:
        InputError: a tensor has another shape or type on one worker than on the first.
    """
    first = methods[0].state()
    for rank, method in enumerate(methods[1:], start=1):
        for name, tensor in method.state().items():
            if name not in first or (tensor.dtype, tensor.shape) != (first[name].dtype, first[name].shape):
                there = _described(first.get(name))
                raise _wrong(
                    method, "state", f"{name} is {_described(tensor)} on worker {rank}", f"{there}, as on worker 0"
                )


def check_averaged(method: Collective, declared: Fields) -> None:
    """Check that what a method wants averaged can be: numbers of float32, which all-reduces add up.

    Raises:
        InputError: a field is of another type.
    """
    if method.combine == "gather":
        return
    for name, given in declared.items():
        if (dtype := field_of(given).dtype) is not torch.float32:
            wrong = f"field {name} is declared {_type(dtype)}, and contributions are averaged"
            raise _wrong(method, "contribution", wrong, "float32, or combine = 'gather'")


def check_module(method: object, outputs: Sequence[Sequence[int]], call: str, rank: int, values: Tensor | None) -> None:
    """Check what a module sends a neighbour: its features to the next, an error gradient to the one before.

    Args:
        method: whose it is.
        outputs: shape of what each module makes of one sample.
        call: what returned it, "forward" or "backward".
        rank: of the module, from 0.
        values: [B, ...]; None if a backward pass has nothing to send.

    Raises:
        InputError: it has another shape, or is not float32.
    """
    edge = rank if call == "forward" else rank - 1
    # What the last module makes of a batch, and the first one's gradient of samples, goes nowhere.
    if not 0 <= edge < len(outputs) - 1 or (values is None and call == "backward"):
        return
    shape = list(outputs[edge])
    if not isinstance(values, Tensor) or values.dtype is not torch.float32 or list(values.shape[1:]) != shape:
        what = f"{'outputs' if call == 'forward' else 'error gradient'} of module {rank + 1}"
        raise _wrong(method, what, f"is {_described(values)}", f"float32 of shape [B, {', '.join(map(str, shape))}]")


def _wrong(method: object, what: str, wrong: str, allowed: str) -> InputError:
    return InputError(f"{type(method).__name__}, {what}: {wrong}; allowed: {allowed}")


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{_type(value.dtype)} of shape {list(value.shape)}"
    return "None" if value is None else f"of type {type(value).__name__}"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
