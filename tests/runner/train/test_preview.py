from pathlib import Path

import pytest

from runner.config.errors import InputError
from runner.train.preview import preview
from tests.trial import compose, run_in

ASKED = ("algorithm=asgd", "model=linear", "dataset.limit_train=64", "dataset.limit_test=20", "run.batch_size=8")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three workers and its trace."""
    folder = tmp_path_factory.mktemp("recorded")
    assert run_in(folder, *ASKED, "cluster.workers=3", "cluster.record=true", "run.epochs=1")[0] == 0
    return folder


def test_replay_is_estimated_as_one_process(recorded: Path, capsys: pytest.CaptureFixture):
    cfg = compose(*ASKED, "cluster.kind=replay", f"cluster.trace={recorded}", "run.estimate=true")
    assert preview(cfg) == 0
    assert "one process" in capsys.readouterr().out
    assert cfg.cluster.workers == 3


def test_replay_warms_up_for_its_workers(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    plot = ("schedule.lr=0.3", "schedule.warmup_epochs=1", f"run.plot_schedule={tmp_path / 'lr.svg'}")
    assert preview(compose(*ASKED, "cluster.kind=replay", f"cluster.trace={recorded}", *plot)) == 0
    out = capsys.readouterr().out
    assert "workers 3" in out
    assert "│     0 │           0.1 │" in out


def test_refused_replay_has_no_preview(recorded: Path):
    cfg = compose(*ASKED, "algorithm=ssgd", "cluster.kind=replay", f"cluster.trace={recorded}", "run.advise=true")
    with pytest.raises(InputError, match=r"^algorithm=ssgd: has no parameter server"):
        preview(cfg)


@pytest.mark.parametrize(("rank", "said"), [(0, True), (1, False)])
def test_one_rank_under_torchrun_speaks(
    rank: int, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    started = {"RANK": rank, "WORLD_SIZE": 3, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in started.items():
        monkeypatch.setenv(name, str(value))
    assert preview(compose(*ASKED, "cluster=processes", "run.estimate=true")) == 0
    assert ("2 processes, each with" in capsys.readouterr().out) is said
