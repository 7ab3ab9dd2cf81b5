"""The same as Markdown: tables and figures to be kept beside the code, with hand-written remarks put in."""

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from runner.report import claims, metrics, ran
from runner.report.collect import Run
from runner.report.evidence import Block
from runner.report.page import searched, table
from runner.report.panels import Figure, Panel, figures, mean_curve
from runner.report.plots import save
from runner.report.published import Exhibit
from runner.report.settings import GROUPS, averaged, by_seed, differing, label, one_per_seed, setting, shown

_CURVES = 12
_FAMILY = (*(group for group in GROUPS if group != "algorithm"), "schedule.kind", "run.epochs", "run.batch_size")
_PANELS = 6


def write(
    path: Path,
    figures_folder: Path,
    runs: Sequence[Run],
    evidence: Sequence[tuple[Exhibit, list[Block]]],
    notes: Path | None,
) -> None:
    """Writes a Markdown file and its figures.

    Args:
        path: the file.
        figures_folder: where the figures go; referred to relative to the file.
        runs: all runs; those that no exhibit uses get a table of their own.
        evidence: the exhibits and what was measured of them.
        notes: Markdown remarks: what stands under a heading `## <paper>/<table>` goes to that exhibit, what stands
            before the first heading to the top, everything else to the end.

    Raises:
        OSError: if a file cannot be read or written.
    """
    top, remarks = _notes(notes)
    measured = [(exhibit, blocks) for exhibit, blocks in evidence if blocks]
    used = {id(run) for _, blocks in measured for block in blocks for run in block.runs}
    others = [run for run in runs if id(run) not in used]
    path.parent.mkdir(parents=True, exist_ok=True)

    def drawn(figure: Figure) -> dict[str, str]:
        file = save(figure, figures_folder)
        link = Path(os.path.relpath(file, path.parent)).as_posix()
        return {"title": f"{figure.title}: {figure.panels[0].y} against {figure.x}", "link": link}

    exhibits = []
    earlier: list[tuple[set[int], str]] = []
    for exhibit, blocks in measured:
        exhibits.append(
            {
                **asdict(exhibit),
                "id": exhibit.id,
                "remark": remarks.pop(exhibit.id, ""),
                "blocks": [_block(block, [drawn(figure) for figure in figures(block)], earlier) for block in blocks],
            }
        )
    environment = Environment(loader=PackageLoader("runner.report"), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"md": literal, "fenced": fenced}
    text = environment.get_template("results.md.j2").render(
        top=top,
        exhibits=exhibits,
        words=claims.WORDS,
        others=_others(others),
        searches=searched(runs, evidence),
        curves=[drawn(figure) for figure in _overlaid(others)],
        remarks=remarks,
        commands=ran.commands([run for run in others if run.status != "broken"]),
        facts=ran.facts(others) if others else [],
        quick=any(block["scale"] == "quick" for exhibit in exhibits for block in exhibit["blocks"]),
        broken=[(run.name, "; ".join(run.problems)) for run in runs if run.status == "broken"],
    )
    path.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")


def literal(text: object) -> str:
    """Text as it is, whatever Markdown would make of it."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(escaped.split()))


def fenced(text: str) -> str:
    """A line inside a fence, which it cannot end."""
    return " ".join(text.split()).replace("```", "` ` `")


def _block(block: Block, drawn: list[dict[str, str]], earlier: list[tuple[set[int], str]]) -> dict[str, Any]:
    mine = {id(run) for run in block.runs}
    same_as = next((title for runs, title in earlier if mine <= runs), "")
    earlier.append((mine, f"{block.exhibit.title} ({block.exhibit.source})"))
    told = [v for v in block.verdicts if v.word != "not measured"]
    return {
        "same_as": same_as,
        "orders": [] if drawn else block.orders(),
        "untold": len(block.verdicts) - len(told),
        "counts": claims.counted(block.verdicts),
        "heading": ran.heading(block),
        "scale": block.scale,
        "table": table(block),
        "figures": drawn,
        "verdicts": [(v.claim.words, v.claim.text, v.claim.source, v.word, v.because) for v in told],
        "facts": ran.facts(block.runs),
        "deviations": block.deviations,
        "tuned": block.tuned,
        "commands": ran.commands(block.runs),
    }


def _others(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Tables of runs, one for each group that shares its data, schedule and length.

    Every setting in which any of the runs differ is told: above a table if all of its runs share it, else beside each.
    """
    known = [run for run in runs if run.status != "broken"]
    among_all = _settings_apart(known)
    families: dict[str, list[Run]] = {}
    for run in known:
        own = setting(run)
        kept = {key: value for key, value in own.items() if key in _FAMILY or key.startswith("dataset.")}
        families.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    tables = []
    for family in families.values():
        inside = _settings_apart(family)
        # A method's own key stands for the methods that have it.
        every = {key: value for run in family for key, value in setting(run).items() if value is not None}
        shared = [key for key in among_all if key not in inside and key in every]
        tables.append(
            {
                "title": f"{family[0].value('model')} on {family[0].value('dataset')}, {family[0].value('cluster')}",
                "shared": ", ".join(f"{key}={shown(every[key])}" for key in shared),
                "differ": bool(inside),
                "rows": [_row(group, inside) for group in by_seed(family)],
            }
        )
    return tables


def _settings_apart(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs differ, but for those that a run's name and its table's title tell."""
    return [key for key in differing(runs) if key not in (*GROUPS, "cluster.workers", "cluster.kind")]


def _row(group: Sequence[Run], inside: Sequence[str]) -> dict[str, str]:
    own = setting(group[0])
    runs = averaged(group)
    told = dict.fromkeys(run.status for run in runs)
    seeds = {run.seed for run in runs}
    stopped = [run for run in one_per_seed(group) if run.seed not in seeds]
    left_out = [f"left out: seed {run.seed} {run.status}" for run in stopped]
    return {
        "name": label(group[0], ()),
        "apart": ", ".join(f"{key}={shown(own[key])}" for key in inside if key in own),
        "seeds": ", ".join(map(str, sorted(seed for seed in seeds if seed is not None))),
        "status": ", ".join([*told, *left_out]),
        **{key: _mean(runs, key) for key in ("epochs", "final_test_error", "best_test_error", "seconds")},
        "clock": str(runs[0].summary.get("clock") or ""),
    }


def _mean(runs: Sequence[Run], metric: str) -> str:
    values = [value for run in runs if (value := run.number(metric)) is not None]
    if not values:
        return "–"
    if metric == "epochs":
        return f"{max(values):g}"
    spread = f" ± {metrics.text(metric, statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{metrics.text(metric, statistics.fmean(values))}{spread}{metrics.share(len(values), len(runs))}"


def _overlaid(runs: Sequence[Run]) -> list[Figure]:
    """Test error of the other runs, a panel for each dataset and model."""
    panels: dict[str, Panel] = {}
    known = [run for run in runs if run.rows]
    apart = [key for key in differing(known) if key not in ("model", "dataset")]
    for group in by_seed(known):
        title = f"{group[0].value('model')} on {group[0].value('dataset')}"
        panel = panels.setdefault(title, Panel(title, metrics.name("test_error"), []))
        curve = mean_curve(group, "epoch", "test_error", label(group[0], apart), len(panel.curves))
        if curve.x and len(panel.curves) < _CURVES:
            panel.curves.append(curve)
    filled = [panel for panel in panels.values() if panel.curves]
    return [
        Figure(f"runs-{number}", panel.title, metrics.name("epoch"), [panel])
        for number, panel in enumerate(filled[:_PANELS], start=1)
    ]


def _notes(path: Path | None) -> tuple[str, dict[str, str]]:
    if path is None:
        return "", {}
    top, *sections = re.split(r"^## +", path.read_text(encoding="utf-8"), flags=re.M)
    parts = (section.partition("\n") for section in sections)
    return re.sub(r"^# .*\n", "", top).strip(), {title.strip(): text.strip() for title, _, text in parts}
