"""`queuectl enqueue --wait`: a job that is queued, and seen as if it ran here."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from queuectl.api import json_view
from queuectl.api.waiting import OVER, Waiting, hindrance
from queuectl.cli import render
from queuectl.cli.commands.wait import note
from queuectl.cli.log_stream import INTERRUPTED, Sink, Tail
from queuectl.errors import MoveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.spool import Spool
    from queuectl.cli.base import Session

_SHORTEST, _LONGEST, _GROWTH = 0.01, 0.1, 1.2
"""Seconds between two looks at what a job has written: at first, later, and how that grows."""


def attend(session: Session, job_id: str, lines: Iterable[str]) -> int:
    """Pass on what a job writes until it has ended, and return the exit code that stands for it.

    Ctrl+C cancels it, as it would end a command that runs here; a second one leaves it alone.

    Args:
        lines: what is to be said first.
    """
    spool = session.spool
    view = None if session.json else _View(spool, job_id)
    with _Keyboard(spool, job_id) as keyboard:
        for line in lines:
            render.note(line)
        if found := _hindrance(spool, job_id):
            note(found)
        if view is not None:
            view.follow(keyboard.look)
        [one] = Waiting(spool, [job_id], beat=keyboard.look).run()
    if view is not None:
        view.finish()
    if session.json:
        render.json_array([json_view.ended(one)])
    elif one.code:
        render.note(f"{one.id}: {one.last_error or one.state}")
    return INTERRUPTED if keyboard.pressed else one.code


class _Keyboard:
    """Ctrl+C as a flag that is looked at between two steps: an exception amid them could pass a line on twice."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._spool = spool
        self._job_id = job_id
        self._told = False
        self.pressed = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, _number: int, _frame: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def look(self) -> None:
        """Cancel the job if somebody wants that."""
        if not self.pressed or self._told:
            return
        self._told = True
        note(f"cancelling {self._job_id}; Ctrl+C again leaves it as it is")
        with suppress(MoveError):  # it has just ended
            self._spool.cancel(self._job_id)


def _hindrance(spool: Spool, job_id: str) -> str | None:
    spool.refresh()
    return hindrance(spool, [job_id])


class _View:
    """What a job writes, in all its runs, on our own streams."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._spool = spool
        self._job_id = job_id
        self._run = 0
        self._sinks = {"out": Sink(sys.stdout, raw=False), "err": Sink(sys.stderr, raw=False)}
        self._tails: list[Tail] = []

    def follow(self, beat: Callable[[], None]) -> None:
        """Pass on what comes until the job has ended.

        Args:
            beat: called after every look.

        Raises:
            JobNotFound: somebody has removed it.
        """
        pause = _SHORTEST
        while True:
            # The state is read before the output: what a run that has ended wrote is all there when the look begins.
            job = self._spool.get(self._job_id)
            newest = job.runs + (job.state == "processing")
            for tail in self._tails:
                tail.pass_on()
            while self._run < newest:
                self._run += 1
                self._tails = [
                    Tail(self._spool, self._job_id, self._run, stream, sink)
                    for stream, sink in self._sinks.items()
                ]
                for tail in self._tails:
                    tail.pass_on()
            for sink in self._sinks.values():
                sink.flush()
            if job.state in OVER:
                return
            beat()
            time.sleep(pause)
            pause = min(_LONGEST, pause * _GROWTH)

    def finish(self) -> None:
        """Write what was held back."""
        for sink in self._sinks.values():
            sink.finish()
