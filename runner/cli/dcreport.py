"""The command `dcreport`: it reads runs and writes a page, on request also Markdown and figures, or an archive.

`--watch` serves the page while runs go on, and writes nothing. `--clean` removes checkpoints of finished runs.

`dcreport outputs` writes `outputs/report.html`; `dcreport outputs --out report` writes `report/report.html`,
`report/report.md`, and figures as PNG and SVG; `dcreport docs/runs --results RESULTS.md --pages docs/results
--notes docs/notes.md --figures docs/figures` writes the project's own results; `dcreport outputs/table1 --archive
docs/runs/dc_asgd_icml2017/table1.jsonl` keeps the runs of a table as one file that can be committed. `--results`
refuses runs that no commit can repeat; `--archive FILE --committed` leaves them out.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.filesize import decimal

from runner.cli import version
from runner.cli.one_line_parser import OneLineParser
from runner.config.errors import InputError
from runner.config.output import lasting_output
from runner.report import archive, clean, evidence, provenance, published
from runner.report.collect import collect
from runner.report.run import Run

_DESCRIPTION = """\
Collects the runs below some folders into report.html, measured beside published.
With --archive it writes them into one file of JSON lines instead, which is read like the folders it was made of."""
_EXAMPLES = """\
examples:
  dcreport outputs                                           write outputs/report.html
  dcreport outputs --out report                              and Markdown and figures, in report/
  dcreport outputs/table1 --archive runs/table1.jsonl        keep the runs of a table as one file
  dcreport outputs --archive a.jsonl --committed             leave out runs that --results refuses
  dcreport runs/table1.jsonl outputs                         report on archived runs and on folders
  dcreport outputs --watch                                   show runs in a browser while they go on
  dcreport outputs --clean                                   remove checkpoints of finished runs, after a question"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says.

    Returns:
        The exit code: 0 done, 2 wrong input.
    """
    args = _parse(arguments)
    with lasting_output():
        try:
            _check(args)
            (_watch if args.watch else _clean if args.clean else _report)(args)
        except InputError as exc:
            print(f"dcreport: {exc}", file=sys.stderr)
            return 2
        except OSError as exc:
            print(f"dcreport: {exc.filename or args.paths[0]}: cannot be used: {exc.strerror}", file=sys.stderr)
            return 2
    return 0


def _watch(args: argparse.Namespace) -> None:
    """Serve the report of runs that may still go on, until somebody ends it."""
    # Plotly and the templates, as below.
    from runner.report import live_jobs, page, watch
    from runner.report.notes import Notes

    title = args.title or "Runs"

    def render() -> str:
        runs = collect(args.paths)
        found = [(exhibit, evidence.measure_exhibit(exhibit, runs)) for exhibit in published.load()]
        # Anew each time: remarks are given away once.
        remarks = page.Remarks(Notes(args.notes), Path("report.html"))
        return page.render(runs, found, title, remarks=remarks, beside=True, served=True)

    with watch.ReportServer(live_jobs.LiveJobs(args.paths), render, args.port or 0, title) as server:
        print(f"{server.address} shows the runs below {', '.join(map(str, args.paths))}; Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _clean(args: argparse.Namespace) -> None:
    """Say what checkpoints of finished runs take; remove them if the user says yes."""
    found = clean.find(args.paths)
    print(clean.described(found), flush=True)
    if not any(own.finished for own in found):
        return
    if not args.yes:
        if not sys.stdin.isatty():
            print("nothing removed; --yes removes them without a question")
            return
        if input("Remove them? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing removed")
            return
    print(f"{decimal(clean.remove(found))} removed")


def _report(args: argparse.Namespace) -> None:
    runs = collect(args.paths)
    if not runs:
        where = ", ".join(map(str, args.paths))
        raise InputError(f"{where}: holds no run folders (those have a summary.json or metrics.jsonl) and no archives")
    # Told, and still shown on the page: a run whose summary is lost may have its metrics.
    broken = [run for run in runs if run.status == "broken"]
    for run in broken[:5]:
        print(f"dcreport: {run.folder}: {'; '.join(run.problems)}", file=sys.stderr)
    if args.archive is not None:
        _archive(args.archive, [run for run in runs if run.status != "broken"], len(broken), args.committed)
        return
    if args.results is not None:
        provenance.check_committed(runs)
    # After the archive, which needs none of it: judging claims takes seconds with hundreds of runs.
    found = [(exhibit, evidence.measure_exhibit(exhibit, runs)) for exhibit in published.load()]
    if args.results is not None:
        # The import of Matplotlib takes a second, which only figures need.
        from runner.report import pages
        from runner.report.notes import Notes

        beside: Path = args.results.parent
        folder, figures = args.pages or beside / "results", args.figures or beside / "figures"
        written = pages.write(args.results, folder, figures, runs, found, Notes(args.notes))
        print(f"{len(runs)} runs -> {args.results}, {len(written)} pages in {folder}")
        return
    # Plotly and the templates, without which an archive is written.
    from runner.report import page

    first: Path = args.paths[0]
    out: Path = args.out or (first if first.is_dir() else first.parent)
    out.mkdir(parents=True, exist_ok=True)
    from runner.report.notes import Notes

    target, title = out / "report.html", args.title or "Runs"
    page.write(target, runs, found, title, notes=Notes(args.notes), beside=args.library == "beside")
    print(f"{len(runs)} runs -> {out / 'report.html'}")
    if args.out is not None:
        # Matplotlib again, for the figures beside the Markdown.
        from runner.report import markdown

        markdown.write(out / "report.md", out / "figures", runs, found, Notes(args.notes))
        # Padded, so that both arrows stand below each other.
        print(f"{' ' * len(str(len(runs)))}      -> {out / 'report.md'}, {out / 'figures'}")


def _archive(path: Path, runs: Sequence[Run], broken: int, committed: bool) -> None:
    if not runs:
        raise InputError(f"{path}: nothing to archive: no run's summary can be read")
    # By identity: a run is mutable, and has no hash.
    unclear = {id(run) for run in provenance.uncommitted(runs)}
    kept = [run for run in runs if not (committed and id(run) in unclear)]
    if not kept:
        raise InputError(f"{path}: nothing to archive: no run is of a commit; allowed: without --committed")
    archive.write(path, kept)
    left_out = f"; {broken} broken left out" if broken else ""
    if unclear:
        left_out += f"; {len(unclear)} of no commit " + ("left out" if committed else "kept, which --results refuses")
    print(f"{len(kept)} runs -> {path}{left_out}")


class _Version(argparse.Action):
    # argparse's own would ask Git for the commit whenever a parser is made.
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version.line(), flush=True)
        parser.exit()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="dcreport",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="folder with runs or archives below, as outputs; archive"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write there, and a Markdown table and figures too")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="write only the runs, into FILE.jsonl")
    parser.add_argument("--overwrite", action="store_true", help="let --archive replace a file that exists")
    parser.add_argument(
        "--committed", action="store_true", help="let --archive leave out runs whose commit is unknown or dirty"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="write only a Markdown index, pages and figures")
    parser.add_argument("--pages", type=Path, metavar="DIR", help="pages of --results (default: results beside it)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="figures of --results (default: figures beside it)")
    parser.add_argument(
        "--notes", type=Path, metavar="FILE", help="remarks in Markdown, to be put into page and Markdown"
    )
    parser.add_argument(
        "--library",
        choices=("inline", "beside"),
        help="the plot library: a part of the page (default), or a file beside it, 4.7 MB that pages can share",
    )
    parser.add_argument(
        "--watch", action="store_true", help="serve the page at this machine's loopback while runs go on, write nothing"
    )
    parser.add_argument("--port", type=int, metavar="N", help="port of --watch (default: a free one)")
    parser.add_argument(
        "--clean", action="store_true", help="say what checkpoints of finished runs take, ask, and remove them"
    )
    parser.add_argument("--yes", action="store_true", help="let --clean remove without a question")
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the versions of dcrun, PyTorch and Python")
    parser.add_argument("--title", help="the page's title (default: Runs)")
    return parser.parse_args(arguments)


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be read, would do nothing, or would destroy a file.

    Raises:
        InputError: naming the option or the path.
    """
    results, archived = args.results is not None, args.archive is not None
    served = "without --watch, which writes nothing"
    if args.clean:
        for option in ("out", "archive", "results", "pages", "figures", "notes", "library", "title", "watch"):
            if given := getattr(args, option):
                typed = f"--{option}" if given is True else f"--{option}={given}"
                raise InputError(f"{typed}: would do nothing; allowed: without --clean, which writes nothing")
    for option, given, used, allowed in (
        ("yes", args.yes or None, args.clean, "with --clean"),
        ("results", args.results, not archived, "without --archive, which writes only the runs"),
        ("overwrite", args.overwrite or None, archived, "with --archive"),
        ("committed", args.committed or None, archived, "with --archive; --results always refuses the others"),
        ("port", args.port, args.watch, "with --watch"),
        ("out", args.out, not args.watch, served),
        ("archive", args.archive, not args.watch, served),
        ("results", args.results, not args.watch, served),
        ("library", args.library, not args.watch, served),
        ("pages", args.pages, results, "with --results"),
        ("notes", args.notes, not archived, "without --archive, which writes only the runs"),
        ("library", args.library, not results and not archived, "without --results and --archive, which write no page"),
        ("figures", args.figures, results, "with --results; --out has its own"),
        ("out", args.out, not results and not archived, "without --results and --archive, which write no page"),
        ("title", args.title, not results and not archived, "without --results and --archive, which write no page"),
    ):
        if given is not None and not used:
            # A switch is typed without a value.
            given = "" if given is True else f"={given}"
            raise InputError(f"--{option}{given}: would do nothing; allowed: {allowed}")
    for path in args.paths:
        if not path.exists():
            raise InputError(f"{path}: no such folder or file; allowed: folders with runs below, as outputs; archives")
    if archived and args.archive.suffix != archive.SUFFIX:
        raise InputError(f"--archive={args.archive}: dcreport would not find it again; allowed: names ending in .jsonl")
    # An archive is often the only copy of its runs.
    if archived and args.archive.exists() and not args.overwrite:
        raise InputError(f"--archive={args.archive}: exists; allowed: a new file, or --overwrite")


if __name__ == "__main__":
    sys.exit(main())
