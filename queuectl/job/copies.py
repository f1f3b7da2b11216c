"""Which of two copies of one job is the later one. A crash in the middle of a settle leaves two, and so does a backup."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.job.record import Job


def continues(later: Job, earlier: Job, digest: str | None = None) -> bool:
    """Return True if `later` is a later copy of the same job: its history has all runs of the earlier one, and more.

    A job that was completed without a run has no more of them: then `not_run` tells, or when it was written.

    A backup, or another job that has the same id by chance, is not. A job whose command was edited since then is:
    the creation time identifies a job better than its command.

    Args:
        digest: SHA-256 of the file of the earlier copy, if it is known. A dropped file has no creation time, but the
            history says which content ran.
    """
    if later.runs <= earlier.runs and not _was_left_out_after(later, earlier):
        return False
    known = dict(later.numbered_history())
    if any(known.get(run, entry) != entry for run, entry in earlier.numbered_history()):
        return False
    made = earlier.created_at
    if made is None:
        ran = known.get(earlier.runs + 1, {}).get("file_sha256")
        return later.command == earlier.command or (digest is not None and ran == digest)
    return later.created_at is not None and abs(later.created_at - made) < 1e-3


def _was_left_out_after(later: Job, earlier: Job) -> bool:
    """Return True if `later` was completed, or buried, without a run since the earlier copy was written."""
    # A dropped file does not say when it was made: another one of the same id and command is a job of its own.
    is_buried = later.state == "dead" and earlier.state != "dead" and earlier.created_at is not None
    if later.runs != earlier.runs or (later.not_run is None and not is_buried):
        return False
    is_later = (later.updated_at or 0) >= (earlier.updated_at or 0)
    return is_later or (later.not_run is not None and earlier.not_run is None)


def have_ended_alike(one: Job, other: Job) -> bool:
    """Return True if these are two copies of one ended job: the same outcome of the same run."""
    return (
        one.state in ("completed", "dead")
        and one.runs > 0
        and (one.state, one.runs, one.finished_at) == (other.state, other.runs, other.finished_at)
        and dict(one.numbered_history()) == dict(other.numbered_history())
    )
