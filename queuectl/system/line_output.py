"""Lines for a terminal or a pipe that never make their writer wait, whether somebody reads them or not."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 1 << 20
"""Bytes that wait for a reader; more lines than that are left out, and counted."""

PATIENCE = 2.0
"""Seconds that the end of a process waits for a reader that takes nothing."""


class LineOutput:
    """Writes whole lines to a descriptor. While nobody reads, lines wait in memory; then they are counted and left out.

    A full pipe, a terminal that Ctrl+S has stopped, or an ssh connection that hangs would otherwise stop all work.

    Args:
        fd: the descriptor to write to.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_file = _is_file(fd)
        self._send = None if self._is_file else _sender(fd)
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._size = self._left_out = 0
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Write one or several lines.

        Raises:
            OSError: the reader has gone, or the disk is full.
        """
        if self._is_file:
            files.write_all(self._fd, data)
            return
        with self._lock:
            if self._thread is None and not self._waiting:
                data = self._write_now(data)
            if data:
                self._keep(data)
                self._start_thread()

    def _start_thread(self) -> None:
        """Start the thread, not earlier: a process whose output is read has none. At the limit of threads, lines wait."""
        if self._thread is None and (self._waiting or self._left_out):
            thread = threading.Thread(target=self._write_waiting, daemon=True)
            with suppress(RuntimeError, MemoryError):
                thread.start()
                self._thread = thread

    def _write_now(self, data: bytes) -> bytes:
        """Write what can be written without waiting, and return the rest."""
        while data and self._send is not None:
            try:
                data = data[self._send(data) :]
            except BlockingIOError:
                break
        return data

    def _keep(self, data: bytes) -> None:
        if self._size + len(data) > BACKLOG:
            self._left_out += data.count(b"\n")
        else:
            self._waiting.append(data)
            self._size += len(data)

    def _write_waiting(self) -> None:
        while (data := self._next()) is not None:
            try:
                files.write_all(self._fd, data)
            except OSError:
                with self._lock:
                    # The reader has gone: nothing can be told any more.
                    self._waiting.clear()
                    self._size = self._left_out = 0

    def _next(self) -> bytes | None:
        with self._lock:
            if self._waiting:
                data = self._waiting.popleft()
                self._size -= len(data)
                return data
            if self._left_out:
                number, self._left_out = self._left_out, 0
                return f"... {number} line(s) were left out here: nobody was reading\n".encode()
            self._thread = None
            return None

    def close(self) -> None:
        """Wait until the lines are written, as long as somebody reads them."""
        with self._lock:
            self._start_thread()
        before, end = -1, time.monotonic() + PATIENCE
        while (thread := self._thread) is not None and time.monotonic() < end:
            thread.join(0.05)
            if self._size != before:
                before, end = self._size, time.monotonic() + PATIENCE


def _is_file(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.fstat(fd).st_mode)
    return False


def _sender(fd: int) -> Callable[[bytes], int] | None:
    """Return what writes to a pipe, a terminal or a socket without ever waiting, or None: then a thread writes.

    The flag cannot be set on the descriptor itself: all programs that share the terminal would get it.
    """
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            connection = socket.socket(fileno=os.dup(fd))
            return lambda data: connection.send(data, socket.MSG_DONTWAIT)
        if os.path.isdir("/proc/self/fd"):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | files.O_CLOEXEC
            own = os.open(f"/proc/self/fd/{fd}", flags)
            return lambda data: os.write(own, data)
    return None
