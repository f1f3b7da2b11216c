"""What the end of an attempt on a cluster means for its job: an outcome, as of a run on this machine, or something else."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.job import times
from queuectl.job.exit_codes import exit_code, judge
from queuectl.job.outcome import CANCELLED, Ending, Outcome

if TYPE_CHECKING:
    from queuectl.engine.handed import Ended, Lost

CANCELLED_THERE = f"{CANCELLED} in Slurm by scancel"
"""The error of a job that somebody has cancelled past queuectl."""

_TIME_LIMITS = ("TIMEOUT", "DEADLINE")


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run was ended by something else than the command: recorded as the death of its worker would be.

    Attributes:
        error: what has happened, in one line for people.
    """

    error: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """Nothing ran, and it is not the job's fault: it goes back as it was.

    Attributes:
        reason: in words.
        is_cancelled: somebody has cancelled it: it goes to dead/ instead.
    """

    reason: str
    is_cancelled: bool = False


Meaning = Outcome | Interrupted | NotBegun


def meaning(ended: Ended, *, in_shell: bool, timeout: float, stopped: bool = False) -> Meaning:
    """Return what the end of an attempt means.

    Args:
        in_shell: its command is a text, so some exit codes are the shell's own.
        timeout: seconds that it was allowed to run.
        stopped: it was cancelled only because its dispatcher was stopped by force.
    """
    record = ended.record
    if record.how == "not_begun":
        return NotBegun(f"{record.why} ({record.node})")
    if record.how == "cancelled" and not record.ran:
        return NotBegun(CANCELLED, is_cancelled=not stopped)
    code, seconds, printed = exit_code(record.code), record.seconds, (record.out, record.err)
    if record.how == "terminated":
        return _ended_by_the_engine(ended, code)
    if record.how == "fenced":
        return Interrupted(f"{record.node} was cut off from the shared folder, and has ended it")
    if record.how == "not_started":
        return Outcome(Ending.NOT_STARTED, None, f"Cannot start: {record.why}", seconds, printed=printed)
    if record.how == "timed_out":
        error: str | None = f"Timeout exceeded ({times.seconds(timeout)}s)"
        return Outcome(Ending.TIMED_OUT, code, error, seconds, printed=printed)
    if record.how == "cancelled":
        ending, error = (
            (Ending.STOPPED, "Stopped with its worker") if stopped else (Ending.CANCELLED, CANCELLED)
        )
        return Outcome(ending, code, error, seconds, printed=printed)
    ending, error = judge(record.code, in_shell)
    if record.code == -signal.SIGKILL and _is_out_of_memory(ended):
        error = f"Out of memory on {record.node} (killed by signal 9)"
    return Outcome(ending, code, error, seconds, printed=printed)


def _is_out_of_memory(ended: Ended) -> bool:
    return ended.no_memory or (ended.row is not None and ended.row.state == "OUT_OF_MEMORY")


def _ended_by_the_engine(ended: Ended, code: int | None) -> Meaning:
    """The engine has ended the runner, and with it the command: its own word tells for what."""
    record, state = ended.record, ended.row.state if ended.row else ""
    printed = record.out, record.err
    if state in _TIME_LIMITS:
        limit = "Ended at Slurm's time limit, which its partition sets"
        return Outcome(Ending.TIMED_OUT, code, limit, record.seconds, printed=printed)
    if state == "PREEMPTED":
        return Outcome(
            Ending.PREEMPTED, code, "Preempted by another job of the cluster", record.seconds, printed=printed
        )
    if state == "CANCELLED":
        # By a person: its dispatcher ends a run by a file, and cancels only what has nothing left to do.
        return Outcome(Ending.CANCELLED, code, CANCELLED_THERE, record.seconds, printed=printed)
    return Interrupted(f"the runner on {record.node} was ended by Slurm" + (f" ({state})" if state else ""))


def loss(lost: Lost) -> Interrupted:
    """Return what is recorded of an attempt whose runner is not heard of any more."""
    node = node_of(lost.runner) or "its node"
    said = f" ({lost.row.state})" if lost.row else ""
    return Interrupted(f"{node} has not been heard of for {times.seconds(round(lost.silence))}s{said}")


def node_of(runner: str) -> str:
    """Return the node of a runner, whose name is node.number.pid; a node's name may have dots."""
    return runner.rsplit(".", 2)[0]
