from itertools import zip_longest

import pytest
from omegaconf import OmegaConf

from runner.cli.compose import CONF, composer
from runner.config import schema

OPTIONS = {
    group.name: sorted(str(path.relative_to(group).with_suffix("")) for path in group.rglob("*.yaml"))
    for group in CONF.iterdir()
    # Experiments are composed by tests of their own.
    if group.is_dir() and group.name not in ("hydra", "experiment", "__pycache__")
}
"""By group, the options that it has."""
NEEDED = {
    "cluster=replay": ["cluster.trace=outputs/recorded"],
    "model=own": ["model._target_=mine.Net"],
    "dataset=own": ["dataset.train={_target_:mine.Pairs}"],
}
"""What an option cannot do without."""


@pytest.mark.parametrize(
    "chosen", list(zip_longest(*OPTIONS.values())), ids=lambda chosen: ",".join(filter(None, chosen))
)
def test_every_option_composes_and_is_valid(chosen: tuple[str | None, ...]):
    """One of each group at a time, since composing takes a quarter of a second whatever is chosen."""
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    choices = {group: option for group, option in zip(OPTIONS, chosen, strict=True) if option is not None}
    with composer() as compose:
        needed = [value for group, option in choices.items() for value in NEEDED.get(f"{group}={option}", ())]
        cfg = compose.one([*(f"{group}={option}" for group, option in choices.items()), *needed])
    assert {group: cfg.hydra.runtime.choices[group] for group in choices} == choices


def test_yaml_defaults_are_those_of_the_schemas():
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as compose:
        cfg = compose.one([])
    for section in ("run", "cluster", "schedule", "seed"):
        assert cfg[section] == OmegaConf.structured(schema.Config)[section], section
    # The options of this group add to each other, so the schema has none of them on.
    assert cfg.logger == {**OmegaConf.structured(schema.LoggerConfig), "kind": "wandb"}
