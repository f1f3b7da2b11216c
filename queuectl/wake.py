"""'Look again': a bell that ends a wait, and a watch on a folder that rings it. The only import of watchdog.

Events are hints and nothing else: a scan decides what is there. So a handler rings and returns.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any

from queuectl import files

STORM = 64
"""Events after which a watch is dropped until the next idle moment: each costs 250 µs, and a scan sees all at once."""


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

    def fileno(self) -> int:
        """The descriptor to write to, for signal.set_wakeup_fd."""
        return self._out.fileno()

    def ring(self) -> None:
        """Ring. Never blocks and never raises: a bell that is full has rung already."""
        try:
            self._out.send(b"!")
        except OSError:
            return

    def wait(self, timeout: float | None, also: int | None = None) -> bool:
        """Wait for a ring or for a descriptor to become readable; True when the bell rang.

        Args:
            timeout: seconds; None waits without end.
            also: a descriptor that ends the wait too.
        """
        if timeout is not None and timeout < 0:
            timeout = 0.0
        rang = self._in.fileno() in self._readable(also, timeout)
        if rang:
            self._drain()
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
    """Rings a bell when something lands in a folder. Armed when idle, dropped in a storm.

    Args:
        folder: the folder to watch, not its subfolders.
        bell: what to ring.
    """

    def __init__(self, folder: str, bell: Bell) -> None:
        self.folder = folder
        self.failure: str | None = None
        self._bell = bell
        self._observer: Any = None
        self._identity: tuple[int, int] | None = None
        self._retry_at = 0.0
        self.events = 0
        # Who did not listen cannot know what was edited in place meanwhile.
        self.written = True

    def arm(self) -> bool:
        """Watch, if not watching already; False when that cannot be had and the caller must poll.

        Scan after arming, never before: what lands between a scan and the arming would wait for the next one.
        """
        if self._observer is not None:
            if self.healthy():
                return True
            self.drop()
        if time.monotonic() < self._retry_at:
            return False
        self.written = True
        try:
            status = os.stat(self.folder)
            self._observer = _start(self)
            self._identity = (status.st_dev, status.st_ino)
        except Exception as error:  # whatever keeps the watch from starting, polling still works
            self.failure = f"{error}" or type(error).__name__
            self._observer = None
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
            return False
        if not self._observer.is_alive() or not all(
            emitter.is_alive() for emitter in self._observer.emitters
        ):
            return False
        try:
            status = os.stat(self.folder)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def stormy(self) -> bool:
        """Whether so many events came that scanning is cheaper than listening."""
        return self.events > STORM

    def landed(self, *, written: bool) -> None:
        """Called by the observer's thread for every event."""
        self.events += 1
        if written:
            self.written = True
        self._bell.ring()

    def drop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(2)


def _start(watch: FolderWatch) -> Any:
    from watchdog.events import FileClosedEvent, FileModifiedEvent, FileSystemEvent, FileSystemEventHandler

    class Ringer(FileSystemEventHandler):
        def dispatch(self, event: FileSystemEvent) -> None:
            watch.landed(written=isinstance(event, FileClosedEvent | FileModifiedEvent))

    observer = _observer_class()
    observer.daemon = True
    observer.schedule(Ringer(), watch.folder, recursive=False)
    observer.start()
    # watchdog's descriptor would be inherited by every job, and a machine has few of its kind.
    files.keep_from_children("anon_inode:inotify")
    return observer


def _observer_class() -> Any:
    if not sys.platform.startswith("linux"):
        from watchdog.observers import Observer

        return Observer()
    from watchdog.observers.api import BaseObserver
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import InotifyConstants, Mask

    class Arrivals(InotifyEmitter):
        """Hears what comes in and not what goes out.

        A move out of the folder (each claim is one) makes the stock emitter hold everything back for half a
        second, in the hope of pairing it with a move in.
        """

        def get_event_mask_from_filter(self) -> Mask:
            return Mask(
                InotifyConstants.IN_CLOSE_WRITE
                | InotifyConstants.IN_MOVED_TO
                | InotifyConstants.IN_CREATE
                | InotifyConstants.IN_DELETE_SELF
            )

    return BaseObserver(Arrivals)
