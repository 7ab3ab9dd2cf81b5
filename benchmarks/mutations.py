"""Breaks lines on purpose, one at a time in a copy of the checkout, and shows which test notices each.

    python benchmarks/mutations.py                            # all; exit code 1 if one survives
    python benchmarks/mutations.py --only data/augment        # those whose file, text, tests or reason contain this
    python benchmarks/mutations.py --only reset --write       # and bring their rows of mutations/table.md up to date
    python benchmarks/mutations.py --only SURVIVED --write    # those of which the table says so, or "not tried yet"

The mutations are listed in `mutations/*.yaml`: `file`, `find` (text that occurs in the file exactly once), `replace`,
`tests` (files or node ids of pytest, as narrow as possible) and `why` (what would go wrong). Tests that fail without
the mutation prove nothing, so all named tests run once on the untouched copy first. That run's seconds also bound the
time that a mutation may take: one that makes a test hang is caught by the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mutation_entries import FAILS_ANYWAY, SURVIVED, UNTRIED, load, read_table, row, write_table
from mutation_runs import Copies

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "mutations"
TABLE = "table.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutations; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--only", default="", metavar="SUBSTRING", help="mutations whose entry, or row of the table, contains it"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutations tried at a time (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write the rows into mutations/{TABLE}")
    parser.add_argument("--checkout", type=Path, default=HERE.parent, help="work tree of git (default: this one)")
    parser.add_argument("--mutations", type=Path, default=FOLDER, help="folder of yaml files (default: mutations/)")
    given = parser.parse_args(arguments)
    checkout = given.checkout.resolve()
    mutations = load(sorted(given.mutations.glob("*.yaml")))
    try:
        cells = {mutation: mutation.cells(checkout) for mutation in mutations}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    before = read_table(given.mutations / TABLE)
    told = {
        mutation: f"{mutation} {before.get((mutation.file, cells[mutation][1]), UNTRIED)}" for mutation in mutations
    }
    chosen = [mutation for mutation in mutations if given.only in told[mutation]]
    if given.jobs < 1 or not chosen:
        print(f"nothing to do: {len(mutations)} mutations, --only={given.only} --jobs={given.jobs}", file=sys.stderr)
        return 2
    caught_by = {}
    with tempfile.TemporaryDirectory(prefix="dcrun-mutations-") as place:
        copies = Copies(checkout, Path(place), min(given.jobs, len(chosen)))
        try:
            untouched = copies.untouched(test for mutation in chosen for test in mutation.tests)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        seconds = sum(untouched.seconds.values())
        print(f"without a mutation: {len(untouched.seconds)} tests, {seconds:.0f} s", flush=True)
        for mutation, catcher in copies.try_all(chosen, untouched):
            caught_by[mutation] = catcher
            print(row(*cells[mutation], catcher), flush=True)
    missed = sum(SURVIVED in catcher or FAILS_ANYWAY in catcher for catcher in caught_by.values())
    print(f"{len(caught_by)} lines broken, {missed} of them not caught")
    if given.write:
        write_table(given.mutations / TABLE, cells, caught_by)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
