"""Queues the jobs of one occurrence of a rule. Who does it does not matter: the ids are made from the occurrence.

So a job that a crash left queued without a note is found by its id, and is not queued twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.errors import DuplicateId, KeyTaken
from queuectl.index.filter import Filter
from queuectl.job.fields import new_id
from queuectl.rules import hooks, job_queueing, job_template, occurrences
from queuectl.rules.job_trigger import TRIAL, JobTrigger
from queuectl.storage import locate, unique_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.settings import JobDefaults
    from queuectl.rules.rule import Rule
    from queuectl.storage.transitions import Storage

RUN = "run-"
"""The beginning of what stands for the occurrence in the id of a job that a person had a rule queue."""


class Unfinished(Exception):
    """The time was up before all jobs of a list were queued. The next call goes on with the others."""


def queue(
    storage: Storage,
    defaults: JobDefaults,
    rule: Rule,
    moment: int,
    is_time_up: Callable[[], bool] = lambda: False,
) -> str | None:
    """Queue the jobs of an occurrence, as durably as `enqueue`. Those that are queued already are left alone.

    Args:
        moment: in epoch seconds.
        is_time_up: asked after each job of a list.

    Returns:
        why nothing was queued; None if the jobs are there.

    Raises:
        Unfinished: the time was up.
        QueuectlError: the disk refused, or the settings or the file of a queue are not valid.
    """
    now = storage.now()
    occurrence = occurrences.text_of(moment)
    records = list(job_template.made(rule, occurrence, moment, now))
    missing = [record for record in records if locate.state_of(storage, record["id"]) is None]
    if not missing:
        return None
    if all(record.get("expires_at", now) < now for record in missing):
        return "expires_in was over"
    is_begun = len(missing) < len(records)
    must_be_alone = rule.is_list and rule.trigger.overlap == "skip" and not is_begun
    if must_be_alone and (other := under_way(storage, rule.name)):
        return f"job {other} is not over"
    if rule.is_list and not is_begun and (other := _in_the_way(storage, missing)):
        return f"job {other} is not over"
    for record in missing:
        try:
            job_queueing.enqueue_one(storage, defaults, record, now)
        except DuplicateId:
            continue
        except KeyTaken as error:
            return f"job {error.job_id} is not over"
        if record is not missing[-1] and is_time_up():
            raise Unfinished
    return None


def queue_several(
    storage: Storage, defaults: JobDefaults, wanted: list[tuple[Rule, int]]
) -> list[str | None]:
    """Queue one occurrence of each of several rules that have one job, with one wait for the disk.

    Args:
        wanted: the rules, each with the moment in epoch seconds.

    Returns:
        for each why nothing was queued; None if the job is there.

    Raises:
        QueuectlError: as by `queue`, because of one of them. Some may be queued.
    """
    now = storage.now()
    reasons: dict[str, str | None] = {}
    batch = []
    for rule, moment in wanted:
        [record] = job_template.made(rule, occurrences.text_of(moment), moment, now)
        reasons[record["id"]] = None
        if record.get("expires_at", now) >= now:
            batch.append(job_queueing.prepared(defaults, record, now))
        elif locate.state_of(storage, record["id"]) is None:
            reasons[record["id"]] = "expires_in was over"
    taken = job_queueing.enqueue_several(storage, batch, durable=defaults.settings.durability == "full")
    return [
        f"job {taken[job_id].job_id} is not over" if job_id in taken else why
        for job_id, why in reasons.items()
    ]


def _in_the_way(storage: Storage, records: list[dict[str, Any]]) -> str | None:
    """Return the id of a job that has the key of one of these. Half a list would wait for the other half for ever."""
    keys = [
        record["unique"]
        for record in records
        if "unique" in record and record.get("if_exists", "skip") == "skip"
    ]
    with unique_keys.locked(storage):
        return next((row.id for key in keys for row in unique_keys.jobs_with(storage, key)), None)


def queue_now(storage: Storage, defaults: JobDefaults, rule: Rule) -> list[str]:
    """Queue the jobs of a rule because a person wants it; no occurrence is used up.

    Returns:
        their ids.

    Raises:
        KeyTaken: an earlier job of the rule is not over, and it asks to be skipped then.
        QueuectlError: the disk refused, or the settings or the file of a queue are not valid.
    """
    now = storage.now()
    occurrence = f"{RUN}{new_id(now).rpartition('-')[2]}"
    made = (
        hooks.records_of(rule, occurrence, TRIAL, TRIAL, now, {})
        if isinstance(rule.trigger, JobTrigger)
        else list(job_template.made(rule, occurrence, None, now))
    )
    for record in made:
        try:
            job_queueing.enqueue_one(storage, defaults, record, now)
        except KeyTaken as taken:
            if taken.key == job_template.key_of(rule.name):  # nobody who wrote `overlap` knows this key
                taken.message = (
                    f"job {taken.job_id} of rule {rule.name} is not over ({taken.state}), "
                    f"and overlap is {rule.trigger.overlap}"
                )
            raise
    return [str(record["id"]) for record in made]


def under_way(storage: Storage, rule: str) -> str | None:
    """Return the id of a job of a rule that waits, runs, or is between two attempts; None if there is none.

    Blocked jobs do not count: one dead step would else end the rule for ever.
    """
    with unique_keys.locked(storage):  # the index agrees with the folders then
        found = storage.index.select(
            Filter(states=("pending", "processing", "failed"), rule=rule, blocked=False, limit=1)
        )
    return found[0].id if found else None
