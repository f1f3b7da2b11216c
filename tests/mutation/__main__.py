"""`python -m tests.mutation [name ...]`."""

from __future__ import annotations

import argparse
import sys

from .run import failing, try_all
from .table import MUTANTS


def main() -> int:
    """Try the mutants that are named, or all; 1 when one survives or is not there any more."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description="Take out one protection at a time; a test must fail for each.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="name", help="mutants, or beginnings of their names; default: all"
    )
    parser.add_argument("--at-once", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument(
        "--check", action="store_true", help="first see that the tests pass while nothing is taken out"
    )
    given = parser.parse_args()
    chosen = [one for one in MUTANTS if not given.names or one.name.startswith(tuple(given.names))]
    if not chosen:
        parser.error("no mutant of that name")
    if given.list:
        for one in chosen:
            print(f"{one.name}: {one.file}: {one.old.strip().splitlines()[0]}")
        return 0
    if given.check and (broken := failing(chosen)):
        print("\n".join(broken))
        return 1
    wide = max(len(one.name) for one in chosen)
    bad = 0
    for verdict in try_all(chosen, at_once=given.at_once):
        bad += not verdict.good
        print(
            f"{verdict.mutant.name:{wide}}  {verdict.fate:9} {verdict.seconds:5.1f} s  {verdict.by}",
            flush=True,
        )
    print(f"{len(chosen)} mutants, {bad} not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
