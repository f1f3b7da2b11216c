"""Which moves there are: a job goes from state to state in these ways and no others."""

from __future__ import annotations

from queuectl.errors import MoveError

MOVES = {
    "claim": {("pending", "processing"), ("failed", "processing")},
    "settle": {
        ("processing", "completed"),
        ("processing", "failed"),
        ("processing", "dead"),
        ("processing", "pending"),
    },
    "requeue": {("dead", "pending")},
    "bury": {("pending", "dead"), ("failed", "dead")},
}
"""The legal moves of a job that is in the spool, as pairs of states."""


def check(move: str, job_id: str, state: str, target: str) -> None:
    """Refuse what the table does not have.

    Raises:
        MoveError: naming the job and its state.
    """
    if (state, target) not in MOVES[move]:
        article = {"requeue": "retried", "bury": "cancelled"}.get(move, f"moved to {target}")
        hint = f"queuectl show {job_id}"
        raise MoveError(f"job {job_id!r} is {state} and cannot be {article}", hint=hint)
