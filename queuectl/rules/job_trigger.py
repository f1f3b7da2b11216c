"""Reads the `when:` of a rule about jobs: which ends of which jobs it is about, and how often it may tell them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass
from queuectl.job.conditions import FIELDS
from queuectl.job.fields import DEFAULT_QUEUE, check_field, is_tag
from queuectl.rules import when_fields
from queuectl.rules.rule import Wrong
from queuectl.rules.time_trigger import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from queuectl.job.record import Job

KIND = "job"
"""The key of `when` that says that a rule is about jobs."""

DEAD, DONE, RECOVERED, EMPTY = EVENTS = ("dead", "done", "recovered", "empty")
"""What such a rule may be about: a job was given up; it ended well; it ended well after a run had failed; nothing is left to run."""

TRIAL = "trial"
"""The event of a job that a person has such a rule queue: it tells of nothing."""

KEYS = ("tag", "queue", "batch", "rule", "within", "at_least")
"""What may stand beside `job`."""

_EVENT_SAYS = "what has happened says when"
_REFUSED = {"run_at": _EVENT_SAYS, "delay": _EVENT_SAYS}
_UNIQUE = "needs if_exists: queue, as nothing that happens is left out; for one job about many: when.within"

MOST_NAMES = 100
"""The most names of one kind."""

_MEANING = ("event", "tags", "queues", "batches", "rules", "within", "at_least")

_EVENT = "must be dead, done, recovered or empty; each failed attempt is not told, as it is tried again"


@dataclass(frozen=True, slots=True)
class JobTrigger:
    """Which ends of jobs a rule is about.

    Attributes:
        event: one of EVENTS.
        tags, queues, batches, rules: the job has one of these; none: whatever it has.
        within: seconds; of all ends in each such span one job tells. 0: each end has a job of its own.
        at_least: only if so many jobs have ended so within that span.
        timezone, overlap, jitter: as in a rule with a time, for the jobs.
        schedule: no moment is known at which it is due.
    """

    event: str
    tags: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    within: int = 0
    at_least: int = 1
    timezone: tzinfo | None = None
    overlap: str = "allow"
    jitter: float = 0.0
    schedule: None = None

    @property
    def is_told_at_once(self) -> bool:
        """Whether each end has a job of its own, which is queued before the end is recorded."""
        return self.event != EMPTY and not self.within

    @property
    def is_of_periods(self) -> bool:
        """Whether one job at the end of each span tells of all that has ended in it."""
        return self.event != EMPTY and self.within > 0 and self.at_least == 1

    @property
    def meaning(self) -> dict[str, Any]:
        """Of which ends it tells, as JSON can have it: what a note of the rule keeps."""
        found = {name: getattr(self, name) for name in _MEANING}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @staticmethod
    def of_meaning(meaning: Mapping[str, Any]) -> JobTrigger | None:
        """Return what `meaning` has been made from; None: it is empty, or an earlier version has written it."""
        if set(meaning) != set(_MEANING):
            return None
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in meaning.items()
        }
        return JobTrigger(**plain)

    def is_about(self, job: Job) -> bool:
        """Return whether it is about this job, whatever became of it. Jobs of such rules are never told: that could go on for ever."""
        return (
            job.about is None
            and (not self.tags or not set(self.tags).isdisjoint(job.tags or ()))
            and (not self.queues or (job.queue or DEFAULT_QUEUE) in self.queues)
            and (not self.batches or job.batch in self.batches)
            and (not self.rules or job.rule in self.rules)
        )

    def refused(self, job: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the fields that its jobs must not have, each with the reason."""
        found = dict(_REFUSED)
        if "id" not in job:  # it is the only job of the rule
            found |= dict.fromkeys(FIELDS, "a job rule sets it")
        if job.get("if_exists") != "queue":
            found["unique"] = _UNIQUE
        return found

    @property
    def words(self) -> str:
        """What it says, as an English sentence without its end."""
        after = " after a failed run" if self.event == RECOVERED else ""
        state = DONE if self.event == RECOVERED else self.event
        if self.at_least > 1:
            span = in_words(self.within)
            counted = f"{self.at_least} jobs{self._which()} or more are {state}{after}"
            return f"{counted} within {span if span[0].isdigit() else f'1 {span}'}"
        if self.event == EMPTY:
            told = f"nothing of {self.whole} is left to run"
        else:
            told = f"a job{self._which()} is {state}{after}"
        return f"{told}, at most once every {in_words(self.within)}" if self.within else told

    @property
    def whole(self) -> str:
        """What must be empty, in words."""
        kinds = (("queue", self.queues), ("batch", self.batches))
        told = [
            f"the {kind}{'s' if len(names) > 1 else ''} {' and '.join(names)}"
            for kind, names in kinds
            if names
        ]
        return " and ".join(told) or "the spool"

    def _which(self) -> str:
        kinds = (
            ("with the tag", self.tags),
            ("of the queue", self.queues),
            ("of the batch", self.batches),
            ("of the rule", self.rules),
        )
        return "".join(f" {words} {_listed(names)}" for words, names in kinds if names)


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join(names)


def read(when: Mapping[str, Any], kind: str) -> JobTrigger:
    """Read `when` of a rule.

    Args:
        kind: KIND.

    Raises:
        Wrong: a value is wrong, or not known.
    """
    when_fields.refuse_unknown(when, kind, KEYS)
    event = when[kind]
    if event not in EVENTS:
        raise Wrong(("when", kind), _EVENT)
    found = JobTrigger(
        event=event,
        tags=_names(when, "tag", _tag),
        queues=_names(when, "queue", lambda name: check_field("queue", name)),
        batches=_names(when, "batch", lambda name: check_field("batch", name)),
        rules=_names(when, "rule", lambda name: check_field("rule", name)),
        within=when_fields.value_of(when, "within", when_fields.whole_span, 0),
        at_least=when_fields.value_of(when, "at_least", _number, 1),
    )
    _refuse_misfits(when, found)
    return found


def _refuse_misfits(when: Mapping[str, Any], found: JobTrigger) -> None:
    if found.event == EMPTY:
        for key in ("tag", "rule"):
            if when.get(key) is not None:
                raise Wrong(("when", key), "empty is told for the spool, a queue or a batch")
        if when.get("at_least") is not None:
            raise Wrong(("when", "at_least"), "is not known for empty, which is about no number of jobs")
    elif when.get("at_least") is not None and not found.within:
        raise Wrong(("when", "at_least"), "within must say in which span")


def _names(when: Mapping[str, Any], key: str, check: Callable[[object], str]) -> tuple[str, ...]:
    """Return one name or several, each once."""
    value = when.get(key)
    if value is None:
        return ()
    if isinstance(value, list) and not 0 < len(value) <= MOST_NAMES:
        raise Wrong(("when", key), f"must be a name, or a list of 1 to {MOST_NAMES}")
    found: list[str] = []
    for number, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
        try:
            found.append(check(one))
        except ValueError as error:
            raise Wrong(("when", key) if number is None else ("when", key, number), str(error)) from None
    return tuple(dict.fromkeys(found))


def _tag(value: object) -> str:
    if not isinstance(value, str) or not is_tag(value):
        raise ValueError("must be a tag: 1 to 64 of A-Z a-z 0-9 . _ : / @ + = -")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be 1 or more")
    return value
