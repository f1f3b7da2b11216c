"""A watch on a folder that ends the wait of an idle worker. The only import of watchdog.

Events are hints: a scan decides what is there. On Linux watchdog's `InotifyFD` is read by the worker itself, so that
events cost no thread and bring names, which are looked at first. Elsewhere watchdog's observer runs in threads of its
own and only says that something happened.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchdog.observers.inotify_c import InotifyEvent

    from queuectl.system.wake_up import WakeUp

BURST = 64
"""Events from which on one worker deals with them for all. Where a thread delivers them, at 250 µs each, the watch is
stopped until the next idle moment."""

MAX_NAMES = 200_000
"""Names to remember; with more than that a scan is cheaper."""

RETRY_AFTER = 30.0
"""Seconds after which a watch that could not be started is tried again."""

LOAD_AFTER = 1.0
"""Seconds after which a worker that has been busy from the start loads watchdog: 40 ms, which a short drain saves."""

HAS_INOTIFY = sys.platform == "linux"

# Kinds of inotify events and flags (inotify(7), linux/inotify.h). watchdog has them too, but loading it is expensive.
MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
DONT_FOLLOW = 0x2000000
MASK_ADD = 0x20000000

APPEARED = CLOSE_WRITE | MOVED_TO | CREATE
"""A file has appeared in a folder, or was rewritten. Not files that leave: every claim is such a move."""

FOR_RULES = APPEARED | ATTRIB | DELETE_SELF | MOVE_SELF
"""The same, and changes of the folder itself and of the files' modes, for folders whose files are jobs' input."""

GONE = DELETE_SELF | MOVE_SELF | UNMOUNT
"""The folder itself was deleted, moved or unmounted; no more events follow."""

SELF = ATTRIB | DELETE_SELF | MOVE_SELF
"""Changes of a folder itself: its owner, its mode, and where it is."""

NAMES = SELF | MOVED_FROM | MOVED_TO | CREATE | DELETE
"""Those, and changes of the names in it."""

CONTENT = NAMES | MODIFY
"""Those, and changes of what the files contain."""

_FOLDER_MASK = APPEARED | DELETE_SELF | MOVE_SELF
_FULL_READ = 300
"""Events in a read of watchdog's (80 kB) from which on there may be more: an event takes 272 bytes at most."""

_MAX_READS = 8
"""Reads of one call: they empty a full queue of the kernel (16,384 events of some 7 µs each). Producers can make
events faster than Python takes them, and a worker that read until none is left would neither start a job nor end one at its
timeout. The descriptor stays readable, so that the next call has the rest."""

_DESCRIPTORS = 3
"""Descriptors that watchdog opens for an instance."""


class Inotify:
    """One inotify instance of watchdog's, read without a thread. All that is private to watchdog is used here.

    It reports the names that appear in one folder and, on request, that anything happened to other paths.

    Args:
        folder: the folder, not its subfolders.

    Raises:
        OSError: no inotify instance or watch is left, or the folder cannot be read.
        ImportError, AttributeError: this watchdog has no such class.

    Attributes:
        fd: becomes readable when there are events.
        is_over: the folder is gone or was replaced.
        has_other_events: something else happened since `add`.
    """

    def __init__(self, folder: str) -> None:
        import logging

        from watchdog.observers.inotify_c import InotifyFD

        # An overflow is handled here. Without a handler Python would print watchdog's warning about it.
        if not (log := logging.getLogger(InotifyFD.__module__)).handlers:
            log.addHandler(logging.NullHandler())
        _require_descriptors(folder, _DESCRIPTORS)
        self._inotify = InotifyFD()
        self._names: list[str] = []
        self._is_lost = self.is_over = self.has_other_events = False
        self._folder = folder
        self._more: list[tuple[Any, Any]] = []
        self._made = 0
        try:
            self.fd = self._inotify._inotify_fd
            os.set_inheritable(self.fd, False)  # or every job would have it
            self._readable = select.poll()
            self._readable.register(self.fd, select.POLLIN)
            self._home = self._add(folder, _FOLDER_MASK)
        except (AttributeError, OSError):
            self.close()
            raise

    def _add(self, path: str, mask: int) -> tuple[Any, Any]:
        """Watch a path; returns what watchdog wants to know when it is to be removed again."""
        self._made += 1  # watchdog warns of a number that is used twice for one path
        number: Any = self._made
        flags: Any = mask
        watch = self._inotify.add_callback(os.fsencode(path), flags, self, number)
        if watch < 0:  # watchdog hides this one error
            self._inotify.remove_callbacks([(watch, number)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return watch, number

    def add(self, paths: Iterable[tuple[str, int]]) -> None:
        """Watch these files and folders, too; what does not exist is left out.

        Args:
            paths: each with the kinds of events that count.

        Raises:
            OSError: one of them cannot be watched.
        """
        self.has_other_events = False
        for path, mask in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                # Added: a path that is listed twice, or is the folder itself, is watched for all of it.
                self._more.append(self._add(path, mask | MASK_ADD))

    def remove_added(self) -> None:
        """Watch nothing but the one folder again."""
        more, self._more = self._more, []
        if any(watch == self._home[0] for watch, _ in more):
            with suppress(OSError):  # the folder is gone, which has been reported
                again = self._add(self._folder, _FOLDER_MASK)
                more.append(self._home)
                if again[0] != self._home[0]:
                    self.is_over = (
                        True  # it was made again; the end of the old one, if not read yet, is discarded now
                    )
                self._home = again
        self._inotify.remove_callbacks(more)

    def read(self) -> tuple[list[str], bool]:
        """Names that have appeared since the last call, and whether some may be missing. Never waits."""
        self._names, self._is_lost = [], False
        try:
            for _ in range(_MAX_READS):
                if not self._readable.poll(0):
                    break
                events = self._inotify.read_events()
                for event in events:
                    self._inotify.handle_event(event)
                if len(events) < _FULL_READ:
                    self._is_lost = self._is_lost or not events
                    break
        except OSError:
            self._is_lost = True  # a scan finds what would have been reported; no worker ends because of this
        return self._names, self._is_lost

    def on_event(self, event: InotifyEvent) -> None:
        """Called by watchdog for each event."""
        is_home = event.wd == self._home[0]
        if is_home and event.mask & APPEARED:
            self._names.append(os.fsdecode(event.name))
        elif is_home and event.mask & GONE:
            self.is_over = True
        else:
            self.has_other_events = True

    def on_watch_deleted(self, wd: int) -> None:
        """Called by watchdog when what was watched is no more."""
        if wd == self._home[0]:
            self.is_over = True
        self.has_other_events = True

    def on_queue_overflow(self) -> None:
        """Called by watchdog when the kernel had to drop events."""
        self._is_lost = True

    def close(self) -> None:
        """Give the instance back: a user has 128 of them."""
        # watchdog leaves the descriptors to its reading thread unless it knows that nobody reads. None was started.
        self._inotify._is_reading = False
        self._inotify.close()


def _require_descriptors(path: str, number: int) -> None:
    """Raise OSError if so many descriptors cannot be opened: watchdog loses the first when it cannot open the others."""
    opened: list[int] = []
    try:
        opened.extend(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for _ in range(number))
    finally:
        for fd in opened:
            os.close(fd)


class FolderWatch:
    """Sets a wake-up when a file appears in a folder.

    With inotify it runs all the time and `names` has the files. Elsewhere it runs while the worker is idle.

    Args:
        folder: the folder to watch, not its subfolders.
        wake_up: what to set.

    Attributes:
        failure: why there is no watch, or None.
        names: files that have appeared, oldest first; the caller removes those that it has processed.
        unnamed: number of events that came without a name, from an observer.
        is_edited: a file may have been edited in place; which one is not known.
        is_lost: something may have happened without an event.
    """

    def __init__(self, folder: str, wake_up: WakeUp) -> None:
        self.folder = folder
        self.failure: str | None = None
        self._wake_up = wake_up
        self._inotify: Inotify | None = None
        self._observer: Any = None
        self._identity: tuple[int, int] | None = None
        self._retry_at = 0.0
        self._load_at = time.monotonic() + LOAD_AFTER
        self.unnamed = 0
        self.names: dict[str, None] = {}
        self.is_edited = self.is_lost = True

    @property
    def names_all(self) -> bool:
        """Whether every file that appears is reported by name."""
        return self._inotify is not None and not self.is_lost

    def start(self, *, busy: bool = False) -> bool:
        """Watch, if not watching already; return False when that is not possible and the caller must poll.

        Scan after the start, never before: a file that appears between a scan and the start would wait for the next one.

        Args:
            busy: only if it costs next to nothing.
        """
        if self._inotify is not None or self._observer is not None:
            if self.is_healthy():
                return True
            self.stop()
        if time.monotonic() < self._retry_at or (busy and not self._is_cheap()):
            return False
        self.is_edited = self.is_lost = True
        try:
            status = os.stat(self.folder)
            _start(self)
            self._identity = (status.st_dev, status.st_ino)
        except Exception as error:  # whatever keeps the watch from starting, polling works
            self.stop()
            self.failure = _reason(error)
            self._retry_at = time.monotonic() + RETRY_AFTER
            return False
        self.failure = None
        self.unnamed = 0
        return True

    def _is_cheap(self) -> bool:
        is_loaded = "watchdog.observers" in sys.modules
        return HAS_INOTIFY and (is_loaded or time.monotonic() >= self._load_at)

    def is_healthy(self) -> bool:
        """Whether events still arrive: the threads live, and the folder is the one that is watched.

        A folder that was deleted and made again is another folder; a watch on the old one reports nothing.
        """
        if self._observer is None:
            if self._inotify is None or self._inotify.is_over:
                return False
        elif not all(thread.is_alive() for thread in (self._observer, *self._observer.emitters)):
            return False
        try:
            status = os.stat(self.folder)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def read(self) -> bool:
        """Read the events that have arrived; return whether there are names to process.

        An observer is stopped when there were too many of them.
        """
        if self._inotify is None:
            if self._observer is not None and self.unnamed > BURST:
                self.stop()
            return False
        names, is_lost = self._inotify.read()
        if names:
            self.names.update(dict.fromkeys(names))
        if is_lost or len(self.names) > MAX_NAMES:
            self.names.clear()
            self.is_edited = self.is_lost = True
        return bool(self.names)

    def add(self, paths: Iterable[tuple[str, int]]) -> bool:
        """Wake up at changes of these, too; return False where that is not possible.

        Args:
            paths: files and folders, each with the kinds of events that count.
        """
        if self._inotify is None:
            return False
        try:
            self._inotify.add(paths)
        except OSError:
            self.remove_added()
            return False
        return True

    def remove_added(self) -> None:
        """Wake up only at what appears in the folder, as before."""
        if self._inotify is not None:
            self._inotify.remove_added()
            self.read()  # or the end of each of those watches would end the next wait

    @property
    def has_other_events(self) -> bool:
        """Whether anything else than a new file was reported since `add`."""
        watch = self._inotify
        return watch is None or watch.has_other_events or watch.is_over or self.is_lost

    def on_unnamed(self, *, edited: bool) -> None:
        """Called by the observer's thread for each event."""
        self.unnamed += 1
        if edited:
            self.is_edited = True
        self._wake_up.set()

    def mask(self, *, masked: bool) -> None:
        """Let new files end no wait for now, or let them do so again. `read` returns their names all the same."""
        self._wake_up.mask_source(masked=masked)

    def stop(self) -> None:
        """Stop watching."""
        inotify, self._inotify = self._inotify, None
        observer, self._observer = self._observer, None
        self.names.clear()
        if inotify is not None:
            self._wake_up.set_source(None)
            inotify.close()
        if observer is not None:
            observer.stop()
            observer.join(2)

    def __del__(self) -> None:
        # A worker that was made and never run to its end must not keep one of the user's 128 instances.
        if self._inotify is not None:
            self._inotify.close()

    def start_inotify(self) -> None:
        """Have the kernel report events to this thread.

        Raises:
            OSError: it does not.
            ImportError, AttributeError: watchdog has no class for that.
        """
        self._inotify = Inotify(self.folder)
        self._wake_up.set_source(self._inotify.fd, self.read)

    def start_observer(self) -> None:
        """Have watchdog's threads report events."""
        from watchdog.events import (
            FileClosedEvent,
            FileModifiedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers import Observer

        watch = self

        class Handler(FileSystemEventHandler):
            def dispatch(self, event: FileSystemEvent) -> None:
                watch.on_unnamed(edited=isinstance(event, FileClosedEvent | FileModifiedEvent))

        self._observer = Observer()
        self._observer.daemon = True
        self._observer.schedule(Handler(), self.folder, recursive=False)
        self._observer.start()


def _reason(error: Exception) -> str:
    """Why there is no watch, for people: without Python's "[Errno 24]"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _start(watch: FolderWatch) -> None:
    if HAS_INOTIFY:
        try:
            watch.start_inotify()
        except (ImportError, AttributeError):  # a version of watchdog without that class
            watch.start_observer()
    else:
        watch.start_observer()
