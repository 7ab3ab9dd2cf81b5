import re
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from models.base import Chain

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
WHOLE = [path for path in CONFIGS if not re.search(r"\?\?\?|\$\{", path.read_text())]
"""Those without a value that comes from the user or from another section."""


def on_digits(path: Path) -> Chain | str:
    """The network for images of 8×8, or what refuses them."""
    try:
        return instantiate(OmegaConf.load(path), shape=(1, 8, 8), classes=10)
    except InstantiationException as refused:
        return str(refused)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_config_builds_a_chain_for_the_dataset_or_says_what_it_takes(path: Path):
    # Where nothing is computed, and a network of any size takes no time.
    with torch.device("meta"):
        net = on_digits(path)
        if isinstance(net, str):
            assert re.search(rf"model={path.stem}: .*; allowed: ", net)
            return
        assert isinstance(net, Chain)
        assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert len({name for name, _ in net.blocks()}) == len(net.block_names)


def test_unknown_options_are_refused():
    config = OmegaConf.load(next(path for path in CONFIGS if path.stem == "mlp"))
    with pytest.raises(Exception, match="dropout"):
        instantiate(config, shape=(4,), classes=2, dropout=0.5)


def test_widths_from_a_config():
    net = instantiate(OmegaConf.create({"_target_": "models.mlp.MLP", "widths": [6, 5]}), shape=(4,), classes=2)
    assert net.state_dict()["hidden2.linear.weight"].shape == (5, 6)
