"""The output for programs is complete and contains nothing else, and reading leaves no files behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import queuectl
from queuectl import Spool
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


@pytest.mark.parametrize("state", [*STATES, "done"])
def test_every_list_is_a_json_array_even_when_empty(
    cli: Callable[..., subprocess.CompletedProcess[str]], state: str
) -> None:
    """An empty spool gives [], not null, and no text on stdout."""
    done = cli("list", "--state", state, "--json", expect=0)

    assert json.loads(done.stdout) == []


def test_lists_stay_json_while_workers_write(
    cli: Callable[..., subprocess.CompletedProcess[str]], spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """While jobs move, each list is one complete JSON array of jobs of the requested state."""
    ids = set(Spool(spool_dir).enqueue_many({"command": "echo a; echo b >&2"} for _ in range(150)))
    workers(2)
    seen = 0
    while True:
        for state in STATES:
            rows = json.loads(cli("list", "--state", state, "--json", expect=0).stdout)
            assert {row["state"] for row in rows} <= {state}
            seen += len(rows)
        if len(json.loads(cli("list", "--state", "completed", "--json", expect=0).stdout)) == len(ids):
            break
    assert seen > 0


def test_no_default_limit_hides_a_job(
    cli: Callable[..., subprocess.CompletedProcess[str]], spool_dir: Path
) -> None:
    """Sixty jobs are sixty lines; only --limit reduces them."""
    ids = Spool(spool_dir).enqueue_many({"command": "true"} for _ in range(60))

    assert [line.split(" - ")[0] for line in cli("list", expect=0).stdout.splitlines()] == ids
    assert len(cli("list", "--limit", "20", expect=0).stdout.splitlines()) == 20


def test_nothing_is_written_beside_the_code(
    cli: Callable[..., subprocess.CompletedProcess[str]], spool_dir: Path
) -> None:
    """The index is in the spool, not in the installed package, where an upgrade would delete it."""
    package = Path(queuectl.__file__).parent

    def files() -> set[str]:
        return {
            os.path.join(folder, name)
            for folder, _, names in os.walk(package)
            for name in names
            if not folder.endswith("__pycache__")
        }

    before = files()
    cli("enqueue", "echo hi", expect=0)
    cli("worker", "start", "--foreground", "--drain", expect=0)
    cli("status", expect=0)
    cli("config", "set", "priority", "3", expect=0)

    assert files() == before
    assert (spool_dir / "data" / "queuectl.db").is_file()
