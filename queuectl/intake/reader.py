"""Files that the index does not know, read and made into rows. It asks nobody, so a copy of the process can do it."""

from __future__ import annotations

import os
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import orjson

from queuectl.config.settings import Settings
from queuectl.index.row import COLUMNS, Row, row_of, state_in, values_of
from queuectl.intake.dropped_file import Found, bears, explanation, read_foreign
from queuectl.intake.row_cache import Alike
from queuectl.job import ids
from queuectl.job import record as jobs
from queuectl.layout import DEAD, PENDING
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from queuectl.job.record import Job

_OPEN = (*jobs.DEFAULTED, *jobs.OPTIONAL)
_left_open = attrgetter(*_OPEN)
_ARRIVED, _CREATED = COLUMNS.index("arrived"), COLUMNS.index("created_at")


class Reader:
    """Reads the files of one spool.

    Args:
        root: the spool's folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._micros = 0
        self._in_force = Settings()
        self._accepted_from: Settings | None = None
        self._accepted: dict[tuple[str, ...], str | None] = {}
        self._alike = Alike()

    def begin(self, now: int, settings: Settings) -> None:
        """Say what holds for the files that are read next.

        Args:
            now: the present in microseconds.
            settings: those in force.
        """
        if settings != self._in_force:
            self._alike.forget()
        self._micros, self._in_force = now, settings

    def read(self, place: str, path: str) -> Found:
        """Read one file of a folder; in dead/ what was put there as no job is none."""
        found = read_foreign(path, self._micros, self._in_force.settle_time)
        if place == DEAD and found.job is not None and found.status is not None:
            # A duplicate is a job by itself: taken for one, it would drive the owner of its id out of a new index.
            reason = explanation(path, found.status)
            if reason is not None:
                found.job, found.reason = None, reason
        return found

    def rows(
        self, place: str, names: Sequence[str], left_dead: Container[str]
    ) -> list[tuple[int, float, int, str, Any]]:
        """Read files that the index does not know, and make rows of those that are well-formed jobs: nearly all.

        A row comes behind what tells the order in which the files landed; scandir's is that of a hash. Within one tick
        of the file system's clock, 4 ms on many, all carry the same time. What enqueue wrote has a finer one; of the
        rest job2 goes before job10.
        """
        made: list[tuple[int, float, int, str, Any]] = []
        for name in names:
            path = f"{self._root}{os.sep}{place}{os.sep}{name}"
            values = self._quick(name, path, left_dead) if place == PENDING else None
            if values is not None:
                created = values[_CREATED] / 1e6 if self._alike.says_when else 0.0
                made.append((values[_ARRIVED], created, len(name), name, values))
                continue
            found = self.read(place, path)
            created = found.job.created_at if found.job is not None else None
            row = self._new_row(place, name, found, left_dead)
            values = None if row is None else values_of(row)
            if values is not None and place == PENDING:
                self._alike.learn(values)
            made.append((found.arrived, created or 0.0, len(name), name, values))
        return made

    def _quick(self, name: str, path: str, left_dead: Container[str]) -> tuple[Any, ...] | None:
        """The row of a file that says what one before it said; None for one that needs a closer look."""
        try:
            data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        except (safe_open.NotReadable, OSError):
            return None
        return self._alike.row(name, data, status, self._micros, left_dead)

    def _new_row(self, place: str, name: str, found: Found, left_dead: Container[str]) -> Row | None:
        """The row of a job of which nobody has heard yet, or None."""
        job = found.job
        if job is None or found.status is None:
            return None
        job_id = job.id or name[: -len(".json")]
        if job.id is None and not ids.is_id(job_id):
            return None
        if place == PENDING and (job.state in ("completed", "dead") or job_id in left_dead):
            return None
        if place == PENDING and job.unique is not None and job.created_at is job.updated_at is None:
            return None  # whether it may come in is not for us to say
        if job_id != name[: -len(".json")] and bears(
            f"{self._root}{os.sep}{place}{os.sep}{job_id}.json", job_id
        ):
            return None  # of two new ones, that is it
        return self.row(place, name, job, found, job_id)

    def row(self, place: str, name: str, job: Job, found: Found, job_id: str) -> Row:
        """The row of a job that was read from place/name; in pending/ what it leaves open is settled by this."""
        status = cast("os.stat_result", found.status)
        job.id = job_id
        settings = self._accept(job) if place == PENDING else None
        if job.created_at is None:
            job.created_at = found.arrived / 1e6
        state = state_in(place, job)
        row = row_of(job, place, name, status, state=state, arrived=found.arrived, now=self._micros)
        row.settings = settings
        return row

    def _accept(self, job: Job) -> str | None:
        """Settle what the producer left open, and remember it: a later `config set` is for new jobs only."""
        left_open = tuple([name for name, value in zip(_OPEN, _left_open(job), strict=True) if value is None])
        settings = self._in_force
        for name in left_open:
            setattr(job, name, getattr(settings, name))
        if settings is not self._accepted_from:
            self._accepted_from, self._accepted = settings, {}
        if left_open not in self._accepted:
            values = {name: value for name in left_open if (value := getattr(settings, name)) is not None}
            self._accepted[left_open] = orjson.dumps(values).decode() if values else None
        return self._accepted[left_open]
