"""Copy the output of runs to stdout and stderr: `LogReader` reads one stream of one run, `Sink` writes it."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, BinaryIO, TextIO

from queuectl.api import job_files
from queuectl.cli import render
from queuectl.layout import COMPRESSED
from queuectl.storage import job_logs
from queuectl.system import safe_open

if TYPE_CHECKING:
    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

CHUNK = 1 << 18

INTERRUPTED = 130
"""The exit code of a command that follows a log and is ended with Ctrl+C."""


class LogReader:
    """One stream of one run, and how much of it has been copied.

    Args:
        stream: "out" or "err".
        lines: start with the last so many lines; None: with the first line.
        at_rest: the job as it was read, if no run of it is under way: where its output lies is not asked again each time,
            which is three quarters of the cost for two thousand jobs.
    """

    def __init__(
        self,
        spool: Spool,
        job_id: str,
        run: int,
        stream: str,
        sink: Sink,
        lines: int | None = None,
        *,
        at_rest: Job | None = None,
    ) -> None:
        self._spool = spool
        self._job_id = job_id
        self._run = run
        self.stream = stream
        self._sink = sink
        self._lines = lines
        self._at_rest = at_rest
        self._done = 0
        self._file: BinaryIO | None = None
        self._cut_told = False
        self.found = False

    def copy_new(self) -> None:
        """Copy what was written since the last call."""
        while path := self._path():
            self.found = True
            if path.endswith(COMPRESSED):
                self._copy_packed(path)
                return
            try:
                safe_open.refuse_special(path)
                file = open(path, "rb")  # noqa: SIM115 (it stays open, see _copy_from)
            except FileNotFoundError:
                return  # just moved to logs/, or deleted by hand
            if not self._copy_from(file, path):
                if file is not self._file:
                    file.close()
                return

    def close(self) -> None:
        """Close the file that was read last."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self) -> str | None:
        if self._at_rest is not None:
            return job_files.output(self._spool.layout, self._at_rest, self._run, self.stream)
        return self._spool.output(self._job_id, run=self._run, stream=self.stream)

    def has_output(self) -> bool:
        """Whether the run has written anything to this stream so far."""
        status = self._status()
        return status is not None and status.st_size > 0

    def has_more(self) -> bool:
        """Whether there is something that has not been copied, as far as the size of the file says."""
        path = self._path()
        if path is None or path.endswith(COMPRESSED):
            return False
        status = self._status()
        return status is not None and status.st_size > self._done

    def written_at(self) -> int:
        """When this stream was last written to, in nanoseconds; 0 if there is none."""
        status = self._status()
        return status.st_mtime_ns if status is not None and status.st_size else 0

    def _status(self) -> os.stat_result | None:
        path = self._path()
        try:
            return None if path is None else os.stat(path)
        except OSError:  # just moved to logs/, or deleted by hand
            return None

    def _copy_from(self, file: BinaryIO, path: str) -> bool:
        """Copy the next bytes of a file; return whether there were any.

        While a job runs, this is a file of its worker, which uses the name, or an empty file, for its next job. So what
        was read counts only if the file is still this run's after the read. The file that was read last stays open:
        then no other file gets its inode, and a file with another inode is the output of another start of this run, after
        a crash. Only what ran on a cluster is copied into logs/, from the folder that its node sees.
        """
        size = os.fstat(file.fileno()).st_size
        root = self._spool.layout.root + os.sep
        is_copy = self._file is not None and path.startswith(root) and not self._file.name.startswith(root)
        done = self._done if self._file and (is_copy or _are_same(self._file, file)) else 0
        start = min(done, size) if self._lines is None else job_logs.last_lines(file, self._lines)
        file.seek(start)
        data = file.read(CHUNK)
        now_at = self._path()
        if now_at is None or not _is_at(file, now_at):
            return False
        if size < done and not self._cut_told:
            self._tell_of_cut()
        if data:
            self._sink.write(data)
            self._lines = None
        self._done = start + len(data)
        self.close()
        self._file = file
        return bool(data)

    def _tell_of_cut(self) -> None:
        """Say that output is missing: the worker has cut a log that had become too long, and the job writes on."""
        self._cut_told = True
        self._sink.flush()
        limit = self._spool.settings().log_limit
        render.note(f"output of {self._job_id} is missing here: its log was cut at log_limit ({limit} bytes)")

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


def _are_same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _is_at(file: BinaryIO, path: str) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


class Sink:
    """Writes bytes to a stream: unchanged into a pipe, with control characters as escapes on a terminal."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._pending_cr = ""
        self.raw = raw
        self.ends_a_line = True
        self._decoder = (
            None
            if raw or not render.is_terminal(stream)
            else codecs.getincrementaldecoder("utf-8")("replace")
        )

    def write(self, data: bytes) -> None:
        """Write these bytes."""
        if self._stream is None:
            return
        self.ends_a_line = data.endswith(b"\n")
        if self._decoder is None:
            self._stream.buffer.write(data)
        else:
            self._show(self._decoder.decode(data))

    def heading(self, text: str) -> None:
        """Write a heading between two runs, always on its own line."""
        if self._stream is None:
            return
        self._show_rest()
        self.write(("" if self.ends_a_line else "\n").encode() + render.visible(text).encode() + b"\n")

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


class Screen:
    """One terminal for both streams of a run, in whole lines.

    While a run has written only to stdout, its lines stand as they are. As soon as there is stderr, each line begins
    with the name of its stream: `out | ` or `err | `.
    """

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._sink = Sink(stream, raw=raw)
        self._marked = False
        self._last = ""
        self.sinks: dict[str, Sink] = {name: _OnScreen(self, name, self._sink) for name in ("out", "err")}

    def mark(self, wanted: bool) -> None:
        """Mark all lines from now on, or none until there is stderr again."""
        self._marked = wanted

    def heading(self, text: str) -> None:
        """Write a heading on a line of its own."""
        self._sink.heading(text)

    def write(self, name: str, data: bytes) -> None:
        """Write bytes of this stream."""
        self._marked = self._marked or (name == "err" and bool(data))
        if self._marked and data:
            if not self._sink.raw:  # a CR becomes a line end, see render.visible_lines
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            mark = f"{name} | ".encode()
            between = b"" if self._sink.ends_a_line or name == self._last else b"\n"
            starts = self._sink.ends_a_line or between
            whole, end = (data[:-1], b"\n") if data.endswith(b"\n") else (data, b"")
            data = between + (mark if starts else b"") + whole.replace(b"\n", b"\n" + mark) + end
        self._sink.write(data)
        self._last = name


class _OnScreen(Sink):
    """One of the two streams of a screen."""

    def __init__(self, screen: Screen, name: str, sink: Sink) -> None:
        self._screen, self._name, self._sink = screen, name, sink

    def write(self, data: bytes) -> None:
        """Write these bytes, marked if necessary."""
        self._screen.write(self._name, data)

    def heading(self, text: str) -> None:
        """Write a heading between two runs."""
        self._screen.heading(text)

    def flush(self) -> None:
        """Flush the terminal."""
        self._sink.flush()

    def finish(self) -> None:
        """Write incomplete characters that were kept back, and flush."""
        self._sink.finish()
