"""The command `dcrun-fit`: recorded runs in, a `cluster` config out whose simulation takes as long as they took.

dcrun-fit outputs/recorded > conf/cluster/mine.yaml       then: dcrun algorithm=dc_asgd_a cluster=mine
dcrun-fit outputs/recorded --delays measured.csv          writes the measured seconds; cluster.compute.delays takes them
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from runner.cli.one_line_parser import OneLineParser
from runner.config.errors import InputError
from runner.config.paths import expanded
from runner.run_folder.jsonl import replace
from runner.run_folder.trace import Trace
from runner.train import fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the config fitted to the recordings that a command line names.

    Args:
        arguments: the command line without the program's name; by default this process's.

    Returns:
        The exit code: 0 done, 2 wrong input.
    """
    parser = OneLineParser(prog="dcrun-fit", description="Fit the virtual clock to recorded runs.")
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="FOLDER",
        help="run folders with a trace.jsonl; the first decides about computing",
    )
    parser.add_argument(
        "--delays",
        metavar="FILE.csv",
        help="write the first recording's computing times there, a column a worker, and print a config that takes them",
    )
    given = parser.parse_args(arguments)
    try:
        traces = [Trace.read(place) for place in given.recordings]
        path = None if given.delays is None else expanded(given.delays, "--delays").absolute()
        # All that can be refused first: a wrong recording leaves no file.
        content = None if path is None else fit.delays_of(traces[0])
        printed = fit.document(fit.fit(traces, None if path is None else str(path)), traces)
        if path is not None and content is not None:
            _write(path, content)
        print(printed)
    except InputError as error:
        print(f"dcrun-fit: {error}", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, content: str) -> None:
    try:
        replace(path, content.encode())
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise InputError.of("--delays", path, what, "a file in a folder you may write to") from error


if __name__ == "__main__":
    sys.exit(main())
