"""SHA-256 of named tensors: two runs ended with the same weights, to the bit, exactly if these are equal."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def weights_sha256(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, types, shapes and values, in the order of the names.

    Values are hashed in logical (row-major) order, so neither strides (a channels-last weight, a view of a flat vector)
    nor the device matter. Values differ if their bits differ: 0.0 and -0.0 differ.

    Args:
        tensors: as `module.named_parameters()` or a state dict; for `buffers_sha256` of a summary, as
            `module.named_buffers()`.

    Returns:
        64 hexadecimal digits. Without tensors it is the digest of an empty string.

    Raises:
        ValueError: if a name occurs twice.
    """
    # By name: the order in which a module lists its tensors does not matter.
    pairs = sorted(tensors.items() if isinstance(tensors, Mapping) else tensors, key=lambda pair: pair[0])
    digest = hashlib.sha256()
    previous = None
    for name, tensor in pairs:
        if name == previous:
            raise ValueError(f"two tensors are named {name!r}")
        previous = name
        # With type and shape: the same bytes under another shape are another model.
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        # Flatten before viewing as bytes: a 0-d tensor cannot be viewed so, and .contiguous() alone may keep odd
        # strides of axes of size 1.
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
