"""What `Spool.list` says of each job: made of the index's own row, in the units that the rest of the API has."""

from __future__ import annotations

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index.lanes import parts_of
from queuectl.job.fields import DEFAULT_QUEUE, WAITING
from queuectl.layout import LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from queuectl.api.places import Place
    from queuectl.index.row import Row as IndexRow


@dataclass(slots=True)
class Row:
    """One job of a list. Fields that a `Job` has too have the same names; times are epoch seconds, durations seconds.

    Attributes:
        command: its beginning, at most 200 characters, a list as quoted text; `Spool.get` has all of it. "" for a file in
            dead/ that is not a valid job.
        effective_priority: priority plus one for each minute of waiting; None if the job does not wait.
        created_at: when it was created; if its file does not say so, when it arrived.
        updated_at: when it was last changed; if its file does not say so, when it arrived.
        waited: for how long the job could have run already; None if it cannot run now.
        waits_for: "worker", "run_at", "retry", "unique" (another job has its unique key), "jobs" (those of `after` and
            the like are not over), "release" (it is held) or "queue" (a limit of its queue or of a resource is used up,
            or its queue is paused); None if it does not wait.
        due_at: the time before which a waiting job does not start; None if there is none.
        started_at, finished_at, duration, exit_code: of the last run; while the job runs, only `started_at`, of this run.
        last_error: its beginning, at most 200 characters.
        queue: the queue that it is in; "default" if it names none.
        needs: how much it takes of each resource while it runs.
        engine: where it runs, has run last, or will run: "local", or the name of an engine.
        engine_id: the engine's own number for it, while it is out there.
        node: the node of the engine on which it runs, or has run last.
        engine_reason: why it waits there, in the engine's words.
    """

    id: str
    state: str
    command: str
    priority: int | None = None
    effective_priority: float | None = None
    tags: list[str] = field(default_factory=list)
    unique: str | None = None
    attempts: int = 0
    max_retries: int | None = None
    created_at: float | None = None
    updated_at: float | None = None
    run_at: float | None = None
    next_retry_at: float | None = None
    expires_at: float | None = None
    due_at: float | None = None
    waits_for: str | None = None
    waited: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    exit_code: int | None = None
    last_error: str | None = None
    worker: str | None = None
    queue: str = DEFAULT_QUEUE
    needs: dict[str, int] = field(default_factory=dict)
    engine: str = LOCAL
    engine_id: str | None = None
    node: str | None = None
    engine_reason: str | None = None

    @property
    def held(self) -> bool:
        """Whether the job waits until somebody releases it."""
        return self.waits_for == "release"

    def __repr__(self) -> str:
        """Show what is known, without secrets: programs write this into their logs."""
        from queuectl.job.redact import masked

        fields: dict[str, object] = {name: getattr(self, name) for name in Row.__match_args__}
        fields |= masked({"command": self.command, "last_error": self.last_error})
        return f"Row({', '.join(f'{name}={value!r}' for name, value in fields.items() if value not in (None, []))})"


def made_of(row: IndexRow, place: Place, now: int, closed: Container[str | None] = ()) -> Row:
    """Return what a program is told of a row of the index.

    Args:
        place: where the job is.
        now: the present, in microseconds.
        closed: the lanes of which no job may start now.
    """
    waited = row.waited(now)
    queue, needs = parts_of(row.lane)
    return Row(
        id=row.id,
        state=row.state,
        command=row.command,
        priority=row.priority,
        effective_priority=row.effective(now),
        tags=row.tags.split() if row.tags else [],
        unique=row.unique_key,
        attempts=row.attempts,
        max_retries=row.max_retries,
        created_at=_seconds(row.arrived if row.created_at is None else row.created_at),
        updated_at=_seconds(row.arrived if row.updated_at is None else row.updated_at),
        run_at=_seconds(row.run_at),
        next_retry_at=_seconds(row.next_retry_at),
        expires_at=_seconds(row.expires),
        due_at=_seconds(row.due),
        waits_for=_waits_for(row, waited, closed),
        waited=_seconds(waited),
        started_at=_seconds(row.started_at),
        finished_at=_seconds(row.finished_at),
        duration=_seconds(row.duration),
        exit_code=row.exit_code,
        last_error=row.last_error,
        worker=row.worker,
        queue=queue,
        needs={**needs},
        engine=place.engine,
        engine_id=place.engine_id,
        node=place.node,
        engine_reason=place.engine_reason,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6


def _waits_for(row: IndexRow, waited: int | None, closed: Container[str | None]) -> str | None:
    """What keeps a waiting job from running, in the words of `Spool.metrics`."""
    if row.state not in WAITING:
        return None
    if row.held:
        return "release"
    if row.behind is not None:
        return "unique"
    if row.conditions is not None and row.ready_key is None and row.due is None:
        return "jobs"
    if waited is not None:
        return "queue" if row.lane in closed else "worker"
    return "retry" if row.state == "failed" else "run_at"
