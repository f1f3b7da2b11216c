"""`queuectl check`: check job files without queueing them, and show the line and column of each error."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import job_reader, render
from queuectl.cli.base import Session, command
from queuectl.errors import InvalidJob, QueuectlError
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.near_names import near_misses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

_PLACE = re.compile(r" \(line \d+(, column \d+)?(, where the file ends)?\)$")
_ENQUEUE_ONLY = {"delay": "run_at", "expires_in": "expires_at"}
_CHOSEN_LATER = {
    "id": "generated (dropped file: its name)",
    "cwd": "the current directory (dropped file: the worker's home)",
}


@command(
    "check",
    examples="""
    queuectl check job.json                    is it valid, and which defaults would apply?
    queuectl check jobs/*.json || exit 1       in the tests of a program that writes job files
    my-producer | queuectl check -             from another program
    queuectl check --json jobs.ndjson | jq '.[] | select(.ok | not)'
    """,
)
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.pass_obj
def check_command(session: Session, files: tuple[str, ...]) -> int:
    """Check job files, and queue nothing.

    A FILE is read in the same way as by `enqueue --file`: JSON or YAML; one job, a list, or one JSON job on each line;
    - is stdin. (A file that is dropped into pending/ must contain one job, in JSON.) For each job a line is printed:
    FILE:LINE: ok, or FILE:LINE:COLUMN: and the error; after an error the exit code is 1. Fields that are missing are
    shown with the values that the settings of the spool would give them. Whether an id is already used is checked only
    when the job is queued.
    """
    session.spool.settings()  # an error in the settings is not an error of a file
    checks = [_FileCheck(name, session.spool) for name in files]
    with render.JsonArray() if session.json else nullcontext() as array:
        for one in checks:
            for found in one.findings():
                if array is not None:
                    array.add(found)
                else:
                    _print(found)
            if array is None and one.left_open:
                render.line("  by default: " + ", ".join(f"{k} {v}" for k, v in one.left_open.items()))
    bad = sum(one.bad for one in checks)
    if bad:
        render.note(f"error: {bad} of {render.count(bad + sum(one.good for one in checks), 'job')} refused")
    return 1 if bad else 0


class _FileCheck:
    """One file, and the counts of its jobs."""

    def __init__(self, path: str, spool: Spool) -> None:
        self.path = path
        self.good = self.bad = 0
        self.left_open: dict[str, str] = {}
        self._spool = spool
        self._ids: set[str | None] = set()

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield the result of each job, as --json shows it. The first text that is not JSON ends the file."""
        try:
            with job_reader.opened(self.path) as source:
                yield from self._of(source)
        except QueuectlError as error:
            self.bad += 1
            yield _refused(self.path, error.message, None, None)

    def _of(self, source: job_reader.JobFile) -> Iterator[dict[str, Any]]:
        try:
            for record in source:
                yield self._job(source, record)
        except InvalidJob as error:
            self.bad += 1
            at = error.at or source.place_of(error.field)
            yield _refused(source.name, _PLACE.sub("", error.reason), at, error.field)
            return
        if not self.good + self.bad:
            render.note(f"no jobs in {source.name}")
        elif (source.form != "json" or self.good + self.bad > 1) and source.name.endswith(".json"):
            only = "a dropped file holds one job, in JSON"
            if self._is_dropped:
                self.bad += 1
                yield _refused(source.name, f"{only}: queuectl enqueue --file {source.name}", None, None)
            else:
                render.note(f"note: {source.name} is for `enqueue --file`: {only}")

    @property
    def _is_dropped(self) -> bool:
        folder = os.path.dirname(os.path.realpath(self.path))
        return folder == os.path.realpath(self._spool.layout.pending)

    def _job(self, source: job_reader.JobFile, record: dict[str, Any]) -> dict[str, Any]:
        notes = [*remarks(record), *zone_remarks(record)]
        job_reader.times_of_file(record)
        try:
            job = self._spool.check(record)
            if record.get("id") is not None and job.id in self._ids:
                raise InvalidJob("an earlier job in the file has it", field="id")
        except InvalidJob as error:
            self.bad += 1
            return _refused(source.name, error.reason, source.place_of(error.field), error.field)
        self.good += 1
        self._ids |= {job.id} if record.get("id") is not None else set()
        left = _left_open(job, record)
        self.left_open |= {
            name: _CHOSEN_LATER.get(name) or render.clip(str(value), 60) for name, value in left.items()
        }
        return {
            "file": source.name,
            "line": (source.place_of(None) or (None,))[0],
            "ok": True,
            "id": None if record.get("id") is None else job.id,
            "command": job.command,
            "defaults": {name: value for name, value in left.items() if name not in _CHOSEN_LATER},
            "notes": [f"{_spot(source.place_of(name))}{note}" for name, note in notes],
        }


def _left_open(job: Job, record: dict[str, Any]) -> dict[str, Any]:
    """The missing fields with the defaults that apply, in the order of the documentation."""
    got = {name: getattr(job, name) for name in jobs.PRODUCER_FIELDS if record.get(name) is None}
    return {
        name: value
        for name, value in got.items()
        if value is not None and value is not False and name not in _ENQUEUE_ONLY.values()
    }


def remarks(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields that are allowed but most likely a mistake, with the reason."""
    for name in record:
        if name in _ENQUEUE_ONLY:
            works = f"{name} works only with `enqueue`; in a dropped file it has no effect: use {_ENQUEUE_ONLY[name]}"
            yield name, works
        yield from ((name, miss) for miss in near_misses([name]))


def zone_remarks(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the times without a zone, with the moment that they mean."""
    for name in ("run_at", "expires_at"):
        if times.without_zone(record.get(name)):
            moment = times.parse_moment(record[name], of_machine=True)
            meant = times.with_zone(moment, of_machine=True)
            yield name, f"{name} has no zone, so that of this machine counts: {meant}"


def _refused(name: str, reason: str, at: tuple[int, int] | None, field: str | None) -> dict[str, Any]:
    line, column = at or (None, None)
    return {"file": name, "line": line, "column": column, "ok": False, "field": field, "error": reason}


def _spot(at: tuple[int, int] | None) -> str:
    return f"{at[0]}:{at[1]}: " if at else ""


def _print(found: dict[str, Any]) -> None:
    name = found["file"]
    if not found["ok"]:
        at = (found["line"], found["column"]) if found["line"] else None
        field = f"{found['field']}: " if found["field"] else ""
        render.line(f"{name}:{_spot(at) or ' '}{field}{found['error']}")
        return
    job_id = f"{found['id']} - " if found["id"] else ""
    shown_command = jobs.Job(command=found["command"]).shown_command
    render.line(f"{name}:{found['line']}: ok - {job_id}{render.clip(shown_command, 200)}")
    for note in found["notes"]:
        render.line(f"{name}:{note}")
