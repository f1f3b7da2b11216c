"""Copy the output of runs to stdout and stderr: `LogReader` reads one stream of one run, `Sink` writes it."""

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
"""The exit code of a command that follows a log and is ended with Ctrl+C."""


class LogReader:
    """One stream of one run, and how much of it has been copied.

    Args:
        stream: "out" or "err".
        lines: start with the last so many lines; None: with the first line.
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

    def copy_new(self) -> None:
        """Copy what was written since the last call."""
        while path := self._path():
            self.found = True
            if path.endswith(COMPRESSED):
                self._copy_packed(path)
                return
            start, data = self._read(path)
            if not data:
                return
            # The file of a running job is a scratch file that its worker uses again for the next job. What was read
            # belongs to this run only if the file is still this run's after reading.
            if self._path() == path:
                self._sink.write(data)
                self._done = start + len(data)
                self._lines = None

    def _path(self) -> str | None:
        return self._spool.output(self._job_id, run=self._run, stream=self._stream)

    def _read(self, path: str) -> tuple[int, bytes]:
        """Return the offset and the bytes. If the file was cut meanwhile (log_limit), continue at its new end."""
        try:
            with open(path, "rb") as file:
                if self._lines is not None:
                    start = job_logs.last_lines(file, self._lines)
                else:
                    start = min(self._done, os.fstat(file.fileno()).st_size)
                file.seek(start)
                return start, file.read(CHUNK)
        except FileNotFoundError:
            return 0, b""  # just moved to logs/, or deleted by hand

    def _copy_packed(self, path: str) -> None:
        """Copy all of a compressed log at once: the run has ended, and each call would unpack the file again."""
        try:
            with job_logs.opened(path) as file:
                file.seek(self._done if self._lines is None else job_logs.last_lines(file, self._lines))
                while data := file.read(CHUNK):
                    self._sink.write(data)
                self._done, self._lines = file.tell(), None
        except FileNotFoundError:
            return  # deleted by hand


class Sink:
    """Writes bytes to a stream: unchanged into a pipe, with control characters as escapes on a terminal."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._pending_cr = ""
        self._ends_a_line = True
        self._decoder = (
            None
            if raw or not render.is_terminal(stream)
            else codecs.getincrementaldecoder("utf-8")("replace")
        )

    def write(self, data: bytes) -> None:
        """Write these bytes."""
        if self._stream is None:
            return
        self._ends_a_line = data.endswith(b"\n")
        if self._decoder is None:
            self._stream.buffer.write(data)
        else:
            self._show(self._decoder.decode(data))

    def heading(self, text: str) -> None:
        """Write a heading between two runs, always on its own line."""
        if self._stream is None:
            return
        self._show_rest()
        self.write(("" if self._ends_a_line else "\n").encode() + render.visible(text).encode() + b"\n")

    def _show(self, text: str) -> None:
        text = self._pending_cr + text
        # A CR at the end may be the first half of CR LF; written now, it would make an extra line.
        self._pending_cr = "\r" if text.endswith("\r") else ""
        self._stream.write(render.visible_lines(text.removesuffix("\r")))

    def _show_rest(self) -> None:
        if self._decoder is not None:
            self._show(self._decoder.decode(b"", final=True))
            if self._pending_cr:
                self._pending_cr = ""
                self._stream.write("\n")

    def flush(self) -> None:
        """Flush the stream."""
        if self._stream is not None:
            self._stream.flush()

    def finish(self) -> None:
        """Write incomplete characters that were kept back, and flush."""
        if self._stream is not None:
            self._show_rest()
        self.flush()
