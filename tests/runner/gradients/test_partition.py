import pytest
import torch
from torch import nn

from data.digits import Digits
from data.text import Text
from models.base import Chain
from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet
from runner.config.errors import InputError
from runner.config.seeds import derive
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition, blocks_that_share
from runner.gradients.replica import Replica

DIGITS = Digits(limit_train=8, limit_test=4)


def partition(module: nn.Module, workers: int, split: list[str] | None = None) -> Partition:
    oracle = NetworkOracle(Replica(module), DIGITS.train, seed=5)
    return Partition(oracle, workers, split, (1, 8, 8), 10)


def test_pieces_cover_weights_and_statistics():
    cut = partition(ResNet(depth=8, shape=(1, 8, 8), classes=10), 3)
    replica = cut.oracle.replica
    for low, high, total in ((0, 1, replica.weights.numel()), (2, 3, replica.statistics.numel())):
        ends = [(piece[low], piece[high]) for piece in cut.pieces]
        assert ends[0][0] == 0
        assert ends[-1][1] == total
        assert [end for _, end in ends[:-1]] == [begin for begin, _ in ends[1:]]
    assert sum(stage.running.numel() for stage in cut.stages) == replica.statistics.numel()


def test_stage_weights_are_views_of_the_replica():
    cut = partition(MLP(shape=(1, 8, 8), classes=10, widths=[7]), 2)
    named = dict(cut.oracle.replica.named_weights(cut.oracle.replica.weights))
    cut.stages[1].weights.fill_(3)
    assert all(bool((tensor == 3).all()) == name.startswith("classifier") for name, tensor in named.items())


def test_shares_are_those_of_multiply_adds():
    cut = partition(MLP(shape=(1, 8, 8), classes=10, widths=[32, 16]), 3)
    work = [64 * 32, 32 * 16, 16 * 10]
    assert cut.work_shares == pytest.approx([amount / sum(work) for amount in work])
    assert cut.outputs == [(32,), (16,), (10,)]


def test_messages_have_the_features_bytes():
    cut = partition(ResNet(depth=8, shape=(1, 8, 8), classes=10), 2)
    features = torch.zeros(5, 1, 8, 8)
    for block in cut.stages[0].blocks:
        features = block.eval()(features)
    assert cut.nbytes(0, 5) == features.numel() * features.element_size()


def test_modules_are_told_where_they_are():
    cut = partition(MLP(shape=(1, 8, 8), classes=10, widths=[32]), 2)
    assert cut.stage_info(1) == (1, 2, (10,), 10, derive(5, "pipeline", 1))
    assert cut.stage_info(0).seed != cut.stage_info(1).seed


def test_split_names_where_modules_begin():
    cut = partition(MLP(shape=(1, 8, 8), classes=10, widths=[8, 8]), 2, ["classifier"])
    assert [len(stage.weights) for stage in cut.stages] == [64 * 8 + 8 + 8 * 8 + 8, 8 * 10 + 10]


def test_short_chains_are_refused():
    with pytest.raises(InputError, match=r"^cluster.workers=3: .*allowed: 1 to 2"):
        partition(MLP(shape=(1, 8, 8), classes=10, widths=[8]), 3)


def test_networks_without_blocks_are_refused():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

    assert not issubclass(Plain, Chain)
    with pytest.raises(InputError, match=r"^model=Plain: is not a chain of blocks; allowed: "):
        partition(Plain(), 2)


def test_blocks_that_share_a_weight_are_found():
    assert blocks_that_share(GPT(shape=(6,), classes=5, width=8, tied=True)) == ("embedding", "head")
    assert blocks_that_share(GPT(shape=(6,), classes=5, width=8)) is None


def test_tokens_go_into_the_first_module():
    oracle = NetworkOracle(Replica(GPT(shape=(6,), classes=5, width=8)), Text(context=6).train, seed=5)
    cut = Partition(oracle, 3, ["layers.1", "head"], (6,), 5)
    assert cut.outputs == [(6, 8), (6, 8), (6, 5)]
