"""docs/short.md names experiments that exist and have the scale that it is about."""

import re
from pathlib import Path

from tests.experiments import EXPERIMENTS, scales

PAGE = Path(__file__).resolve().parents[2] / "docs" / "short.md"


def test_commands_of_short_scale_are_of_experiments() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"experiment=([a-z]\w+/\w+)", text))
    # "…/figure11" after a command is of the same paper.
    for line in text.splitlines():
        if paper := re.search(r"experiment=(\w+)/", line):
            named |= {f"{paper[1]}/{other}" for other in re.findall(r"…/(\w+)", line)}
    assert len(named) > 10
    assert named <= set(EXPERIMENTS)
    assert all("short" in scales(experiment) for experiment in named)
