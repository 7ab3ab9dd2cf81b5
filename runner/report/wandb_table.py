"""An experiment in Weights & Biases: after its sweep the paper's table and the claims, as a run of the jobs' group.

The evaluation is that of `dcreport`. As runs are, it is offline unless `logger.mode=online`.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.run_folder.wandb_run import begin, group_of

log = logging.getLogger("dcrun")

_CELLS = ("setting", "row", "column", "measured", "spread", "seeds", "seeds_without", "published", "difference")
_CLAIMS = ("setting", "claim", "words", "source", "verdict", "because")


def write(config: DictConfig, sweep: Path, folders: Iterable[Path]) -> Path | None:
    """Log what an experiment's runs say, those of earlier sweeps included.

    Args:
        config: what the command line composes to, Hydra's part included.
        sweep: the sweep's folder; wandb's files go to `wandb/` in it.
        folders: the run folders of the sweep's jobs.

    Returns:
        the folder of wandb's run; None if there is nothing to log, or if something failed, which a warning says.
    """
    experiment = config.hydra.runtime.choices.get("experiment")
    if experiment is None or config.logger.kind != "wandb" or config.logger.mode == "disabled":
        return None
    try:
        # The sweep's parent: an experiment is often run in parts, and its table needs the earlier ones.
        tables = evaluated(str(experiment), sweep.parent, {folder.resolve() for folder in folders})
    except InputError as error:
        # The jobs are done: a broken archive that lies among their outputs must not make the sweep fail.
        log.warning("no table in wandb: %s", error)
        return None
    if not tables:
        return None
    sweep.mkdir(parents=True, exist_ok=True)
    try:
        run = begin(
            sweep,
            mode=config.logger.mode,
            project=config.logger.project,
            group=group_of(config, sweep),
            job_type="report",
            name=f"{experiment} {config.scale}",
            config={"experiment": experiment, "scale": config.scale},
        )
        # Loaded by `begin` already; at the top it would slow down every command, with and without wandb.
        import wandb

        run.log({name: wandb.Table(columns=list(columns), data=rows) for name, (columns, rows) in tables.items()})
        # Counted into the summary, where W&B can sort and filter runs; tables cannot be searched.
        words = Counter(row[4] for name, (_, rows) in tables.items() if name.endswith("claims") for row in rows)
        run.summary.update({f"claims_{word.replace(' ', '_')}": count for word, count in words.items()})
        place = Path(run.dir).parent
        run.finish()
    except Exception as error:  # noqa: BLE001 (wandb's errors have no common base)
        log.warning("wandb failed (%s: %s); dcreport shows the table and the claims", type(error).__name__, error)
        return None
    return place


def evaluated(experiment: str, outputs: Path, folders: set[Path]) -> dict[str, tuple[Sequence[str], list[list[Any]]]]:
    """Evaluate what an experiment measures.

    Args:
        experiment: as `dc_asgd_icml2017/table1`.
        outputs: where its runs lie, those of earlier sweeps too.
        folders: run folders; a setting under which none of them ran is left out.

    Returns:
        the columns and rows of `<exhibit>/table` and, where a paper claims something, `<exhibit>/claims`.

    Raises:
        InputError: an archive of runs below `outputs` cannot be read.
    """
    # SciPy, which judges claims, takes over a second to import, and `dcrun` imports this module for every command.
    from runner.report import evidence, provenance, published
    from runner.report.collect import collect

    tables: dict[str, tuple[Sequence[str], list[list[Any]]]] = {}
    mine = [exhibit for exhibit in published.load() if experiment in exhibit.experiments]
    runs = collect([outputs]) if mine else []
    for exhibit in mine:
        cells: list[list[Any]] = []
        claims: list[list[Any]] = []
        for block in evidence.measure_exhibit(exhibit, runs):
            # Resolved on both sides: the sweep's folder may be relative or behind a link.
            if folders.isdisjoint(run.folder.resolve() for run in block.runs):
                continue
            heading = provenance.heading(block)
            for cell in block.exhibit.cells:
                if (found := block.cells.get(cell.id)) is not None:
                    seeds = len(found.values), len(found.lacking)
                    values = [found.mean, found.spread, *seeds, cell.published, found.difference]
                    cells.append([heading, cell.row, cell.column, *values])
            for verdict in block.verdicts:
                claim = verdict.claim
                claims.append([heading, claim.text, claim.words, claim.source, verdict.word, verdict.because])
        if cells:
            tables[f"{exhibit.name}/table"] = (_CELLS, cells)
        if claims:
            tables[f"{exhibit.name}/claims"] = (_CLAIMS, claims)
    return tables
