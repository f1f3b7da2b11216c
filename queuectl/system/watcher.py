"""'Look again': a bell that ends a wait, and a watch on a folder that rings it. The only import of watchdog.

Events are hints and nothing else: a scan decides what is there. On Linux they bring names, which are looked at first;
elsewhere watchdog's thread rings the bell and returns.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from queuectl.system import inotify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STORM = 64
"""Events from which on one worker deals with them for all; where a thread hands them on, for 250 µs each, the watch is
dropped until the next idle moment."""

MOST_HEARD = 200_000
"""Names to remember; from more than that a scan is the better way."""

RETRY = 30.0
"""Seconds after which a watch that could not be had is asked for again."""


class Bell:
    """Ends a wait from a signal handler, another thread, or a descriptor that becomes readable."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._poll = None if sys.platform == "win32" else select.poll()
        if self._poll is not None:
            self._poll.register(self._in.fileno(), select.POLLIN)
        self._out.setblocking(False)
        self._ear: tuple[int, Callable[[], object]] | None = None

    def fileno(self) -> int:
        """The descriptor to write to, for signal.set_wakeup_fd."""
        return self._out.fileno()

    def ring(self) -> None:
        """Ring. Never blocks and never raises: a bell that is full has rung already."""
        try:
            self._out.send(b"!")
        except OSError:
            return

    def listen(self, fd: int | None, hear: Callable[[], object] = lambda: None) -> None:
        """Have a wait end when this descriptor becomes readable, too, and call `hear` then; None for no more."""
        if self._poll is not None:
            if self._ear is not None:
                self._poll.unregister(self._ear[0])
            self._ear = None if fd is None else (fd, hear)
            if fd is not None:
                self._poll.register(fd, select.POLLIN)

    def hush(self, *, quiet: bool) -> None:
        """Leave that descriptor alone for a while, or no longer."""
        if self._poll is not None and self._ear is not None:
            self._poll.modify(self._ear[0], 0 if quiet else select.POLLIN)

    def wait(self, timeout: float | None, also: int | None = None) -> bool:
        """Wait for a ring or for a descriptor to become readable; True when the bell rang, or there was news.

        Args:
            timeout: seconds; None waits without end.
            also: a descriptor that ends the wait too.
        """
        if timeout is not None and timeout < 0:
            timeout = 0.0
        found = self._readable(also, timeout)
        rang = self._in.fileno() in found
        if rang:
            self._drain()
        if self._ear is not None and self._ear[0] in found:
            self._ear[1]()
            return True
        return rang

    def _readable(self, also: int | None, timeout: float | None) -> list[int]:
        if self._poll is None:
            waiting = [self._in.fileno()] if also is None else [self._in.fileno(), also]
            return list(select.select(waiting, [], [], timeout)[0])
        if also is not None:
            self._poll.register(also, select.POLLIN)
        try:
            # poll counts in milliseconds: rounding down would end a wait just before its moment and spin.
            found = self._poll.poll(None if timeout is None else -int(-timeout * 1000 // 1))
        finally:
            if also is not None:
                self._poll.unregister(also)
        return [fd for fd, _ in found]

    def _drain(self) -> None:
        try:
            while len(self._in.recv(4096)) == 4096:
                continue
        except OSError:
            return

    def close(self) -> None:
        """Give the descriptors back."""
        self._in.close()
        self._out.close()

    def __del__(self) -> None:
        # Not at the end of a worker's run: a signal may still want to write into it.
        self.close()


class FolderWatch:
    """Rings a bell when something lands in a folder.

    On Linux it is armed all the time, and `heard` has the names. Elsewhere it is armed when idle, dropped in a storm.

    Args:
        folder: the folder to watch, not its subfolders.
        bell: what to ring.

    Attributes:
        heard: names of what has landed, oldest first; whoever has looked at one takes it out.
        events: how often something has landed, where no names are told.
        written: a file may have been written to in place, nobody knows which.
        missed: something may have landed of which nobody was told.
    """

    def __init__(self, folder: str, bell: Bell) -> None:
        self.folder = folder
        self.failure: str | None = None
        self._bell = bell
        self._ear: inotify.Ear | None = None
        self._observer: Any = None
        self._identity: tuple[int, int] | None = None
        self._retry_at = 0.0
        self.events = 0
        self.heard: dict[str, None] = {}
        self.written = self.missed = True

    @property
    def tells_all(self) -> bool:
        """Whether all that lands is told, by name."""
        return self._ear is not None and not self.missed

    def arm(self, *, busy: bool = False) -> bool:
        """Watch, if not watching already; False when that cannot be had and the caller must poll.

        Scan after arming, never before: what lands between a scan and the arming would wait for the next one.

        Args:
            busy: only if it costs next to nothing.
        """
        if self._ear is not None or self._observer is not None:
            if self.healthy():
                return True
            self.drop()
        if time.monotonic() < self._retry_at or (busy and not CHEAP):
            return False
        self.written = self.missed = True
        try:
            status = os.stat(self.folder)
            _start(self)
            self._identity = (status.st_dev, status.st_ino)
        except Exception as error:  # whatever keeps the watch from starting, polling still works
            self.drop()
            self.failure = f"{error}" or type(error).__name__
            self._retry_at = time.monotonic() + RETRY
            return False
        self.failure = None
        self.events = 0
        return True

    def healthy(self) -> bool:
        """Whether events would still reach us: the threads live, and the folder is the one that we watch.

        A folder deleted and made again is another folder; the old watch stays silent for ever.
        """
        if self._observer is None:
            if self._ear is None or self._ear.is_over:
                return False
        elif not all(thread.is_alive() for thread in (self._observer, *self._observer.emitters)):
            return False
        try:
            status = os.stat(self.folder)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def hear(self) -> bool:
        """Take note of what has landed, where names are told; elsewhere, stop listening in a storm.

        Returns:
            whether there are names to look at.
        """
        if self._ear is None:
            if self._observer is not None and self.events > STORM:
                self.drop()
            return False
        names, missed = self._ear.read()
        if names:
            self.heard.update(dict.fromkeys(names))
        if missed or len(self.heard) > MOST_HEARD:
            self.heard.clear()
            self.written = self.missed = True
        return bool(self.heard)

    def widen(self, paths: Iterable[tuple[str, int]]) -> bool:
        """Ring at what becomes of these, too; False where that cannot be had.

        Args:
            paths: files and folders, each with the kinds of events that count.
        """
        if self._ear is None:
            return False
        try:
            self._ear.widen(paths)
        except OSError:
            self.narrow()
            return False
        return True

    def narrow(self) -> None:
        """Ring at what lands in the folder only, as before."""
        if self._ear is not None:
            self._ear.narrow()
            self.hear()  # or the end of each of those watches would be told in the next wait

    @property
    def stirred(self) -> bool:
        """Whether something else than a file that landed has rung since it was widened."""
        return self._ear is None or self._ear.stirred or self._ear.is_over or self.missed

    def landed(self, *, written: bool) -> None:
        """Called by the observer's thread for every event."""
        self.events += 1
        if written:
            self.written = True
        self._bell.ring()

    def hush(self, *, quiet: bool) -> None:
        """Let what lands end no wait for a while, or again; it is heard all the same when somebody asks."""
        self._bell.hush(quiet=quiet)

    def drop(self) -> None:
        """Stop watching."""
        ear, self._ear = self._ear, None
        observer, self._observer = self._observer, None
        self.heard.clear()
        if ear is not None:
            self._bell.listen(None)
            ear.close()
        if observer is not None:
            observer.stop()
            observer.join(2)

    def listen(self) -> None:
        """Have the kernel tell.

        Raises:
            OSError: it does not.
        """
        self._ear = inotify.Ear(self.folder)
        self._bell.listen(self._ear.fd, self.hear)

    def observe(self) -> None:
        """Have watchdog's threads tell."""
        from watchdog.events import (
            FileClosedEvent,
            FileModifiedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers import Observer

        watch = self

        class Ringer(FileSystemEventHandler):
            def dispatch(self, event: FileSystemEvent) -> None:
                watch.landed(written=isinstance(event, FileClosedEvent | FileModifiedEvent))

        self._observer = Observer()
        self._observer.daemon = True
        self._observer.schedule(Ringer(), self.folder, recursive=False)
        self._observer.start()


CHEAP = sys.platform == "linux"
"""Whether a watch costs next to nothing, so that a busy worker has one, too."""


def _start(watch: FolderWatch) -> None:
    if CHEAP:
        watch.listen()
    else:
        watch.observe()
