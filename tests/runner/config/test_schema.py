import pytest
from omegaconf import OmegaConf

from runner.cli.compose import CONF, composer
from runner.config import schema

OPTIONS = sorted(
    (group.name, str(path.relative_to(group).with_suffix("")))
    for group in CONF.iterdir()
    if group.is_dir() and group.name not in ("hydra", "__pycache__")
    for path in group.rglob("*.yaml")
)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_is_valid(group: str, option: str):
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    if group == "experiment":
        pytest.skip("experiments are composed by their own tests")
    with composer() as compose:
        needed = ["cluster.trace=outputs/recorded"] if option == "replay" else []
        cfg = compose.one([f"{group}={option}", *needed])
    assert cfg.hydra.runtime.choices[group] == option


def test_yaml_defaults_are_those_of_the_schemas():
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as compose:
        cfg = compose.one([])
    for section in ("run", "cluster", "schedule", "seed"):
        assert cfg[section] == OmegaConf.structured(schema.Config)[section], section
    # The options of this group add to each other, so the schema has none of them on.
    assert cfg.logger == {**OmegaConf.structured(schema.LoggerConfig), "kind": "wandb"}
