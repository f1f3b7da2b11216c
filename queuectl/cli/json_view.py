"""What --json tells of jobs that were handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.errors import KeyTaken


def told_skipped(taken: KeyTaken) -> dict[str, Any]:
    """What --json tells of a job of many that was not queued: which one is there."""
    return {"id": taken.job_id, "state": taken.state, "unique": taken.key, "skipped": True}


def told(job_id: str | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """What --json tells about a job that was queued."""
    return {"id": job_id, "state": "pending", "command": record.get("command")}
