from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from runner.cli import completion, main
from runner.cli.compose import CONF, composer
from runner.config import schema

Offered = Callable[[str], set[str]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    def complete(line: str) -> set[str]:
        # `install` is for a process that ends when it has answered.
        for name in ("_get_matches", "_query"):
            monkeypatch.setattr(completion.CompletionPlugin, name, completion.CompletionPlugin.__dict__[name])
        monkeypatch.setenv("COMP_LINE", f"dcrun {line}")
        assert main.main(["--shell-completion", "query=bash"]) == 0
        return {text.partition(".")[2].rstrip("=.") for text in capsys.readouterr().out.split()}

    return complete


def test_a_schedule_offers_its_own_keys(offered: Offered):
    common = {"kind", "lr", "base_batch", "warmup_epochs", "warmup_from"}
    assert offered("schedule.") == common
    assert offered("schedule=multistep schedule.") == common | {"milestones", "gamma"}
    assert offered("schedule=one_cycle schedule.ri") == {"rise"}


def test_a_cluster_offers_its_own_keys(offered: Offered):
    assert offered("cluster=replay cluster.") == {"kind", "trace", "workers"}
    assert "trace" not in offered("cluster=processes cluster.")
    assert "compute.delays" in offered("cluster.compute.")
    assert "compute.delays" not in offered("cluster=processes cluster.compute.")


def test_a_logger_offers_its_own_keys(offered: Offered):
    assert offered("logger=none logger.") == set()
    assert offered("logger.") == {"mode", "project", "group"}


def test_a_swept_group_offers_keys_of_its_options(offered: Offered):
    found = offered("-m model=mlp,linear algorithm=asgd,dasgd algorithm.")
    assert {"staleness", "tau", "delay", "weight_decay"} <= found
    assert "lambda0" not in found, "a key of the default method, which is none of these"


@pytest.mark.parametrize("group", ["schedule", "cluster", "logger"])
def test_what_an_options_file_sets_is_offered(group: str):
    schema.register()
    set_by_itself = {"kind", "csv", "tensorboard", "mlflow"}
    for file in sorted((CONF / group).glob("*.yaml")):
        own = set(OmegaConf.load(file))
        with composer() as compose:
            cfg = compose.one([f"{group}={file.stem}", *(["cluster.trace=a"] if file.stem == "replay" else [])])
        refused = {key.partition(".")[2] for key in completion.lacking(cfg) if key.startswith(f"{group}.")}
        assert not own & refused - set_by_itself, file
