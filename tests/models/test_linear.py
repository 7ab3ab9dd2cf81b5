import math

import torch
from torch.nn import functional

from models.linear import Linear


def test_zero_start_makes_classes_equally_likely():
    net = Linear(shape=(2, 3), classes=4)
    assert sum(weight.numel() for weight in net.parameters()) == 6 * 4 + 4
    assert sum(weight.numel() for weight in Linear(shape=(2, 3), classes=4, bias=False).parameters()) == 6 * 4
    inputs, targets = torch.randn(5, 2, 3), torch.tensor([0, 1, 2, 3, 3])
    assert net.loss(net(inputs), targets).item() == torch.tensor(math.log(4.0)).item()


def test_gradient_is_that_of_multinomial_logistic_regression():
    torch.manual_seed(0)
    net = Linear(shape=(2, 3), classes=4).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_()
    inputs, targets = torch.randn(5, 2, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3])
    outputs = net(inputs)
    net.loss(outputs, targets).backward()
    off = (outputs.softmax(dim=1) - functional.one_hot(targets, 4)).detach()
    torch.testing.assert_close(net.get_parameter("classifier.weight").grad, off.T @ inputs.flatten(1) / 5)
    torch.testing.assert_close(net.get_parameter("classifier.bias").grad, off.mean(dim=0))
