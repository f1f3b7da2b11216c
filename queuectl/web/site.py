"""What all requests of a server share: the spool, the options, the sessions, and the log of what was done."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
import stat
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from queuectl.api import access
from queuectl.api.spool import Spool
from queuectl.errors import IndexBehind, QueuectlError, SpoolError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job.redact import one_line
from queuectl.job.times import iso
from queuectl.layout import Layout
from queuectl.system import files, safe_open
from queuectl.web.options import Options
from queuectl.web.sessions import Links, Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from queuectl.web.bulk import Bulk

    T = TypeVar("T")

SPOOLS = 8
"""Requests that are worked on at the same time."""

MOST_COUNTED = 200

NOTES, NOTES_LIFE = "notes", 2.0
"""The notes of `status` are on every page. They take 3 ms, and each open page asks for itself."""

REFRESH_PATIENCE = 2.0
"""Seconds from its start for which requests wait for an index that is made anew or brought up to date."""

REFRESH_REST, LONGEST_REST = 20, 10.0
"""After a comparison of the folders none follows for so many times its length, and for so many seconds at the most."""

LARGEST_LOG = 4 << 20
"""Bytes of the log of actions. A larger one becomes actions.log.1, and the one before that goes."""


@dataclass(slots=True)
class User:
    """Who asks.

    Attributes:
        name: what the proxy calls him; "" for whoever has come by a link.
        form_token: what his forms must bring.
        may_act: whether he may change anything.
    """

    name: str
    form_token: str
    may_act: bool


@dataclass(slots=True)
class Site:
    """One server of pages.

    Attributes:
        refused: why no page is served at the moment: the spool is open to others. None: all is well.
        bulk: the last changes of many jobs, by number.
        login_pause: seconds for which somebody with a wrong link waits for the answer.
    """

    root: str
    options: Options = field(default_factory=Options)
    refused: str | None = None
    bulk: dict[int, Bulk] = field(default_factory=dict)
    cookie: str = "queuectl"
    login_pause: float = 1.0
    sessions: Sessions = field(default_factory=Sessions)
    lock: threading.Lock = field(default_factory=threading.Lock)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _free: list[Spool] = field(default_factory=list)
    _refreshing: threading.Thread | None = None
    _refreshing_since: float = 0.0
    _refreshed_until: float = 0.0
    _counted: dict[str, tuple[float, Any, str | None]] = field(default_factory=dict)
    _counting: set[str] = field(default_factory=set)

    @property
    def folder(self) -> str:
        """The folder of the server's own files."""
        return os.path.join(self.root, "data", "web")

    @property
    def links(self) -> Links:
        """The one-time links."""
        return Links(self.folder)

    @property
    def may_enqueue(self) -> bool:
        """Whether new commands may be brought in."""
        return self.options.may_enqueue and not self.options.read_only

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """Lend a Spool that no other request uses meanwhile.

        Raises:
            SpoolError: the spool is gone.
        """
        with self.lock:
            found = self._free.pop() if self._free else None
        found = found or Spool(self.root).answer_at_once(self._refresh)
        if not found.layout.exists():
            found.close()
            raise SpoolError(access.NONE.format(self.root))
        try:
            yield found
        finally:
            with self.lock:
                if len(self._free) < SPOOLS:
                    self._free.append(found)
                    found = None
            if found is not None:
                found.close()

    def _refresh(self, must: bool) -> None:
        """Bring the index up to date in one thread, for all that ask meanwhile.

        To compare a folder with half a million files takes seconds, to read them all a minute. Eight threads that did so at
        the same time kept the workers from the index. And while workers run, the folders change all the time: ten tabs
        that compared 10,000 ended jobs at each question took half of the workers' rate. What workers do is in the index
        anyway. So the next comparison waits, and a file that was dropped meanwhile is seen some seconds later.

        Args:
            must: there is no index, so nothing can be shown until it is made.

        Raises:
            IndexBehind: it takes more than some seconds.
        """
        with self.lock:
            if self._refreshing is None or not self._refreshing.is_alive():
                if not must and time.monotonic() < self._refreshed_until:
                    return
                self._refreshing = threading.Thread(
                    target=self._bring_up_to_date, name="refresh", daemon=True
                )
                self._refreshing_since = time.monotonic()
                self._refreshing.start()
            thread, since = self._refreshing, self._refreshing_since
        thread.join(max(0.0, since + REFRESH_PATIENCE - time.monotonic()))
        if thread.is_alive():
            raise IndexBehind(
                "the index is being brought up to date, which takes a minute for a million jobs"
            )

    def _bring_up_to_date(self) -> None:
        try:
            with Spool(self.root).answer_at_once() as spool:
                spool.counts()
        except (QueuectlError, OSError) as error:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
        ended = time.monotonic()
        rest = min(REFRESH_REST * (ended - self._refreshing_since), LONGEST_REST)
        self._refreshed_until = ended + rest

    def lately(
        self, key: str, life: float, count: Callable[[], T], state: str | None = None
    ) -> tuple[T, str | None]:
        """Return what was counted under this key less than `life` seconds ago, or count it now.

        A page that is looked at asks every two seconds, and each tab for itself. While one of them counts, the others get
        what was counted before.

        Args:
            state: a mark of the present state of the spool.

        Returns:
            what was counted, and the mark of the state in which it was.
        """
        now = time.monotonic()
        with self.lock:
            kept = self._counted.get(key)
            if kept is not None and (now - kept[0] <= life or key in self._counting):
                return kept[1], kept[2]
            self._counting.add(key)
        try:
            found = count()
        finally:
            with self.lock:
                self._counting.discard(key)
        with self.lock:
            if len(self._counted) > MOST_COUNTED:
                self._counted.clear()
            self._counted[key] = (now, found, state)
        return found, state

    def close(self) -> None:
        """Close the files of all spools."""
        with self.lock:
            free, self._free = self._free, []
        for one in free:
            one.close()

    def make_folder(self) -> None:
        """Make the folder of the server's own files, which nobody else may enter.

        Raises:
            SpoolError: the disk refuses it.
        """
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            status = os.lstat(self.folder)
            if not stat.S_ISDIR(status.st_mode) or safe_open.has_other_owner(status):
                raise SpoolError(
                    f"{self.folder} is a link, or the folder of another user: links for logging in would be there"
                )
            os.chmod(self.folder, 0o700)
        except OSError as error:
            raise SpoolError.from_os("make", self.folder, error) from None

    def form_token_of(self, name: str) -> str:
        """Return what the forms of a user must bring whom a proxy has logged in."""
        return hmac.new(self.secret, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def note(self, user: User, what: str) -> None:
        """Write a line about what was done. If that fails it is done all the same, and the terminal of the server tells it."""
        with self.lock:
            self._counted.pop(NOTES, None)  # the next page tells of what has just been done
        path = os.path.join(self.folder, "actions.log")
        who = one_line(user.name) or "-"
        line = f"{iso(time.time())} {who} {one_line(what)}\n"
        try:
            with self.lock:
                if not os.path.isdir(self.folder) and Layout(self.root).exists():
                    self.make_folder()  # another spool is here now
                _append(path, line.encode("utf-8", "replace"))
        except SpoolError as error:
            print(f"error: {one_line(str(error))}: {line.rstrip()}", file=sys.stderr)
        except OSError as error:
            print(f"error: cannot write {path}: {error.strerror}: {line.rstrip()}", file=sys.stderr)


def _append(path: str, line: bytes) -> None:
    """Add a line to a log that may have been replaced by a link or a FIFO.

    Raises:
        OSError: it is no regular file, or the disk refuses it.
    """
    if os.path.exists(path) and os.path.getsize(path) > LARGEST_LOG:
        files.rename_over(path, f"{path}.1")
    fd = os.open(path, files.OVERWRITE | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        files.write_all(fd, line)
    finally:
        os.close(fd)


def status_of(error: QueuectlError) -> int:
    """Return the status of an answer that tells of an error."""
    from queuectl.errors import (
        ConfigError,
        DuplicateId,
        JobError,
        JobNotFound,
        KeyTaken,
        MoveError,
        SpoolFull,
        StillUnderWay,
    )

    for kind, status in (
        (JobNotFound, 404),
        (SpoolFull, 507),
        (SpoolError, 503),
        (DuplicateId | KeyTaken | MoveError | StillUnderWay, 409),
        (JobError, 422),
        (ConfigError, 409),
    ):
        if isinstance(error, kind):
            return status
    return 400
