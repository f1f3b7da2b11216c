"""Each protection that is taken out of the code is missed by a test; `python -m tests.mutation` tries them all."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import sweeps

from mutation.run import REAPER, TOP, mutate, try_all
from mutation.table import MUTANTS

if TYPE_CHECKING:
    from pathlib import Path

SOME = 30
"""Mutants that are tried where nobody asks for all of them: one or two minutes."""


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to an ancestor")
def test_what_a_mutant_leaves_running_is_ended(tmp_path: Path) -> None:
    """A job that hears no TERM, in a session of its own, with nothing in its environment, and with no parent any more."""
    job = f"trap '' TERM; while :; do touch {tmp_path}/alive; sleep 0.02; done"
    leave = f'env -i setsid sh -c "{job}" >/dev/null 2>&1 & until [ -e {tmp_path}/alive ]; do sleep 0.01; done; exit 3'

    done = subprocess.run([sys.executable, str(REAPER), "sh", "-c", leave], check=False, timeout=20)

    assert done.returncode == 3
    alive = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"]]
    assert [words for words in alive if any(str(tmp_path) in word for word in words)] == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_protection_is_missed_when_it_is_gone() -> None:
    """A part of the table, another one each time; all of it with QUEUECTL_FULL=1.

    Some protect against a race, which comes about in most runs of their test and not in all. One that lived is tried
    twice more, alone.
    """
    chosen = MUTANTS if sweeps.FULL else random.Random(sweeps.SEED).sample(MUTANTS, SOME)

    bad = [verdict for verdict in try_all(chosen) if not verdict.good]
    for _ in range(2):
        lived = [one.mutant for one in bad if one.fate == "SURVIVED"]
        bad = [one for one in bad if one.fate != "SURVIVED"]
        bad += [verdict for verdict in try_all(lived, at_once=1) if not verdict.good] if lived else []

    assert not bad, f"QUEUECTL_SEED={sweeps.SEED}: " + "; ".join(
        f"{one.mutant.name}: {one.fate} {one.by}" for one in bad
    )
