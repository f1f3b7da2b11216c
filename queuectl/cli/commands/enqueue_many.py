"""`queuectl enqueue` with --file or --each: many jobs in batches, and the progress of it."""

from __future__ import annotations

import gc
import sys
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from queuectl.api import json_view
from queuectl.cli import fast_path, job_reader, render
from queuectl.cli.base import Usage
from queuectl.errors import DuplicateId, InvalidJob, KeyTaken, QueuectlError, QueuedUnsafely

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.progress import Progress, TaskID

    from queuectl.cli.base import Session
    from queuectl.cli.commands.enqueue_each import Each

    Source = job_reader.JobFile | Each

BAR_AFTER = 500
"""Jobs after which a terminal gets a progress bar instead of a line a job."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How many jobs are queued and told of.

    Attributes:
        whole: all of them or none.
        quiet: print ids and nothing else.
    """

    whole: bool = False
    quiet: bool = False


def enqueue_file(session: Session, path: str, fields: Mapping[str, Any], manner: Manner) -> None:
    """Queue every job of a file, with the flags laid over each; stop at the first that can be no job.

    Raises:
        QueuectlError: why it stopped, at which line, and how many had been queued before.
    """
    with job_reader.opened(path) as source:
        enqueue_from(session, source, fields, manner)


def enqueue_each(
    session: Session,
    patterns: Sequence[str],
    command: str | list[str],
    fields: Mapping[str, Any],
    manner: Manner,
    *,
    end: bytes,
) -> None:
    """Queue a job for each value that the patterns stand for, with the flags laid over each; see `Each`."""
    from queuectl.cli.commands.enqueue_each import NAMING, Each

    source = Each(patterns, command, fields, end)
    others = {name: value for name, value in fields.items() if name not in NAMING}
    enqueue_from(session, source, others, manner)


def enqueue_from(session: Session, source: Source, fields: Mapping[str, Any], manner: Manner) -> None:
    """Queue every job of a source."""
    gc.disable()  # jobs are no rings, and looking for some takes a tenth of the time
    feed = _Feed(source, fields, manner)
    with _Bar(source, manner) as bar, render.JsonArray() if session.json else nullcontext() as array:
        _queue(session, feed, bar, array)
    if feed.queued == feed.skipped == 0:
        render.note(f"no jobs in {source.name}")
    elif bar.replaces_lines and array is None:
        render.line(f"enqueued {render.count(feed.queued, 'job')}")


def _queue(session: Session, feed: _Feed, bar: _Bar, array: render.JsonArray | None) -> None:
    manner = feed.manner

    def skipped(taken: KeyTaken) -> None:
        feed.skip()
        if array is not None:
            array.add(json_view.skipped(taken))
        elif not (bar.replaces_lines or manner.quiet):
            render.line(f"skipped: {render.visible(str(taken))}")

    others: dict[str, list[str]] = {}
    queue = session.spool.enqueue_many
    try:
        for job_id in queue(feed, all_or_nothing=manner.whole, skipped=skipped, replaced=others.__setitem__):
            record, gone = feed.taken(), others.pop(job_id, [])
            if array is not None:
                array.add(json_view.enqueued_record(job_id, record, gone))
            elif manner.quiet:
                render.line(job_id)
            elif not bar.replaces_lines:
                render.lines([f"enqueued job {job_id}", *(f"replaced job {one}" for one in gone)])
            bar.advance(feed.queued)
    except KeyboardInterrupt:
        raise _stopped("interrupted", feed, 130) from None
    except QueuectlError as error:
        raise _placed(error, feed.place_of(error), feed) from None
    if feed.error is not None:
        raise _placed(feed.error, feed.source.place, feed)


class _Feed:
    """The jobs of a source on their way into the spool.

    What is wrong with the source ends the stream and is kept in `error`, so that what came before it is queued in
    whole batches first; where all or nothing is wanted, it is raised.
    """

    def __init__(self, source: Source, fields: Mapping[str, Any], manner: Manner) -> None:
        self.source = source
        self.manner = manner
        self.error: QueuectlError | None = None
        self.queued = self.skipped = 0
        self._fields = fields
        self._under_way: deque[tuple[str, dict[str, Any]]] = deque()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        plain = fast_path.merged({}, self._fields)
        try:
            for record in self.source:
                number += 1
                if number > 1 and "id" in self._fields:
                    raise Usage(
                        "--id names one job, and the file holds several", hint="queuectl enqueue --help"
                    )
                own = not record.keys().isdisjoint(("cwd", "env", "tags"))
                made = fast_path.merged(record, self._fields) if own else {**record, **plain}
                self._under_way.append((self.source.place, made))
                yield made
        except QueuectlError as error:
            if self.manner.whole:
                raise
            self.error = error

    def taken(self) -> dict[str, Any]:
        """Count the next job that became durable, and return its fields; they do so in order."""
        self.queued += 1
        return self._under_way.popleft()[1]

    def skip(self) -> None:
        """Pass over the next job, whose unique key another one has."""
        self.skipped += 1
        self._under_way.popleft()

    def place_of(self, error: QueuectlError) -> str:
        """Where in the source the job stands that an error is about."""
        if isinstance(error, DuplicateId):
            same = [place for place, record in self._under_way if record.get("id") == error.job_id]
            if same:
                return same[-1]
        return self.source.place if isinstance(error, InvalidJob) else ""


def _placed(error: QueuectlError, place: str, feed: _Feed) -> QueuectlError:
    """The same error with the file, the line, and what had been queued."""
    told = f"{feed.source.name} {place}: {error}" if place else str(error)
    return _stopped(told, feed, error.exit_code, error.hint, some=isinstance(error, QueuedUnsafely))


def _stopped(
    told: str, feed: _Feed, exit_code: int, hint: str | None = None, *, some: bool = False
) -> QueuectlError:
    before = ""
    if feed.queued:
        before = (
            f"; {render.count(feed.queued, 'job')} before it {'was' if feed.queued == 1 else 'were'} queued"
        )
    elif feed.manner.whole and not some:
        before = "; none was queued"
    stopped = QueuectlError(f"{told}{before}", hint=hint)
    stopped.exit_code = exit_code
    return stopped


class _Bar:
    """A progress bar on stderr, once there is something to wait for and a person who looks."""

    def __init__(self, source: Source, manner: Manner) -> None:
        self._source = source
        self._quiet = manner.quiet
        self._person = render.is_terminal(sys.stderr)
        self._progress: Progress | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def replaces_lines(self) -> bool:
        """Whether the bar is drawn on the terminal where the lines would go."""
        return self._progress is not None and render.is_terminal() and not self._quiet

    def advance(self, queued: int) -> None:
        """Tell how many are queued by now."""
        if not self._person or queued < BAR_AFTER:
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
