import pytest

from algorithms.partition import partition
from models.resnet import ResNet


def sizes(blocks: int, workers: int) -> list[int]:
    chain = [(f"b{i}", 1) for i in range(blocks)] + [("classifier", 1)]
    return [high - low for low, high in partition(chain, workers, None)]


@pytest.mark.parametrize(
    ("units", "workers", "expected"),
    [(58, 2, [29, 29]), (58, 4, [15, 15, 15, 13]), (85, 4, [22, 22, 22, 19]), (35, 4, [9, 9, 9, 8]), (52, 4, [13] * 4)],
)
def test_units_split_like_the_authors(units: int, workers: int, expected: list[int]):
    expected = [*expected[:-1], expected[-1] + 1]  # the classifier joins the last
    assert sizes(units, workers) == expected


def test_resnet110_has_58_units():
    names = ResNet(shape=(3, 8, 8), classes=10, depth=110).block_names
    assert len(names) == 58 + 1


def test_short_chain_gives_each_module_weights():
    chain = [("flatten", 0), ("hidden", 5), ("relu", 0), ("classifier", 3)]
    assert partition(chain, 2, None) == [(0, 2), (2, 4)]
    assert partition(chain[:2] + chain[3:], 2, None) == [(0, 2), (2, 3)]


@pytest.mark.parametrize(
    ("workers", "split", "message"),
    [
        (3, None, r"^cluster\.workers=3: .*; allowed: 1 to 2$"),
        (
            2,
            ["head"],
            r"^algorithm\.split=\[head\]: no module can begin at head; allowed: 1 of hidden, relu, classifier",
        ),
        (2, ["flatten"], r"^algorithm\.split=\[flatten\]: no module can begin"),
        (2, ["hidden", "relu"], r"^algorithm\.split=\[hidden,relu\]: makes 3 modules"),
        (2, ["hidden"], r"leaves a module without weights"),
    ],
)
def test_unfit_split_is_refused(workers: int, split: list[str] | None, message: str):
    chain = [("flatten", 0), ("hidden", 5), ("relu", 0), ("classifier", 3)]
    with pytest.raises(ValueError, match=message):
        partition(chain, workers, split)


@pytest.mark.parametrize("split", ["cb", "bb"])
def test_split_out_of_order_is_refused(split: str):
    with pytest.raises(ValueError, match=rf"^algorithm\.split=\[{','.join(split)}\]: is not in the order"):
        partition([(name, 1) for name in "abc"], 3, list(split))
