"""The command `dcreport`: run folders in, a page out; on request Markdown and figures.

`dcreport outputs` writes `outputs/report.html`; `dcreport outputs --out report` writes `report/report.html`,
`report/report.md`, and figures as PNG and SVG; `dcreport docs/runs --results RESULTS.md --notes docs/notes.md
--figures docs/figures` writes the project's own results.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.report import evidence, published
from runner.report.collect import collect


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what a command line says.

    Returns:
        the exit code: 0 done, 2 wrong input.
    """
    args = _parse(arguments)
    if idle := _idle(args):
        print(f"dcreport: {idle}", file=sys.stderr)
        return 2
    for path in args.paths:
        if not path.is_dir():
            print(f"dcreport: {path}: no such folder; allowed: folders with runs below, as outputs", file=sys.stderr)
            return 2
    try:
        return _report(args)
    except OSError as exc:
        print(f"dcreport: {exc.filename or args.paths[0]}: cannot be used: {exc.strerror}", file=sys.stderr)
        return 2


def _report(args: argparse.Namespace) -> int:
    runs = collect(args.paths)
    if not runs:
        where = ", ".join(map(str, args.paths))
        print(f"dcreport: {where}: no run folders below (one has summary.json or metrics.jsonl)", file=sys.stderr)
        return 2
    broken = [run for run in runs if run.status == "broken"]
    for run in broken[:5]:
        print(f"dcreport: {run.folder}: {'; '.join(run.problems)}", file=sys.stderr)
    found = [(exhibit, evidence.weigh(exhibit, runs)) for exhibit in published.load()]
    if args.results is not None:
        from runner.report import markdown

        markdown.write(args.results, args.figures or args.results.parent / "figures", runs, found, args.notes)
        print(f"{len(runs)} runs -> {args.results}")
        return 0
    from runner.report import page

    out: Path = args.out or args.paths[0]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page.render(runs, found, args.title or "Runs"), encoding="utf-8")
    print(f"{len(runs)} runs -> {out / 'report.html'}")
    if args.out is not None:
        from runner.report import markdown

        markdown.write(out / "report.md", out / "figures", runs, found, args.notes)
        print(f"{' ' * len(str(len(runs)))}      -> {out / 'report.md'}, {out / 'figures'}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dcreport",
        description="Collects the run folders below some folders into report.html, measured beside published.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folder with runs below, as outputs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write there, and a Markdown table and figures too")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write only this Markdown file and its figures")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="figures of --results (default: figures beside it)")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown remarks to put into the Markdown")
    parser.add_argument("--title", help="the page's title (default: Runs)")
    return parser.parse_args(arguments)


def _idle(args: argparse.Namespace) -> str | None:
    """What was given and would do nothing beside the rest."""
    markdown = args.results is not None
    for option, given, used, allowed in (
        ("notes", args.notes, markdown or args.out is not None, "with --out or --results"),
        ("figures", args.figures, markdown, "with --results; --out has its own"),
        ("out", args.out, not markdown, "without --results, which writes one file"),
        ("title", args.title, not markdown, "without --results, which writes no page"),
    ):
        if given is not None and not used:
            return f"--{option}={given}: would do nothing; allowed: {allowed}"
    return None


if __name__ == "__main__":
    sys.exit(main())
