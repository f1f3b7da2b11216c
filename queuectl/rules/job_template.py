"""The jobs that a rule queues: checked when the rule is read, and filled in for each occurrence. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from queuectl.errors import InvalidJob
from queuectl.job import conditions, times
from queuectl.job import record as jobs
from queuectl.job.fields import BATCH, is_id
from queuectl.rules import file_jobs, occurrences
from queuectl.rules.file_trigger import FileTrigger
from queuectl.rules.job_trigger import JobTrigger
from queuectl.rules.rule import Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from queuectl.rules.rule import Path, Rule, Trigger

LONGEST_ID = 12
"""Characters of an id within `jobs:`. The name of the rule and the moment stand before it in the id of the job."""

MOST_JOBS = 1000
"""The most jobs of one rule."""

SLOT = "{slot}"
"""What stands for the occurrence in the names of batches."""

_REFUSED = {
    "id": "a rule makes the ids",
    "run_at": "the slot says when",
    "delay": "the slot says when",
    "expires_at": "write expires_in, which counts from the slot",
}
_SHAPE = "must be a map with `command`, as a job file"
_SAMPLE = 1924995600  # 2031-01-01T01:00:00Z


def read(record: Mapping[str, Any], trigger: Trigger) -> tuple[tuple[Mapping[str, Any], ...], bool]:
    """Return the jobs of a rule file, and whether they are a list. They are checked as they will be queued.

    Raises:
        Wrong: something in them is wrong.
    """
    one, many = record.get("job"), record.get("jobs")
    if (one is None) == (many is None):
        both = one is not None
        raise Wrong((), f"has {'job and jobs' if both else 'neither job nor jobs'}; one of them is wanted")
    found: tuple[Mapping[str, Any], ...]
    if isinstance(one, dict):
        _check_shape(("job",), one, trigger)
        found = (one,)
    elif many is None:
        raise Wrong(("job",), _SHAPE)
    else:
        if not isinstance(many, list) or not 0 < len(many) <= MOST_JOBS:
            raise Wrong(("jobs",), f"must be a list of 1 to {MOST_JOBS} jobs")
        for number, each in enumerate(many):
            _check_shape(("jobs", number), each, trigger)
        _check_ids(many)
        if trigger.overlap in ("queue", "replace"):
            raise Wrong(("when", "overlap"), "must be skip or allow with jobs")
        found = tuple(many)
    if isinstance(trigger, FileTrigger):
        if many is not None and trigger.moves:
            raise Wrong(("when", "source"), "must be leave with jobs")
        sample = file_jobs.sample(found, trigger, is_list=many is not None)
        _check_fields(sample, trigger, is_list=many is not None)
    else:
        _check_fields(found, trigger, is_list=many is not None)
    return found, many is not None


def _check_shape(path: Path, job: Any, trigger: Trigger) -> None:
    if not isinstance(job, dict):
        raise Wrong(path, _SHAPE)
    refused = {**_REFUSED, **trigger.refused(job)} if isinstance(trigger, JobTrigger) else _REFUSED
    for name, reason in refused.items():
        if name in job and not (name == "id" and path[0] == "jobs"):
            raise Wrong((*path, name), reason)
    for name in job:
        if name in jobs.KNOWN and name not in jobs.PRODUCER_FIELDS:
            raise Wrong((*path, name), "only queuectl writes this field")


def _check_ids(many: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for number, job in enumerate(many):
        name = job.get("id")
        if not isinstance(name, str) or not is_id(name) or len(name) > LONGEST_ID:
            wanted = f"each job of a list needs an id of 1 to {LONGEST_ID} of A-Z a-z 0-9 . _ -"
            raise Wrong(("jobs", number, "id") if "id" in job else ("jobs", number), wanted)
        if name in seen:
            raise Wrong(("jobs", number, "id"), f"{name} is the id of an earlier job of the list")
        seen.add(name)


def _check_fields(templates: tuple[Mapping[str, Any], ...], trigger: Trigger, *, is_list: bool) -> None:
    graph: dict[str, list[str]] = {}
    keys: set[str | None] = set()
    sample = occurrences.text_of(_SAMPLE)
    for number, template in enumerate(templates):
        path: Path = ("jobs", number) if is_list else ("job",)
        fields = _filled("x" * 30, template, _names(templates), sample, is_list=is_list)
        span = fields.pop("expires_in", None)
        try:
            job = jobs.from_mapping(fields)
            conditions.check(job)
        except InvalidJob as error:
            raise Wrong((*path, error.field) if error.field else path, error.reason) from None
        try:
            is_too_short = span is not None and times.parse_duration(span) <= trigger.jitter
        except ValueError as error:
            raise Wrong((*path, "expires_in"), str(error)) from None
        if is_too_short:
            raise Wrong((*path, "expires_in"), "must be longer than jitter, or it could never start")
        if job.unique in keys and job.if_exists in (None, "skip"):
            raise Wrong(
                (*path, "unique"),
                "is the key of an earlier job of the list, which keeps this one out; if_exists: queue lines it up",
            )
        keys |= {job.unique} - {None}
        graph[job.id] = [one.parent for one in conditions.of_job(job)]
    if is_list:
        _refuse_ring(graph)


def _refuse_ring(graph: dict[str, list[str]]) -> None:
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring = [one.rpartition(".")[2] for one in error.args[1][::-1]]
        raise Wrong(("jobs",), f"{ring[0]} waits for itself: {', '.join(ring)}") from None


def _names(templates: tuple[Mapping[str, Any], ...]) -> frozenset[str]:
    return frozenset(str(one["id"]) for one in templates if "id" in one)


def _filled(
    rule: str, template: Mapping[str, Any], names: frozenset[str], occurrence: str, *, is_list: bool
) -> dict[str, Any]:
    """Return the fields of one job of an occurrence; `expires_in` is left in them."""
    base = f"{rule}.{occurrence}"
    fields = {name: value for name, value in template.items() if value is not None}
    fields["id"] = f"{base}.{fields['id']}" if is_list else base
    fields["rule"] = rule
    if isinstance(batch := fields.get("batch"), str):
        fields["batch"] = batch.replace(SLOT, occurrence)
    elif is_list and "batch" not in fields:
        fields["batch"] = base
    for kind in conditions.FIELDS:
        parents = fields.get(kind)
        if isinstance(parents, str):
            parents = [parents]
        if isinstance(parents, list):
            fields[kind] = [_parent(one, names, base, occurrence) for one in parents]
    return fields


def _parent(one: Any, names: frozenset[str], base: str, occurrence: str) -> Any:
    if not isinstance(one, str):
        return one
    if one.startswith(BATCH):
        return one.replace(SLOT, occurrence)
    return f"{base}.{one}" if one in names else one


def made(rule: Rule, occurrence: str, moment: int | None, now: float) -> Iterator[dict[str, Any]]:
    """Yield the fields of each job of an occurrence, as a job file has them.

    Args:
        occurrence: as it stands in the ids.
        moment: of the occurrence in epoch seconds; None: the rule is run by a person, now.
        now: epoch seconds.
    """
    trigger, names = rule.trigger, _names(rule.jobs)
    for template in rule.jobs:
        fields = _filled(rule.name, template, names, occurrence, is_list=rule.is_list)
        span = fields.pop("expires_in", None)
        if span is not None:
            fields["expires_at"] = (now if moment is None else moment) + times.parse_duration(span)
        if moment is not None:
            fields["scheduled_for"] = occurrences.scheduled_for(moment, trigger.timezone)
            if trigger.jitter:
                fields["run_at"] = moment + _share(f"{rule.name}.{occurrence}") * trigger.jitter
        if trigger.overlap != "allow" and not rule.is_list and "unique" not in fields:
            fields |= {"unique": key_of(rule.name), "if_exists": trigger.overlap}
        yield fields


def key_of(rule: str) -> str:
    """Return the unique key of the jobs of a rule, unless they have one of their own."""
    return f"rule/{rule}"


def _share(text: str) -> float:
    """Return a number from 0 to 1 that is always the same for the same text, so that a restart puts nothing off."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
