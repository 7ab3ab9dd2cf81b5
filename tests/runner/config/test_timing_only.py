"""What goes with the clock alone, and the lines that refuse the rest."""

import pytest

from runner.config.errors import InputError
from tests.trial import compose


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "cluster=processes",
            "cluster.kind=processes: the clock alone is that of simulated workers; allowed: simulated",
        ),
        ("cluster.record=true", "cluster.record=true: the clock alone handles no messages to record; allowed: false"),
        ("run.resume=true", "run.resume=true: the clock alone leaves no checkpoint"),
        ("run.checkpoint_every=2", "run.checkpoint_every=2: the clock alone has no weights to save; allowed: null"),
        ("run.target_loss=0.1", "run.target_loss=0.1: the clock alone has no loss; allowed: null"),
        ("run.diagnostics=[disagreement]", "run.diagnostics=[disagreement]: the clock alone has no weights to look"),
        ("run.compute_processes=2", "run.compute_processes=2: the clock alone computes no gradient; allowed: 1, auto"),
        ("run.compile=true", "run.compile=true: the clock alone computes no update; allowed: false"),
        ("run.profile=true", "run.profile=true: the clock alone has no parts to tell apart; allowed: false"),
        ("run.estimate=true", "run.estimate=true: is answered in place of a run; allowed: false"),
        ("run.advise=true", "run.advise=true: is answered in place of a run; allowed: false"),
        ("run.plot_schedule=a.png", "run.plot_schedule=a.png: is answered in place of a run; allowed: null"),
    ],
)
def test_what_would_do_nothing_is_refused(given: str, message: str):
    with pytest.raises(InputError) as caught:
        compose("run.timing_only=true", given)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("or run.timing_only=false")
    # Each goes, or is refused for another reason, where something is trained.
    if given != "run.resume=true":
        compose(given)


def test_clock_alone_takes_thousands_of_workers():
    cfg = compose("run.timing_only=true", "cluster.workers=10000", "cluster.stragglers.probability=0.1")
    assert cfg.run.timing_only
