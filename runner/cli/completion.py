"""Shell completion: Hydra's own, without keys that the chosen options lack.

Hydra composes the line that is being typed and offers every key of it. The schemas of `runner.config.schema` have the
keys of all options of a group, most of which an option refuses; and of a swept group, as `algorithm=asgd,ssgd`, Hydra
composes the default option, whose keys the others need not have.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.plugins.completion_plugin import CompletionPlugin
from omegaconf import DictConfig, OmegaConf

from runner.config.schema import GROUPS, SCHEDULES

_BOTH = ("wandb", "mlflow")
_LOGGERS = {"mode": ("wandb",), "project": _BOTH, "group": _BOTH, "tracking_uri": ("mlflow",)}
"""Keys of a logger, with the loggers that have them."""

_matches, _query = CompletionPlugin._get_matches, CompletionPlugin._query


def install() -> None:
    """Have this process's completion leave out what would be refused."""
    CompletionPlugin._get_matches = staticmethod(matches)
    CompletionPlugin._query = query  # pyright: ignore[reportAttributeAccessIssue] (its first argument is named self)


def matches(config: Any, word: str) -> list[str]:
    """Return what Hydra offers to complete `word` with, as far as the options of `config` have it."""
    found = _matches(config, word)
    if not isinstance(config, DictConfig) or any(group not in config for group in GROUPS):
        return found  # a part of the configuration, which Hydra looks into by itself
    plain: Any = OmegaConf.to_container(config, resolve=False)
    refused = set(lacking(plain))
    return [match for match in found if match.rstrip("=.") not in refused]


def query(plugin: CompletionPlugin, config_name: str | None, line: str) -> list[str]:
    """Return what completes a line; of a swept group the keys that any of its options has."""
    *typed, word = line.split(" ")
    group = word.partition(".")[0]
    lines = [[]]
    for text in typed:
        key, _, value = text.partition("=")
        options = value.split(",") if key in GROUPS else [value]
        # Of other groups one option does: the word that is completed is no key of theirs.
        options = options if key == group else options[:1]
        chosen = [f"{key}={option}" for option in options] if key in GROUPS else [text]
        lines = [[*before, one] for before in lines for one in chosen]
    return sorted({found for before in lines for found in _query(plugin, config_name, " ".join([*before, word]))})


def lacking(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a composed configuration that its options refuse."""
    kind = config["schedule"]["kind"]
    own = {"milestones", "gamma"} if kind == "multistep" else set(SCHEDULES.get(kind, ()))
    for key in {"milestones", "gamma", *(key for keys in SCHEDULES.values() for key in keys)} - own:
        yield f"schedule.{key}"
    cluster = config["cluster"]["kind"]
    if cluster == "replay":
        for key in ("compute", "stragglers", "network", "record"):
            yield f"cluster.{key}"
    else:
        yield "cluster.trace"
    if cluster != "processes":
        yield from ("cluster.interface", "cluster.timeout")
    if cluster != "simulated":
        yield "cluster.compute.delays"
    logger = config["logger"]
    used = {name for name in ("csv", "tensorboard", "mlflow") if logger[name]} | {logger["kind"]}
    # Set by the options themselves, of which several can be chosen.
    for key in ("kind", "csv", "tensorboard", "mlflow"):
        yield f"logger.{key}"
    for key, needed in _LOGGERS.items():
        if not used & set(needed):
            yield f"logger.{key}"
