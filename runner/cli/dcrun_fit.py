"""The command `dcrun-fit`: recorded runs in, a `cluster` config out whose simulation takes as long as they took.

dcrun-fit outputs/recorded > conf/cluster/mine.yaml       then: dcrun algorithm=dc_asgd_a cluster=mine
"""

import argparse
import sys
from collections.abc import Sequence

from runner.config.errors import InputError
from runner.run_folder.trace import Trace
from runner.train import fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the config fitted to the recordings that a command line names.

    Args:
        arguments: the command line without the program's name; by default this process's.

    Returns:
        The exit code: 0 done, 2 wrong input.
    """
    parser = argparse.ArgumentParser(prog="dcrun-fit", description="Fit the virtual clock to recorded runs.")
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="FOLDER",
        help="run folders with a trace.jsonl; the first decides about computing",
    )
    given = parser.parse_args(arguments)
    try:
        traces = [Trace.read(place) for place in given.recordings]
        print(fit.document(fit.fit(traces), traces))
    except InputError as error:
        print(f"dcrun-fit: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
