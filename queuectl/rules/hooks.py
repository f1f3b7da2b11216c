"""The jobs that rules about jobs queue: before an end is recorded, so that no crash in between loses one.

Such a job waits for that end by `after` or `after_failure`. If the worker dies before it has recorded the end, the job runs
again: either it ends in the same way, and the id shows that its hook is queued, or it ends in another, and the hook is not
needed. No hook is ever told of: that could go on for ever.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from queuectl.config.settings import JobDefaults
from queuectl.errors import ConfigError, InvalidJob, QueuectlError
from queuectl.job.conditions import FIELDS
from queuectl.job.outcome import CANCELLED
from queuectl.rules import job_queueing, job_template, untold
from queuectl.rules.job_trigger import DEAD, DONE, RECOVERED, JobTrigger
from queuectl.rules.untold import Untold
from queuectl.storage import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.job.record import Job
    from queuectl.rules.rule import Rule
    from queuectl.storage.transitions import Prepared, Storage

GIVE_UP_ON, MAX_RETRIES, TIMEOUT = [100], 8, 30.0
"""What a hook gets for the fields that its rule leaves out: as `queuectl notify` wants it."""

MOST_LEFT = 10_000
"""Hooks that are kept in memory while the disk takes none. The others are noted only, see `untold`."""

_MOST_TIMES = 10_000


def occurrence_of(*facts: object) -> str:
    """Return what stands for something that has happened in the ids of its jobs, like job-mzxw6ytboi4do."""
    digest = hashlib.sha256("\0".join(map(str, facts)).encode()).digest()
    return f"job-{b32encode(digest).decode()[:13].lower()}"


def has_happened(event: str, job: Job, state: str) -> bool:
    """Return whether this has become of a job that ends in this state, and not by a person's order."""
    if event == DEAD:
        return state == "dead" and job.last_error != CANCELLED
    if state != "completed" or job.not_run is not None:
        return False
    return event == DONE or (event == RECOVERED and job.has_recovered)


def records_of(
    rule: Rule, occurrence: str, event: str, about: str, now: float, wait: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the fields of the jobs that tell of something.

    Args:
        about: of what they tell, for the field `about`.
        now: epoch seconds.
        wait: the fields by which those of them wait that wait for nothing else. `expires_in` counts from their `run_at`.
    """
    found = []
    for fields in job_template.made(rule, occurrence, None, wait.get("run_at", now)):
        record = {"give_up_on": GIVE_UP_ON, "max_retries": MAX_RETRIES, "timeout": TIMEOUT} | fields
        if not any(record.get(kind) for kind in FIELDS):
            record |= wait
        found.append(record | {"event": event, "about": about})
    return found


def _wait(event: str, about: str) -> dict[str, Any]:
    """Return the field by which a hook waits for the end of which it tells."""
    return {"after_failure" if event == DEAD else "after": [about]}


class _SpoolDefaults(JobDefaults):
    """What jobs get of the settings of the spool alone."""

    def of(self, _: str | None) -> Settings:
        """Return them, whatever the queue."""
        return self.settings


class Hooks:
    """The rules of one spool that tell of each end by itself, and what one process has to queue for them.

    Args:
        settings: returns the settings of the spool.
        find_danger: returns why nothing may be queued, as others can write into the spool; None: it may.
        say: takes a line for the log.

    Attributes:
        refused: why something could not be queued yet; None if nothing is left.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        find_danger: Callable[[], str | None],
        say: Callable[[str], None],
    ) -> None:
        self._storage, self._settings = storage, settings
        self._find_danger, self._say = find_danger, say
        self._defaults: JobDefaults | None = None
        self._rules: list[tuple[Rule, JobTrigger]] = []
        self._left: dict[str, dict[str, Any]] = {}
        self._noted: dict[str, Untold] = {}
        self.refused: str | None = None

    def follow(self, rules: Iterable[Rule]) -> None:
        """Follow these rules from now on; those of another kind are left out."""
        self._rules = [
            (rule, trigger)
            for rule in rules
            if isinstance(trigger := rule.trigger, JobTrigger) and trigger.is_told_at_once
        ]
        if self._rules:
            with suppress(OSError):  # a full disk: what cannot be noted is kept in memory only
                untold.make_folder(self._storage.layout)

    def take_over(self) -> None:
        """Take over what other processes could not queue, as they may be dead. One worker of all does this, once a second."""
        for one in untold.left(self._storage.layout) if self._rules else ():
            if one.hook in self._left or len(self._left) >= MOST_LEFT:
                continue
            if locate.state_of(self._storage, one.about) is None:
                untold.forget(
                    self._storage.layout, [one]
                )  # somebody has deleted the job: nothing is left to tell
            elif (record := self._record_of(one)) is not None:
                self._left[one.hook], self._noted[one.hook] = record, one

    def _record_of(self, one: Untold) -> dict[str, Any] | None:
        """Return the fields of a hook that was noted; None: its rule is gone or paused, or is about something else now."""
        now = self._storage.now()
        _, occurrence, *_ = one.hook.split(".")
        records = [
            record
            for rule, trigger in self._rules
            if rule.name == one.rule and trigger.event == one.event
            for record in records_of(rule, occurrence, one.event, one.about, now, _wait(one.event, one.about))
        ]
        return next((record for record in records if record["id"] == one.hook), None)

    def before_end(self, ended: Sequence[tuple[Job, str]]) -> None:
        """Queue what tells of these ends. See `Storage.before_end`.

        What the disk refuses is kept, and tried again: an end is recorded all the same.

        Raises:
            sqlite3.Error: the index refused.
        """
        if not self._rules:
            return
        now = self._storage.now()
        for job, state in ended:
            for rule, trigger in self._rules:
                if trigger.is_about(job) and has_happened(trigger.event, job, state):
                    self._left |= {record["id"]: record for record in self._of_end(rule, trigger, job, now)}
        self.try_again()

    def _of_end(self, rule: Rule, trigger: JobTrigger, job: Job, now: float) -> list[dict[str, Any]]:
        """Return the jobs that tell of an end; none if they are queued already.

        A hook that waits was queued before a crash, or its rule could not tell of the end before: in both cases it tells of this
        one. One that has begun has told of an earlier end.
        """
        for time in range(_MOST_TIMES):
            occurrence = occurrence_of(trigger.event, job.id, time)
            about = job.id or ""
            records = records_of(rule, occurrence, trigger.event, about, now, _wait(trigger.event, about))
            states = [locate.state_of(self._storage, record["id"]) for record in records]
            if states[0] in (None, "pending", "failed"):
                if time and locate.has_ended(self._storage, about):
                    # Another worker has found the same file that is no job, and has recorded the end meanwhile.
                    break
                return [record for record, state in zip(records, states, strict=True) if state is None]
        return []

    def try_again(self) -> None:
        """Queue what is left. A worker calls this once a second while the disk refuses."""
        if not self._left:
            return
        try:
            danger = self._find_danger()
            if danger is None:
                self._queue()
        except (QueuectlError, OSError) as error:
            danger = str(error)
        if danger is None:
            self.refused = None
            self._left.clear()
            untold.forget(self._storage.layout, self._noted.values())
            self._noted.clear()
            return
        self._note_left()
        for surplus in list(self._left)[:-MOST_LEFT]:
            del self._left[surplus]
        if self.refused != danger:
            self._say(f"cannot queue {next(iter(self._left))} yet: {danger}")
        self.refused = danger

    def _note_left(self) -> None:
        """Note what could not be queued, so that it is not lost if this process dies."""
        for hook, record in self._left.items():
            if hook not in self._noted:
                one = Untold(record["event"], hook, record["about"])
                with suppress(OSError):  # not even a name: it is kept in memory only
                    untold.note(self._storage.layout, one)
                    self._noted[hook] = one

    def _queue(self) -> None:
        settings, now = self._settings(), self._storage.now()
        self._defaults = self._defaults or JobDefaults(self._storage.layout, settings)
        self._defaults.refresh(settings)
        batch = [made for record in list(self._left.values()) if (made := self._prepared(record, now))]
        job_queueing.enqueue_several(self._storage, batch, durable=settings.durability == "full")

    def _prepared(self, record: dict[str, Any], now: float) -> Prepared | None:
        """Return a hook as it is enqueued; None: it can be no job. One that is wrong must not keep the others from being queued."""
        defaults = self._defaults or JobDefaults(self._storage.layout, self._settings())
        try:
            try:
                return job_queueing.prepared(defaults, record, now)
            except ConfigError:
                # The file of its queue is not valid. The hook waits there until it is.
                return job_queueing.prepared(
                    _SpoolDefaults(self._storage.layout, defaults.settings), record, now
                )
        except InvalidJob as error:
            self._say(f"rule {record['rule']}: {record['id']} cannot be queued: {error.reason}")
            del self._left[record["id"]]
            return None
