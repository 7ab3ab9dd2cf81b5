import torch
from torch.nn import functional

from models.cnn import CNN5


def test_forward_by_hand():
    torch.manual_seed(0)
    net = CNN5(shape=(1, 28, 28), classes=10)
    state, x = net.state_dict(), torch.randn(4, 1, 28, 28)
    y = x
    for name, padding in (("conv1", 2), ("conv2", 0)):
        y = functional.conv2d(y, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=padding)
        y = functional.avg_pool2d(torch.sigmoid(y), 2)
    y = y.flatten(1)
    for name in ("hidden1", "hidden2"):
        y = torch.sigmoid(functional.linear(y, state[f"{name}.linear.weight"], state[f"{name}.linear.bias"]))
    y = functional.linear(y, state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(net(x), y)
    assert state["hidden1.linear.weight"].shape == (120, 400)


def test_it_leaves_the_loss_of_guessing():
    # What PyTorch's default initial weights do not do in dozens of epochs.
    torch.manual_seed(0)
    net = CNN5(shape=(1, 12, 12), classes=4)
    patterns = torch.randn(4, 1, 12, 12)
    targets = torch.arange(64) % 4
    inputs = patterns[targets] + 0.3 * torch.randn(64, 1, 12, 12)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(100):
        optimizer.zero_grad()
        loss = net.loss(net(inputs), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
