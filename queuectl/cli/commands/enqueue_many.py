"""`queuectl enqueue` with --file or --each: queue many jobs in batches, with a progress bar."""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from queuectl.api import json_view
from queuectl.cli import enqueue_answer, enqueue_sources, fast_path, job_reader, render
from queuectl.cli.base import Usage
from queuectl.cli.lost_output import report_done
from queuectl.cli.template_jobs import TEMPLATE_FLAGS, TemplateJobs
from queuectl.errors import (
    WRONG_USAGE,
    DuplicateId,
    InvalidJob,
    KeyTaken,
    NeverStarts,
    QueuectlError,
    QueuedUnsafely,
    Shortage,
)
from queuectl.job.conditions import FIELDS
from queuectl.job.record import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.progress import Progress, TaskID

    from queuectl.cli.base import Session
    from queuectl.cli.typed_jobs import TypedJobs

    Source: TypeAlias = "job_reader.JobFile | TemplateJobs | TypedJobs"

PROGRESS_BAR_AFTER = 500
"""Number of jobs after which a terminal shows a progress bar instead of one line for each job."""


class Mode(NamedTuple):
    """How many jobs are queued and reported.

    Attributes:
        all_or_nothing: queue all of them, or none.
        quiet: print only the ids.
        prefix: put before the ids of the jobs, see `enqueue_sources.put_prefix`.
    """

    all_or_nothing: bool = False
    quiet: bool = False
    prefix: str = ""


def enqueue_file(session: Session, path: str, fields: Mapping[str, Any], mode: Mode) -> None:
    """Queue every job of a file; fields override those of each job. Stop at the first job that is not valid.

    Raises:
        QueuectlError: why it stopped, at which line, and how many jobs were queued before.
    """
    with job_reader.opened(path) as source:
        enqueue_from(session, source, fields, mode, is_whole=source.may_have_conditions())


def enqueue_each(
    session: Session,
    patterns: Sequence[str],
    command: str | list[str],
    fields: Mapping[str, Any],
    mode: Mode,
    *,
    end: bytes,
) -> None:
    """Queue one job for each value of the patterns; see `TemplateJobs`. Fields override those of each job."""
    source = TemplateJobs(patterns, command, fields, end, skips_unreadable=not mode.all_or_nothing)
    others = {name: value for name, value in fields.items() if name not in TEMPLATE_FLAGS}
    enqueue_from(session, source, others, mode)
    if source.left_out:
        left_out = render.count(source.left_out, "value")
        raise QueuectlError(f"{left_out} on stdin not queued, as no job file can contain what is not UTF-8")


def enqueue_from(
    session: Session, source: Source, fields: Mapping[str, Any], mode: Mode, *, is_whole: bool = False
) -> None:
    """Queue the jobs of a source, and report each; fields override those of each job.

    Args:
        is_whole: read all jobs before the first is queued, as one of them may wait for another.

    Raises:
        QueuectlError: as for `enqueue_file`.
    """
    gc.disable()  # job records contain no reference cycles, and searching for some takes a tenth of the time
    feed = _Feed(source, fields, mode, is_whole=is_whole)
    with _Bar(source, mode) as bar, render.JsonArray() if session.json else nullcontext() as array:
        _queue(session, feed, bar, array)
    if feed.takes_default and not (mode.quiet or session.json) and render.is_terminal():
        settings = session.spool.settings()
        render.line(enqueue_answer.limits(settings.timeout, max(1, settings.max_retries), is_default=True))
    if not mode.quiet:
        enqueue_answer.note_old_members(session.spool, feed.batches, time.time())
        enqueue_answer.note_skipped_parents(feed.skipped_parents)
    if feed.queued == feed.skipped == 0:
        render.note(f"no jobs in {source.name}")
    elif bar.replaces_lines and array is None:
        render.line(f"enqueued {render.count(feed.queued, 'job')}")


def _queue(session: Session, feed: _Feed, bar: _Bar, array: render.JsonArray | None) -> None:
    mode = feed.mode

    def skipped(taken: KeyTaken) -> None:
        feed.skip()
        if array is not None:
            array.add(json_view.skipped(session.spool, taken))
        elif not (bar.replaces_lines or mode.quiet):
            render.line(f"skipped: {render.visible(str(taken))}")

    replaced: dict[str, list[str]] = {}
    try:
        stream = session.spool.enqueue_stream(
            feed.jobs(),
            all_or_nothing=mode.all_or_nothing,
            skipped=skipped,
            replaced=replaced.__setitem__,
            enqueued=None if array is None else lambda job: array.add(json_view.enqueued(session.spool, job)),
        )
        for job_id in stream:
            feed.count_queued()
            report_done(f"enqueued {render.count(feed.queued, 'job')}")
            if mode.quiet:
                render.line(job_id)
            elif array is None and not bar.replaces_lines:
                render.line(f"enqueued job {job_id}")
                for one in replaced.pop(job_id, ()):
                    render.line(f"replaced job {one}")
            bar.update(feed.queued)
    except KeyboardInterrupt:
        raise _stopped("interrupted", feed, 130) from None
    except QueuectlError as error:
        raise _placed(error, feed.place_of(error), feed) from None
    if feed.error is not None:
        raise _placed(feed.error, feed.source.place, feed)


class _Feed:
    """Hands the jobs of a source to the spool.

    An error in the source ends the stream and is kept in `error`, so that the jobs before it are queued in complete
    batches first. If all jobs are to be checked before the first is queued, it is raised.

    Args:
        is_whole: all jobs are read before the first is queued.

    Attributes:
        is_checked_first: an error in one of the jobs keeps all from being queued.
    """

    def __init__(self, source: Source, fields: Mapping[str, Any], mode: Mode, *, is_whole: bool) -> None:
        self.source = source
        self.mode = mode
        self.error: QueuectlError | None = None
        self.queued = self.skipped = 0
        self.takes_default = False
        self.batches: dict[str, None] = {}
        self.is_checked_first = mode.all_or_nothing or is_whole or bool(mode.prefix)
        self._is_whole = is_whole
        self._fields = fields
        self._in_progress: deque[tuple[str, dict[str, Any]]] = deque()
        self._names: set[str] = set(KNOWN)
        self._parents: set[str] = set()
        self._skipped_ids: list[str] = []

    @property
    def skipped_parents(self) -> list[str]:
        """The ids of skipped jobs for which other jobs of the source wait."""
        return [job_id for job_id in self._skipped_ids if job_id in self._parents]

    def jobs(self) -> Iterable[dict[str, Any]]:
        """Return the jobs of the source, as one list if they are to be read before the first is queued."""
        return [*self] if self._is_whole else self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        shared = fast_path.merged({}, self._fields)
        try:
            for place, record in self._read():
                number += 1
                if not record.keys() <= self._names:
                    self._note_new_names(record)
                job_reader.times_of_file(record)
                if number > 1 and "id" in self._fields:
                    raise Usage(
                        "--id names one job, and the file contains several", hint="queuectl enqueue --help"
                    )
                own = not record.keys().isdisjoint(("cwd", "env", "tags"))
                made = fast_path.merged(record, self._fields) if own else {**record, **shared}
                self.takes_default |= made.get("timeout") is None
                if not made.keys().isdisjoint(FIELDS):
                    self.is_checked_first = True
                    self._parents.update(enqueue_sources.parents_of(made))
                if isinstance(batch := made.get("batch"), str):
                    self.batches[batch] = None
                self._in_progress.append((place, made))
                yield made
        except QueuectlError as error:
            if self.is_checked_first:
                error.position = number  # it is behind the jobs that were read
                raise
            self.error = error

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the jobs of the source, each with its place."""
        read = ((self.source.place, record) for record in self.source)
        if self.mode.prefix:
            found = [*read]
            enqueue_sources.put_prefix(self.mode.prefix, (record for _, record in found))
            yield from found
        else:
            yield from read

    def _note_new_names(self, record: Mapping[str, Any]) -> None:
        """Say once which unknown names are most likely mistyped fields."""
        from queuectl.job.near_names import near_misses

        for miss in near_misses(record.keys() - self._names):
            render.note(f"{self.source.name} {self.source.place}: {miss}")
        self._names |= record.keys()

    def count_queued(self) -> None:
        """Count one more queued job. The spool queues the jobs in their order."""
        self.queued += 1
        self._in_progress.popleft()

    def skip(self) -> None:
        """Count one more job that was not queued because another job has its unique key."""
        self.skipped += 1
        _, record = self._in_progress.popleft()
        if "id" in record:  # others of a stream cannot be named, and there may be millions
            self._skipped_ids.append(str(record["id"]))

    def place_of(self, error: QueuectlError) -> str:
        """The place in the source of the job that caused this error."""
        if not isinstance(error, InvalidJob | Shortage | DuplicateId):
            return ""
        at = None if error.position is None else error.position - self.queued - self.skipped
        if at is not None and at < len(self._in_progress):
            return self._in_progress[at][0]
        if isinstance(error, DuplicateId):
            same = [place for place, record in self._in_progress if str(record.get("id", "")) == error.job_id]
            return same[-1] if same else ""
        return self.source.place


def _placed(error: QueuectlError, place: str, feed: _Feed) -> QueuectlError:
    """The same error with the file, the line, and the number of queued jobs."""
    text = f"{feed.source.name} {place}: {error}" if place else str(error)
    code = WRONG_USAGE if feed.source.is_typed and isinstance(error, InvalidJob) else error.exit_code
    return _stopped(text, feed, code, error.hint, some=isinstance(error, QueuedUnsafely | NeverStarts))


def _stopped(
    text: str, feed: _Feed, exit_code: int, hint: str | None = None, *, some: bool = False
) -> QueuectlError:
    before = ""
    if feed.queued:
        were = "was" if feed.queued == 1 else "were"
        before = f"; {render.count(feed.queued, 'job')} before it {were} queued"
    elif feed.is_checked_first and not some:
        before = "; none was queued"
    stopped = QueuectlError(f"{text}{before}", hint=hint)
    stopped.exit_code = exit_code
    return stopped


class _Bar:
    """A progress bar on stderr. It appears only on a terminal, and only after many jobs."""

    def __init__(self, source: Source, mode: Mode) -> None:
        self._source = source
        self._quiet = mode.quiet
        self._on_terminal = render.is_terminal(sys.stderr)
        self._progress: Progress | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def replaces_lines(self) -> bool:
        """Whether the bar is shown on the terminal to which the lines would go."""
        return self._progress is not None and render.is_terminal() and not self._quiet

    def update(self, queued: int) -> None:
        """Show how many jobs are queued now."""
        if not self._on_terminal or queued < PROGRESS_BAR_AFTER:
            return
        if self._progress is None:
            self._start()
        if self._progress is not None and self._bar is not None and queued % 100 == 0:
            self._progress.update(self._bar, completed=self._source.consumed, queued=queued)

    def _start(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("enqueueing"),
            BarColumn(),
            TextColumn("{task.fields[queued]} jobs"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=render.console(stderr=True),
            transient=True,
        )
        self._bar = self._progress.add_task("", total=self._source.size, queued=0)
        self._progress.start()
