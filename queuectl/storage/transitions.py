"""The table of legal moves, and the objects that all moves of a job file work on.

No other package renames a job file. Each move has one commit point:

    enqueue   -           -> pending/                    the link of a synced file             enqueue
    claim     pending/    -> processing/w/               the rename                            claim
    release   processing/ -> pending/                    the rename, the file unchanged        claim
    settle    processing/ -> done/, pending/ or dead/    the rename of the file that holds
                                                         the outcome                           settle
    requeue   dead/, done/ -> pending/                   the rename, ordered by a person       bulk_moves
    bury      pending/    -> dead/                       the rename                            bulk_moves
    forget    all but processing/ -> -                   the unlink                            dead_letters

A process that dies before the commit point leaves the job where it was. One that dies after it leaves at most a copy
of the job behind, and the later state makes that copy void (see recovery and power_loss).
"""

from __future__ import annotations

import time

from queuectl.errors import MoveError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job import record as jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.job.conditions import Condition
    from queuectl.job.outcome import Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout

MOVES = {
    "claim": {("pending", "processing"), ("failed", "processing")},
    "settle": {
        ("processing", "completed"),
        ("processing", "failed"),
        ("processing", "dead"),
        ("processing", "pending"),
    },
    "requeue": {("dead", "pending"), ("completed", "pending")},
    "bury": {("pending", "dead"), ("failed", "dead")},
}
"""The legal moves of a job that is in the spool, as pairs of states."""


def check(move: str, job_id: str, state: str, target: str) -> None:
    """Refuse a move that is not in the table.

    Raises:
        MoveError: the move is not legal; the message names the job and its state.
    """
    if (state, target) not in MOVES[move]:
        verb = {"requeue": "retried", "bury": "cancelled"}.get(move, f"moved to {target}")
        hint = f"queuectl show {job_id}"
        raise MoveError(f"job {job_id!r} is {state} and cannot be {verb}", hint=hint)


class Storage:
    """The folders of one spool and the index that mirrors them.

    Args:
        now: the wall clock, in epoch seconds.
        read_only: bury and delete nothing, as when an index is built only to be compared with the one in use.

    Attributes:
        owner: the uid whose files are jobs, if somebody else only looks at that user's spool; None: this user.
        refresh: makes the index agree with the folders; set by a program that does not keep it so all the time.
        before_end: called with jobs and the state in which each is about to end, not by a person's order: rules may queue other
            jobs about that first. None: nobody wants to know.
        holds_key_lock: this process has the lock of the unique keys, see unique_keys.
        deleted_in: the folders in which job files were deleted, and that was not synced.
    """

    def __init__(
        self, layout: Layout, index: Index, now: Callable[[], float] = time.time, *, read_only: bool = False
    ) -> None:
        self.layout = layout
        self.index = index
        self.now = now
        self.read_only = read_only
        self.owner: int | None = None
        self.refresh: Callable[[], None] = lambda: None
        self.before_end: Callable[[Sequence[tuple[Job, str]]], None] | None = None
        self.holds_key_lock = False
        self.deleted_in: set[str] = set()


@dataclass(slots=True)
class Prepared:
    """A job that can be enqueued.

    Attributes:
        data: the bytes of its file.
        chosen: the producer chose its id; otherwise the id is random.
        made: the job. None if it was made from a template: then it is parsed from `data` when needed.
        values: for a job made from a template: its index row, without the values that depend on its file.
        supersedes: the rows of waiting jobs that it replaces (`if_exists: replace`).
    """

    id: str
    data: bytes
    chosen: bool
    made: Job | None = None
    values: list[Any] | None = None
    supersedes: list[Row] = field(default_factory=list)

    @property
    def job(self) -> Job:
        """The job itself."""
        if self.made is None:
            self.made = jobs.parse_own(self.data)
        return self.made

    @property
    def needs_key(self) -> bool:
        """Whether jobs with the same unique key decide if it may be enqueued; with `if_exists: queue` they do not."""
        return self.made is not None and self.made.unique is not None and self.made.if_exists != "queue"


@dataclass(slots=True)
class Claim:
    """A job that a worker has claimed. Its file lies in the worker's folder; `job` was read after the rename.

    Attributes:
        ours: queuectl wrote the file, and the file has no other name.
        inode: the file's inode.
        replaced_by: the inode of what lies under the file's name at the end, if that is not a file; else 0.
        settled: the outcome is in its folder.
        decides: the condition that has decided what becomes of it, so that it does not run (see `dependencies`).
        digest: SHA-256 in hex of the bytes that were read, if somebody else wrote or changed the file.
        run: the mark of its run.
        outcome, ended_at: how the run ended, and when, in epoch seconds.
        state: the state to settle it in, once the outcome is in the record.
        is_told: its start has been logged.
        lines: lines to log when it is settled.
    """

    job: Job
    path: str
    row: Row
    ours: bool = False
    inode: int = 0
    replaced_by: int = 0
    settled: bool = False
    digest: str | None = None
    decides: Condition | None = None
    run: str = ""
    outcome: Outcome | None = None
    ended_at: float = 0.0
    state: str = ""
    is_told: bool = False
    lines: list[str] = field(default_factory=list)
