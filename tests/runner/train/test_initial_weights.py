from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from runner.config.errors import InputError
from runner.train.initial_weights import load


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def trained() -> dict[str, Any]:
    """State of a network after a step, whose running statistics are others than a new one's."""
    net = network()
    net.train()(torch.randn(4, 3))
    return net.state_dict()


@pytest.mark.parametrize("form", ["run", "safetensors", "state dict", "wrapped"])
def test_given_weights_are_loaded(form: str, trained: dict[str, Any], tmp_path: Path):
    place = tmp_path / {"run": "weights.safetensors", "safetensors": "w.safetensors"}.get(form, "w.pt")
    if place.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in trained.items()}, place)
    else:
        torch.save({"state_dict": trained, "epoch": 3} if form == "wrapped" else trained, place)
    net = network()
    load(net, str(tmp_path if form == "run" else place))
    assert all(torch.equal(value, trained[name]) for name, value in net.state_dict().items())


def test_counts_of_batches_may_be_missing(trained: dict[str, Any], tmp_path: Path):
    del trained["1.num_batches_tracked"]
    torch.save(trained, tmp_path / "w.pt")
    net = network()
    load(net, str(tmp_path / "w.pt"))
    assert torch.equal(net[1].running_mean, trained["1.running_mean"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"0.bias": None}, "lacks 0.bias; allowed: weights of the same network"),
        ({"more": torch.ones(1)}, "has more, which the network does not have; "),
        ({"0.weight": torch.ones(5, 3)}, "0.weight has shape (5, 3), and the network's (2, 3); "),
        ({f"x{n}": torch.ones(1) for n in range(5)}, "has x0, x1, x2 and 2 more, which the network"),
    ],
)
def test_mismatch_is_one_line(change: dict[str, Any], wrong: str, trained: dict[str, Any], tmp_path: Path):
    state = {name: value for name, value in (trained | change).items() if value is not None}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError) as refused:
        load(network(), str(tmp_path / "w.pt"))
    assert str(refused.value).startswith(f"model.weights={tmp_path / 'w.pt'}: {wrong}")


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("nowhere", None, "no such file or folder; allowed: a run folder, a .safetensors file, or a state dict"),
        ("", None, "has no weights.safetensors, which a run writes at its end"),
        ("damaged.safetensors", b"x" * 20, "cannot be read ("),
        ("damaged.pt", b"x" * 20, "cannot be read (it holds more than tensors, or is damaged); allowed: "),
        ("empty.pt", b"", "cannot be read (it is empty, or ends too early); allowed: "),
        ("code.pt", Path, "cannot be read (it holds more than tensors, or is damaged); allowed: "),
        ("list.pt", [1, 2], "cannot be read (it holds no state dict"),
    ],
)
def test_unreadable_weights_are_one_line(name: str, content: Any, wrong: str, tmp_path: Path):
    place = tmp_path / name
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif content is not None:
        torch.save(content, place)
    with pytest.raises(InputError) as refused:
        load(network(), str(place))
    assert str(refused.value).startswith(f"model.weights={place}: {wrong}")
    assert "\n" not in str(refused.value)
