"""Loads given weights into a network: `model.weights=RUN|FILE`."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from runner.config.errors import InputError
from runner.config.paths import expanded
from runner.run_folder.weights import FILE

KEY = "model.weights"
_ALLOWED = "a run folder, a .safetensors file, or a state dict that torch.save wrote"
_WRAPPED = ("state_dict", "model")  # keys under which training scripts keep the state dict
_COUNTS = "num_batches_tracked"  # of batch norm: used by nothing here, and missing in many files
_SHOWN = 3


def load(module: nn.Module, place: str) -> None:
    """Load a state dict into a network, running statistics too.

    Args:
        module: on the CPU.
        place: a run folder or a file, as the user typed it.

    Raises:
        InputError: there is no such file, it is damaged, or its tensors are not those of the network.
    """
    state = read(place)
    own = module.state_dict()
    _check_names(place, own, state)
    for name, tensor in own.items():
        if name in state:
            if state[name].shape != tensor.shape:
                what = f"{name} has shape {tuple(state[name].shape)}, and the network's {tuple(tensor.shape)}"
                raise InputError.of(KEY, place, what, "weights of the same network")
            # In place: these are the network's own tensors.
            tensor.copy_(state[name])


def read(place: str) -> dict[str, Tensor]:
    """Return the tensors by name that a run folder or a file holds.

    Raises:
        InputError: there is no such file, or it holds no state dict.
    """
    path = expanded(place, KEY)
    if path.is_dir():
        path = path / FILE
        if not path.is_file():
            raise InputError.of(KEY, place, f"has no {FILE}, which a run writes at its end", _ALLOWED)
    elif not path.is_file():
        raise InputError.of(KEY, place, "no such file or folder", _ALLOWED)
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except pickle.UnpicklingError as error:
        # PyTorch's own text advises to load it with weights_only=False, which runs whatever code the file holds.
        raise InputError.of(
            KEY, place, "cannot be read (it holds more than tensors, or is damaged)", _ALLOWED
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        # An empty file has an error without words.
        told = next(iter(str(error).splitlines()), "it is empty, or ends too early")
        raise InputError.of(KEY, place, f"cannot be read ({told})", _ALLOWED) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    # Tensors alone: a pickle could run any code.
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in _WRAPPED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no state dict, a tensor for each name")
    return dict(state)


def _check_names(place: str, own: Iterable[str], state: Iterable[str]) -> None:
    lacking = [name for name in own if name not in set(state) and not name.endswith(_COUNTS)]
    unknown = [name for name in state if name not in set(own) and not name.endswith(_COUNTS)]
    if lacking or unknown:
        what = [f"lacks {_some(lacking)}"] if lacking else []
        what += [f"has {_some(unknown)}, which the network does not have"] if unknown else []
        raise InputError.of(KEY, place, " and ".join(what), "weights of the same network")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
