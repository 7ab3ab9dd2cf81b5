"""Every option of conf/dataset builds what its name says, and has exactly the keys of its constructor."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from data.base import Dataset

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "dataset"
OPTIONS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config(option: str) -> DictConfig:
    loaded = OmegaConf.load(FOLDER / f"{option}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


NUMBERS = {
    "ijcnn1": {"file": "ijcnn1", "samples": 49_990, "features": 22},
    "covtype": {"file": "covtype.libsvm.binary.scale", "samples": 581_012, "features": 54},
    "rcv1": {"file": "rcv1_test.binary", "samples": 677_399, "features": 47_236},
    "covtype_shape": {"samples": 581_012, "features": 54, "density": 0.22, "skew": 3.0, "unit_norm": False},
    "rcv1_shape": {"samples": 677_399, "features": 47_236, "density": 0.0016},
}
"""What tells a problem in LIBSVM's format, or synthetic data in its shape, from any other (table 2 of Huo's thesis)."""


@pytest.mark.parametrize("option", OPTIONS)
def test_keys_and_defaults_are_the_constructors(option: str):
    values = OmegaConf.to_container(config(option))
    assert isinstance(values, dict)
    defaults_of_its_own = NUMBERS.get(option, {})
    parameters = inspect.signature(get_class(values.pop("_target_"))).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    defaults = {n: list(p.default) if isinstance(p.default, tuple) else p.default for n, p in parameters.items()}
    # As a configuration writes what has no default.
    defaults = {n: "???" if default is inspect.Parameter.empty else default for n, default in defaults.items()}
    assert values == defaults | defaults_of_its_own


READY = [option for option in OPTIONS if "root" not in config(option) and not OmegaConf.missing_keys(config(option))]
"""Those that need no file of the user's."""
SHAPES = [option for option in READY if option in NUMBERS]
EMBEDDED = [option for option in READY if option not in NUMBERS]


@pytest.mark.parametrize("option", EMBEDDED)
def test_embedded_ones_build(option: str):
    data = instantiate(config(option))
    assert isinstance(data, Dataset)
    assert data.name == option


@pytest.mark.parametrize("option", SHAPES)
def test_shapes_build_with_fewer_samples(option: str):
    data = instantiate(config(option), samples=1000)
    assert data.shape == (NUMBERS[option]["features"],)
    assert (data.train.nbytes < 4 * 1000 * 47_236) and len(data.train) == 1000


@pytest.mark.parametrize("option", sorted(set(OPTIONS) - set(EMBEDDED) - set(SHAPES) - {"own"}))
def test_others_say_what_they_miss(option: str, tmp_path: Path):
    values = config(option)
    values.root = str(tmp_path / "nowhere")
    with pytest.raises(Exception, match=r"dataset.root=.*nowhere: .*expected: ") as error:
        instantiate(values)
    assert isinstance(error.value.__cause__ or error.value, FileNotFoundError)


def test_lists_from_a_config_are_taken():
    values = config("synthetic")
    values.shape = [22]
    assert instantiate(values).shape == (22,)
