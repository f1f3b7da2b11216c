"""Jobs that note their ids when they run, so that a test can see in which order they ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import support

if TYPE_CHECKING:
    from pathlib import Path

NOTED = 'printf "$QUEUECTL_JOB_ID " >> "$HOME/order"'
"""The command of such a job."""


def order(home: Path) -> list[str]:
    """The jobs that have run, in order."""
    path = home / "order"
    return path.read_text().split() if path.exists() else []


def drop(spool_dir: Path, job_id: str, **fields: Any) -> None:
    """Drop such a job, which has one attempt."""
    support.drop(spool_dir, job_id, **{"command": NOTED, "max_retries": 1} | fields)
