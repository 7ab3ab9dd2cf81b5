"""What every option of conf/model must do: its parameter count, one step, cuts between blocks, `functional_call`."""

import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call

from models.base import Chain

CONFIGS = Path(__file__).resolve().parents[2] / "conf" / "model"
COUNTS = {
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet164": 2_602_906,
    "resnet8_nobn": 74_810,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "vgg11_bn": 9_231_114,
    "vgg16_bn": 14_728_266,
    "densenet121": 6_956_298,
    "googlenet": 6_166_250,
    "mobilenet_v2": 2_296_922,
    "resnext29": 9_128_778,
    "dpn92": 34_236_634,
}
IMAGENET = {
    "imagenet_resnet18": 11_689_512,
    "imagenet_resnet50": 25_557_032,
    "imagenet_densenet121": 7_978_856,
    "imagenet_mobilenet_v2": 3_504_872,
}
MNIST = {"cnn5": 61_706, "fcn5": 400_906}
TOKENS = {"gpt": 108_800}
SLOW = {
    *("resnet50", "resnet101", "resnet110", "resnet152", "resnet164", "dpn92"),
    *("imagenet_densenet121", "imagenet_mobilenet_v2"),
}
LONG = ("vgg16_bn", "resnext29", "densenet121", "googlenet")
"""Networks whose step takes seconds; `test_other_channels_sizes_and_classes` runs them too."""
FAMILIES = [
    *("resnet8", "resnet8_nobn", "resnet18", "resnext29", "vgg11_bn", "densenet121", "googlenet", "mobilenet_v2"),
    *("cnn5", "imagenet_resnet18", "imagenet_densenet121", "imagenet_mobilenet_v2"),
]


def build(option: str, shape: tuple[int, ...], classes: int = 10) -> Chain:
    return instantiate(OmegaConf.load(CONFIGS / f"{option}.yaml"), shape=shape, classes=classes)


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def step(net: Chain, inputs: Tensor, targets: Tensor) -> Tensor:
    torch.manual_seed(1)  # of dropout
    outputs = net.train()(inputs)
    net.loss(outputs, targets).backward()
    return outputs.detach()


@pytest.mark.parametrize("option", [*COUNTS, *IMAGENET, *MNIST, *TOKENS])
def test_parameter_count(option: str):
    shape, classes, count = (3, 32, 32), 10, COUNTS.get(option)
    if option in IMAGENET:
        shape, classes, count = (3, 224, 224), 1000, IMAGENET[option]
    elif option in MNIST:
        shape, count = (1, 28, 28), MNIST[option]
    elif option in TOKENS:
        shape, classes, count = (64,), 36, TOKENS[option]
    with torch.device("meta"):
        assert parameters(build(option, shape, classes)) == count
    assert f"{count:,} parameters" in (CONFIGS / f"{option}.yaml").read_text()


def test_every_config_is_counted():
    options = {path.stem for path in CONFIGS.glob("*.yaml")}
    others = {"mlp", "linear", "ridge", "logistic", "smoothed_hinge", "pca_step", "own"}
    assert options - others <= set(COUNTS) | set(IMAGENET) | set(MNIST) | set(TOKENS)


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(o, marks=pytest.mark.slow if o in (*SLOW, *LONG) else ())
        for o in [*COUNTS, *IMAGENET, *MNIST, *TOKENS]
    ],
)
def test_step_cut_between_blocks_matches_whole(option: str):
    torch.manual_seed(0)
    shape = (1, 28, 28) if option in MNIST else (3, 64, 64) if option in IMAGENET else (3, 32, 32)
    net = build(option, (5,) if option in TOKENS else shape).double()
    net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if option in TOKENS:
        inputs, targets = torch.randint(10, (2, 5)), torch.randint(10, (2, 5))
    else:
        inputs = torch.randn(2, *shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
        targets = torch.tensor([3, 7])
    outputs = step(net, inputs, targets)
    assert outputs.shape == (*targets.shape, 10)
    gradients = {}
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.dim() < 2 or weight.grad.any(), name
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] > 1:
            assert weight.is_contiguous(memory_format=torch.channels_last), name
        gradients[name], weight.grad = weight.grad, None

    torch.manual_seed(1)
    cuts = []
    x = inputs
    for name, block in net.blocks():
        leaf = x.detach().requires_grad_(x.is_floating_point())
        before = leaf.detach().clone()
        x = block(leaf)
        assert torch.equal(leaf.detach(), before), f"{name} changes its input"
        cuts.append((name, leaf, x))
    torch.testing.assert_close(x.detach(), outputs)
    (gradient,) = torch.autograd.grad(net.loss(x, targets), x, retain_graph=True)
    for name, leaf, out in reversed(cuts):
        out.backward(gradient)
        # Token numbers have none.
        assert (leaf.grad is not None) == leaf.is_floating_point(), name
        gradient = leaf.grad
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        # What the next batch norm takes out again, as a bias, has a gradient that is nothing but rounding.
        off = (weight.grad - gradients[name]).norm() / (gradients[name].norm() + 1e-6)
        assert off < 1e-5, name


@pytest.mark.parametrize("option", [*FAMILIES, "fcn5"])
def test_functional_call_uses_given_weights(option: str):
    torch.manual_seed(0)
    shape = (1, 28, 28) if option in MNIST else (3, 32, 32)
    net = build(option, shape).eval()
    inputs = torch.randn(2, *shape)
    own = [weight.detach().clone() for weight in net.parameters()]
    others = {name: weight.detach() * 1.5 for name, weight in net.named_parameters()}
    with torch.no_grad():
        called = functional_call(net, others, (inputs,))
        assert all(torch.equal(weight, old) for weight, old in zip(net.parameters(), own, strict=True))
        for name, weight in net.named_parameters():
            weight.copy_(others[name])
        torch.testing.assert_close(called, net(inputs))


@pytest.mark.parametrize("option", FAMILIES)
def test_other_channels_sizes_and_classes(option: str):
    smallest = int(re.findall(r"at least (\d+)x", (CONFIGS / f"{option}.yaml").read_text())[0])
    for shape in ((1, smallest, smallest), (4, smallest + 5, smallest + 18)):
        torch.manual_seed(0)
        net = build(option, shape, classes=7)
        outputs = step(net, torch.randn(3, *shape), torch.tensor([0, 1, 6]))
        assert outputs.shape == (3, 7)
        assert outputs.isfinite().all()


@pytest.mark.parametrize("option", sorted({*COUNTS, *IMAGENET, *MNIST} - {"fcn5"}))
def test_shapes_that_do_not_fit_are_refused(option: str):
    smallest = int(re.findall(r"at least (\d+)x", (CONFIGS / f"{option}.yaml").read_text())[0])
    for shape in ((22,), (3, smallest - 1, 99), (3, 99, smallest - 1), (99, 99)):
        with pytest.raises(Exception) as caught, torch.device("meta"):
            build(option, shape)
        message = str(caught.value.__cause__ or caught.value)
        assert message == (
            f"model={option}: cannot take inputs of shape {shape}; "
            f"allowed: images (channels, height, width) of at least {smallest}x{smallest}"
        )


def test_initial_weights_follow_the_seed_alone():
    for option in ("googlenet", "vgg11_bn", "imagenet_mobilenet_v2"):
        first, again, other = (
            torch.nn.utils.parameters_to_vector(_seeded(option, seed).parameters()) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def _seeded(option: str, seed: int) -> Chain:
    torch.manual_seed(seed)
    return build(option, (3, 32, 32))
