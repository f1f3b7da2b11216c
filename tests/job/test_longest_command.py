"""A command that the kernel can never start is refused at the door, and the longest that it starts runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import InvalidJob, Spool
from queuectl.job import record as jobs
from queuectl.job.fields import LONGEST_WORD

from support import drain, drop, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

TOO_LONG = LONGEST_WORD + 1


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"command": "#" * TOO_LONG}, "command"),
        ({"command": "#" + "ä" * (LONGEST_WORD // 2 + 1)}, "command"),
        ({"command": ["echo", "x" * TOO_LONG]}, "command"),
        ({"command": "true", "env": {"A": "x" * (TOO_LONG - 2)}}, "env"),
    ],
    ids=["shell", "two bytes a letter", "argument", "variable"],
)
def test_what_can_never_run_is_refused(record: dict[str, Any], field: str) -> None:
    """With the size and the limit. Bytes count, and not letters."""
    with pytest.raises(
        InvalidJob, match=rf"{field}: .*bytes, and the system takes at most 131071"
    ) as refused:
        jobs.from_mapping(record)
    assert refused.value.field == field


def test_longest_command_runs(spool_dir: Path) -> None:
    """At the limit, as shell text, argument, and variable: none of them is refused without need."""
    spool = Spool(spool_dir)
    spool.enqueue("true " + "x" * (LONGEST_WORD - 5), id="shell", max_retries=1)
    spool.enqueue(["true", "x" * LONGEST_WORD], id="argument", max_retries=1)
    spool.enqueue("true", env={"A": "x" * (LONGEST_WORD - 2)}, id="variable", max_retries=1)
    drain(spool_dir)
    for job_id in ("shell", "argument", "variable"):
        assert where_is(spool_dir, job_id) == ["done"], spool.get(job_id).last_error


def test_check_and_drop_refuse_it_too(cli: Cli, spool_dir: Path) -> None:
    """`check` says so beforehand; a dropped one goes to dead/ with the reason."""
    path = drop(spool_dir, "a", command="#" * TOO_LONG)
    assert "command: is too large: 131072 bytes" in cli("check", str(path), expect=1).stdout
    assert "131071 at once: put it into a file" in cli("enqueue", "--file", str(path), expect=1).stderr
    drain(spool_dir, now=lambda: time.time() + 10)
    assert "131071" in (spool_dir / "dead" / "a.json.reason").read_text()
