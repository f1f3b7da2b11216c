"""What a job waits for: other jobs, and batches of jobs. Pure.

The states of a parent decide. `after` wants it completed, `after_any` completed or dead, `after_failure` dead. A condition
that can never be met any more decides what becomes of the job (see `Verdict`).
"""

from __future__ import annotations

from queuectl.errors import InvalidJob
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import BATCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.job.record import Job

FIELDS = ("after", "after_any", "after_failure")
"""The fields with conditions. The place of each in this tuple is the number of its kind in the index."""


class Verdict:
    """What a condition says at a moment, as the index stores it. Not an enum: `enqueue` would have to load that module."""

    WAIT, MET, DECIDED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a job.

    Attributes:
        parent: the id of a job, or "batch:NAME".
        kind: after, after_any or after_failure.
        least: of a batch, how many jobs must be over at least.
        dies: whether a dead parent of `after` sends the job to dead/.
    """

    parent: str
    kind: str
    least: int = 1
    dies: bool = False

    @property
    def batch(self) -> str | None:
        """The batch, if it is about one."""
        return self.parent.removeprefix(BATCH) if self.parent.startswith(BATCH) else None

    @property
    def retry(self) -> str:
        """The command by which the jobs that it is about begin anew, if they are dead."""
        return (
            f"queuectl retry {self.parent}" if self.batch is None else f"queuectl retry --batch {self.batch}"
        )

    def judge(self, state: str | None) -> int:
        """Judge by the state of the parent, which is a job; None: there is no such job, which is never taken for its end."""
        if self.kind == "after_any":
            return Verdict.MET if state in ("completed", "dead") else Verdict.WAIT
        wanted, other = ("completed", "dead") if self.kind == "after" else ("dead", "completed")
        if state == wanted:
            return Verdict.MET
        return Verdict.DECIDED if state == other and (self.kind != "after" or self.dies) else Verdict.WAIT

    def judge_batch(self, waiting: int, done: int, dead: int) -> int:
        """Judge by the members of the batch that do not wait for it themselves.

        Args:
            waiting: how many of them wait or run.
            done, dead: how many are completed, and dead.
        """
        if self.kind == "after" and dead and self.dies:
            return Verdict.DECIDED
        if waiting or done + dead < self.least:
            return Verdict.WAIT
        if self.kind == "after":
            return Verdict.WAIT if dead or done < self.least else Verdict.MET
        if self.kind == "after_any" or dead:
            return Verdict.MET
        return Verdict.DECIDED if done else Verdict.WAIT


def of_job(job: Job) -> Iterator[Condition]:
    """Yield the conditions of a job."""
    for kind in FIELDS:
        for text in getattr(job, kind) or ():
            name, equals, count = text.partition("=")
            yield Condition(name, kind, int(count) if equals else 1, job.if_blocked == "dead")


def named(job: Job) -> Iterator[tuple[str, str]]:
    """Yield the field and the parent of each condition. A list of ten thousand jobs is checked with it before it is queued."""
    for kind in FIELDS:
        for text in getattr(job, kind) or ():
            yield kind, text.partition("=")[0]


def check(job: Job) -> None:
    """Check that the conditions of a job could be met.

    Raises:
        InvalidJob: it waits for itself, or for two ends of one job.
    """
    kinds: dict[str, str] = {}
    for kind, parent in named(job):
        if parent == job.id:
            raise InvalidJob("it cannot wait for itself", field=kind)
        known = kinds.setdefault(parent, kind)
        if known != kind and {known, kind} == {"after", "after_failure"} and not parent.startswith(BATCH):
            raise InvalidJob(f"could never start: {parent} is in {known}, too", field=kind)
