"""What a notification says: which jobs it is about, why they ended, their last lines, and how to run them again."""

from __future__ import annotations

import shlex
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.errors import JobNotFound
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.job.redact import masked, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.api.spool import Spool

LAST_LINES = 20
"""Lines of output in a notification."""

LISTED = 20
"""Jobs that are named in a notification about many."""

_LONGEST_SUBJECT = 150
"""Characters. Mail programs show no more, and a subject is no place for a whole message of a program."""

TRIAL = "trial"
"""The event of a notification that is about no job: somebody tries whether it arrives."""

RECOVERED, EMPTY = "recovered", "empty"
"""Events that are no states: jobs are done after a failed run; nothing is left to run."""


class About(NamedTuple):
    """A job that a notification is about, as its record said when the notification was made.

    Attributes:
        state: its state; "gone" if its record was deleted meanwhile.
        lines: the last lines of its output, for a notification about one job.
    """

    id: str
    state: str
    command: str = ""
    last_error: str | None = None
    exit_code: int | None = None
    attempts: int = 0
    finished_at: float | None = None
    lines: Sequence[str] = ()


@dataclass(slots=True)
class Message:
    """A notification.

    Attributes:
        event: what has happened: the state of the jobs, RECOVERED, EMPTY, or TRIAL.
        jobs: those that are named.
        count: how many there are.
        spool: the folder of the spool.
        host: the name of this machine.
        about: what is empty, in words.
        period: the moments between which the jobs have ended, as text, if it tells of such a period.
    """

    event: str
    jobs: list[About]
    count: int
    spool: str
    host: str
    about: str = ""
    period: tuple[str, str] | None = None

    @property
    def subject(self) -> str:
        """One line that says what has happened."""
        what = one_line(self._what())
        if len(what) > _LONGEST_SUBJECT:
            what = f"{what[:_LONGEST_SUBJECT]}…"
        return f"[queuectl {self.host}] {what}"

    def _what(self) -> str:
        if self.event == TRIAL:
            return "this is a trial"
        if self.event == EMPTY:
            return f"nothing of {self.about} is left to run"
        if self.count != 1:
            return f"{self.count} jobs {'have' if self.event == RECOVERED else 'are'} {self.event}"
        [job] = self.jobs
        if self.event == RECOVERED:
            return f"{job.id} has recovered"
        return f"{job.id} is {job.state}{f': {job.last_error}' if job.last_error else ''}"

    @property
    def text(self) -> str:
        """The whole message."""
        if self.event == TRIAL:
            return f"This is a trial. It is about no job of the spool {self.spool} on {self.host}.\n"
        lines = [f"Spool      {self.spool} on {self.host}", ""]
        if self.period is not None:
            lines[1:1] = [f"Period     {self.period[0]} to {self.period[1]}"]
        if self.event == EMPTY:
            lines.append(f"Nothing of {self.about} runs, or will run without anybody doing something.")
        elif self.count == 1:
            lines += _details(self.jobs[0])
        else:
            lines += [
                f"{job.id} is {job.state}{f': {one_line(job.last_error)}' if job.last_error else ''}"
                for job in self.jobs
            ]
            if self.count > len(self.jobs):
                lines.append(f"and {self.count - len(self.jobs)} more")
        return "\n".join([*lines, *self._what_to_type(), ""])

    def _what_to_type(self) -> list[str]:
        dead = [job.id for job in self.jobs if job.state == "dead"]
        if not dead:
            return []
        spool = shlex.quote(self.spool)
        return [
            "",
            "To see all of it, and to run it again:",
            *(
                f"  queuectl --spool {spool} {verb} {' '.join(map(shlex.quote, dead))}"
                for verb in ("show", "retry")
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """The same facts for a program. Chat programs show `text`."""
        return {
            "text": f"{self.subject}\n{self.text}",
            "subject": self.subject,
            "event": self.event,
            "host": self.host,
            "spool": self.spool,
            "count": self.count,
            "about": self.about,
            "jobs": [{**job._asdict(), "lines": [*job.lines]} for job in self.jobs],
        }


def _details(job: About) -> list[str]:
    facts = {
        "Job": f"{job.id} is {job.state}",
        "Command": one_line(job.command),
        "Reason": one_line(job.last_error or ""),
        "Exit code": "" if job.exit_code is None else str(job.exit_code),
        "Attempts": str(job.attempts) if job.attempts else "",
        "Ended": "" if job.finished_at is None else times.local(job.finished_at),
    }
    lines = [f"{name:<10} {text}" for name, text in facts.items() if text]
    if job.lines:
        lines += ["", "Its last lines:", *(f"  {line}" for line in job.lines)]
    return lines


def compose(spool: Spool, ids: Sequence[str], environ: Mapping[str, str]) -> Message:
    """Make the notification about these jobs.

    Args:
        ids: jobs; none: those of which the job tells that calls this, or for which it has waited: the dead ones if there are some.
        environ: the environment, which has the names of those.
    """
    found = [*dict.fromkeys(ids)]
    told = None if found else environ.get("QUEUECTL_EVENT")
    if not found and told not in (TRIAL, EMPTY):
        found = _parents(environ)
    named = [_about(spool, job_id, with_lines=len(found) == 1) for job_id in found[:LISTED]]
    states = {job.state for job in named}
    event = TRIAL if not found else states.pop() if len(states) == 1 else "over"
    since, until = environ.get("QUEUECTL_SINCE"), environ.get("QUEUECTL_UNTIL")
    return Message(
        told if told in (RECOVERED, EMPTY) else event,
        named,
        len(found),
        spool.layout.root,
        socket.gethostname(),
        environ.get("QUEUECTL_ABOUT", "") if told == EMPTY else "",
        (_local(since), _local(until)) if told and since and until else None,
    )


def _local(moment: str) -> str:
    """Return a moment in ISO 8601 as people here read it; as it is, if it is none."""
    try:
        return times.local(times.parse_moment(moment))
    except ValueError:
        return moment


def _parents(environ: Mapping[str, str]) -> list[str]:
    """Return the jobs for which this one has waited: the dead ones, if one of them is dead, else all."""
    path = environ.get("QUEUECTL_AFTER")
    if path is None:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            parents = [line.rstrip("\n").split("\t") for line in file]
    except OSError:
        return []
    dead = [parent[0] for parent in parents if parent[1:2] == ["dead"]]
    return dead or [parent[0] for parent in parents]


def _about(spool: Spool, job_id: str, *, with_lines: bool) -> About:
    try:
        job = spool.get(job_id)
        lines = _last_lines(spool, job_id) if with_lines else []
    except JobNotFound:
        return About(job_id, "gone")
    shown = masked({"command": job.shown_command, "last_error": job.last_error, "lines": lines})
    return About(
        job_id,
        job.state,
        shown["command"],
        shown["last_error"],
        job.exit_code,
        job.attempts,
        job.finished_at,
        shown["lines"],
    )


def _last_lines(spool: Spool, job_id: str) -> list[str]:
    """Return the last lines of what a job has written: of its errors, if it has written any."""
    for stream in ("err", "out"):
        lines = spool.last_output(job_id, LAST_LINES, stream=stream).splitlines()
        if any(map(str.strip, lines)):
            return [*map(one_line, lines)]
    return []
