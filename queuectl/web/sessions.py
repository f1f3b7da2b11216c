"""Who may see the pages: one-time links, which are files, and sessions, which are in memory and end with the server."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import SpoolError
from queuectl.fast_start.dataclass import dataclass
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LINK_LIFE = 600.0
"""Seconds for which a link can be used."""

UNUSED, LONGEST = 12 * 3600.0, 7 * 86400.0
"""Seconds after which a session ends: without a request, and in any case."""

MOST_SESSIONS = 100
_BEGINS = "login."
_LONGEST_TOKEN = 200


def digest(secret: str) -> str:
    """Return what is kept of a secret: whoever reads that cannot use it."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Links:
    """One-time links for logging in. Each is a file, which the command `web --url` can make beside the server.

    Args:
        folder: where the files are.
        clock: the time of day, in epoch seconds.
    """

    def __init__(self, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def make(self) -> str:
        """Make a link; return its token.

        Raises:
            SpoolError: the disk refuses the file.
        """
        self.sweep()
        token = secrets.token_urlsafe(32)
        path = os.path.join(self._folder, _BEGINS + digest(token))
        try:
            os.close(os.open(path, files.CREATE, 0o600))
            os.utime(path, (self._clock(), self._clock()))
        except OSError as error:
            raise SpoolError.from_os("write", path, error) from None
        return token

    def spend(self, token: str) -> bool:
        """Use a link; return False if it is none, was used, or is too old. Of two that use it at once one gets True."""
        if not token or len(token) > _LONGEST_TOKEN:
            return False
        path = os.path.join(self._folder, _BEGINS + digest(token))
        try:
            status = os.lstat(path)
            os.unlink(path)  # the second one to use it fails here
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or safe_open.has_other_owner(status):
            return False
        return -1 <= self._clock() - status.st_mtime <= LINK_LIFE

    def sweep(self) -> None:
        """Delete the links that are too old."""
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith((_BEGINS, "open-")):
                    with suppress(OSError):
                        if self._clock() - entry.stat(follow_symlinks=False).st_mtime > LINK_LIFE:
                            os.unlink(entry.path)


@dataclass(slots=True)
class Session:
    """One browser that is logged in.

    Attributes:
        form_token: what each form of this session must bring.
        began, used: when it began and was last used, on a clock that only goes forward.
    """

    form_token: str
    began: float
    used: float


class Sessions:
    """The sessions of a server. Only digests of the cookies are kept.

    Args:
        clock: a monotonic one, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Session] = {}

    def begin(self) -> str:
        """Begin a session; return the value of its cookie."""
        cookie = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            while len(self._known) >= MOST_SESSIONS:
                oldest = min(self._known, key=lambda one: self._known[one].used)
                del self._known[oldest]
            self._known[digest(cookie)] = Session(secrets.token_urlsafe(32), now, now)
        return cookie

    def find(self, cookies: Iterable[str]) -> Session | None:
        """Return the session of one of these cookies; None if there is none, or it has ended."""
        now = self._clock()
        with self._lock:
            for cookie in cookies:
                key = digest(cookie)
                found = self._known.get(key)
                if found is None:
                    continue
                if now - found.used > UNUSED or now - found.began > LONGEST:
                    del self._known[key]
                    continue
                found.used = now
                return found
        return None

    def end(self, cookies: Iterable[str]) -> None:
        """End the sessions of these cookies."""
        with self._lock:
            for cookie in cookies:
                self._known.pop(digest(cookie), None)
