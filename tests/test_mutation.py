"""Each protection that is taken out of the code is missed by a test; `python -m tests.mutation` tries them all."""

from __future__ import annotations

import os
import random

import pytest
from mutation.run import TOP, mutate, try_all
from mutation.table import MUTANTS

FULL = bool(os.environ.get("QUEUECTL_FULL"))
SEED = int(os.environ.get("QUEUECTL_SEED") or random.randrange(1 << 30))
SOME = 40
"""Mutants that are tried where nobody asks for all of them: somewhat over a minute. All take four."""


def test_every_mutant_can_be_made() -> None:
    """The text that it replaces is still there, what it makes of it is Python, and its tests exist."""
    wrong = []
    for mutant in MUTANTS:
        changed = mutate((TOP / "queuectl" / mutant.file).read_text(encoding="utf-8"), mutant)
        if changed is None:
            wrong.append(f"{mutant.name}: its text is not in {mutant.file} any more")
            continue
        compile(changed, mutant.file, "exec")
        for test in mutant.tests:
            path, _, function = test.partition("[")[0].partition("::")
            if function and f"def {function}(" not in (TOP / path).read_text(encoding="utf-8"):
                wrong.append(f"{mutant.name}: there is no {test}")
    assert not wrong, "\n".join(wrong)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_protection_is_missed_when_it_is_gone() -> None:
    """A part of the table, another one each time; all of it with QUEUECTL_FULL=1."""
    chosen = MUTANTS if FULL else random.Random(SEED).sample(MUTANTS, SOME)

    bad = [verdict for verdict in try_all(chosen) if not verdict.good]

    assert not bad, f"QUEUECTL_SEED={SEED}: " + "; ".join(
        f"{one.mutant.name}: {one.fate} {one.by}" for one in bad
    )
