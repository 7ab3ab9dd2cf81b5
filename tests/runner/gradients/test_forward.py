from collections.abc import Iterator

import pytest
import torch

from models.mlp import MLP
from models.resnet import ResNet
from runner.gradients.forward import NetworkForward
from runner.gradients.replica import Replica

INPUTS, TARGETS = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8), torch.tensor([0, 3, 5, 9])


def forward(**given) -> NetworkForward:
    torch.manual_seed(0)
    return NetworkForward(Replica(MLP(shape=(1, 8, 8), classes=10, widths=[16])), **given)


def test_loss_and_errors_are_the_networks():
    ours = forward()
    outputs = ours.replica.module(INPUTS)
    loss, errors = ours.loss(INPUTS, TARGETS)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(outputs, TARGETS))
    assert int(errors) == int((outputs.argmax(1) != TARGETS).sum())


def test_bf16_outputs_are_float32():
    exact, rounded = forward().outputs(INPUTS), forward(precision="bf16").outputs(INPUTS)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.equal(rounded, rounded.bfloat16().float()), "computed with eight bits"


def test_images_get_the_networks_memory_order():
    torch.manual_seed(0)
    last = NetworkForward(Replica(ResNet(depth=8, shape=(3, 8, 8), classes=10), channels_last=True))
    images = torch.randn(2, 3, 8, 8)
    assert last.arranged(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.arranged(images), images)
    vectors = torch.randn(2, 5)
    assert last.arranged(vectors) is vectors


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _fail_in_float32(ours: NetworkForward, exact: torch.Tensor) -> None:
    with ours.in_float32():
        assert torch.equal(ours.outputs(INPUTS), exact)
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        raise RuntimeError("inside")


@pytest.mark.usefixtures("tf32")
def test_float32_inside_and_as_before_after():
    ours, exact = forward(precision="bf16"), forward().outputs(INPUTS)
    with pytest.raises(RuntimeError, match="inside"):
        _fail_in_float32(ours, exact)
    assert ours.precision == "bf16"
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_only_whole_batches_are_compiled(monkeypatch: pytest.MonkeyPatch):
    def compiled(function, dynamic: bool):
        assert not dynamic
        return lambda *given: ("compiled", *function(*given))

    monkeypatch.setattr(torch, "compile", compiled)
    ours = forward(compiled=4)
    assert ours.forward_for(4)(INPUTS, TARGETS)[0] == "compiled"
    assert len(ours.forward_for(3)(INPUTS[:3], TARGETS[:3])) == 2
    with ours.in_float32():
        assert len(ours.forward_for(4)(INPUTS, TARGETS)) == 2
