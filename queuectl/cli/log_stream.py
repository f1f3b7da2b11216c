"""What runs wrote, passed on as it is or as it comes: one stream of one run, and a stream of ours that takes it."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, TextIO

from queuectl.cli import render
from queuectl.layout import COMPRESSED
from queuectl.storage import job_logs

if TYPE_CHECKING:
    from queuectl.api.spool import Spool

CHUNK = 1 << 18

INTERRUPTED = 130
"""What a follower ends with that was left by Ctrl+C."""


class Tail:
    """One stream of one run, and how much of it has been passed on.

    Args:
        stream: "out" or "err".
        lines: begin with the last so many; None: with the first.
    """

    def __init__(
        self, spool: Spool, job_id: str, run: int, stream: str, sink: Sink, lines: int | None = None
    ) -> None:
        self._spool = spool
        self._job_id = job_id
        self._run = run
        self._stream = stream
        self._sink = sink
        self._lines = lines
        self._done = 0
        self.found = False

    def pass_on(self) -> None:
        """Pass on what was written since the last time."""
        while path := self._path():
            self.found = True
            if path.endswith(COMPRESSED):
                self._pass_on_packed(path)
                return
            start, data = self._read(path)
            if not data:
                return
            # While the job runs the file is its worker's scratch, and the next job's output soon lands in there: what
            # was read counts only if it was still this run's file afterwards.
            if self._path() == path:
                self._sink.write(data)
                self._done = start + len(data)
                self._lines = None

    def _path(self) -> str | None:
        return self._spool.output(self._job_id, run=self._run, stream=self._stream)

    def _read(self, path: str) -> tuple[int, bytes]:
        """From where, and what. A stream that got too long is cut while it is written: go on from where it ends now."""
        try:
            with open(path, "rb") as file:
                if self._lines is not None:
                    start = job_logs.last_lines(file, self._lines)
                else:
                    start = min(self._done, os.fstat(file.fileno()).st_size)
                file.seek(start)
                return start, file.read(CHUNK)
        except FileNotFoundError:
            return 0, b""  # moved to logs/ this very moment, or deleted by hand

    def _pass_on_packed(self, path: str) -> None:
        """All of it in one go: the run is long over, and each look would unpack it anew."""
        try:
            with job_logs.opened(path) as file:
                file.seek(self._done if self._lines is None else job_logs.last_lines(file, self._lines))
                while data := file.read(CHUNK):
                    self._sink.write(data)
                self._done, self._lines = file.tell(), None
        except FileNotFoundError:
            return  # deleted by hand


class Sink:
    """A stream of ours that takes bytes: as they are in a pipe, made harmless on a terminal."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._held = ""
        self._ends_a_line = True
        self._decoder = (
            None
            if raw or not render.is_terminal(stream)
            else codecs.getincrementaldecoder("utf-8")("replace")
        )

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._stream is None:
            return
        self._ends_a_line = data.endswith(b"\n")
        if self._decoder is None:
            self._stream.buffer.write(data)
        else:
            self._show(self._decoder.decode(data))

    def head(self, text: str) -> None:
        """Write a line of ours between two runs, on a line of its own."""
        if self._stream is None:
            return
        self._show_rest()
        self.write(("" if self._ends_a_line else "\n").encode() + render.visible(text).encode() + b"\n")

    def _show(self, text: str) -> None:
        text = self._held + text
        # Half of a CR LF at the end of what came would turn into a line of its own.
        self._held = "\r" if text.endswith("\r") else ""
        self._stream.write(render.visible_lines(text.removesuffix("\r")))

    def _show_rest(self) -> None:
        if self._decoder is not None:
            self._show(self._decoder.decode(b"", final=True))
            if self._held:
                self._held = ""
                self._stream.write("\n")

    def flush(self) -> None:
        """Let the reader have what was written so far."""
        if self._stream is not None:
            self._stream.flush()

    def finish(self) -> None:
        """Write what was held back at the end of the last bytes."""
        if self._stream is not None:
            self._show_rest()
        self.flush()
