"""Which paths lie on a mount that may hang: one that another machine or a program serves. Asking touches none of them."""

from __future__ import annotations

import os
import re
import time

from queuectl.system.host import Mount

RECHECK = 1.0
"""Seconds for which an answer is used again: a job's start need not read the table of mounts each time."""

_HANGS = frozenset({"fuse", "fuseblk", "autofs"})
_MOST_LINKS = 40
_ESCAPE = re.compile(r"\\([0-7]{3})")


class HangingMounts:
    """Answers for paths, each remembered for RECHECK seconds."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._points: set[str] = set()
        self._until = 0.0

    def hold(self, path: str) -> bool:
        """Whether looking at this absolute path may take for ever, because a server does not answer."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + RECHECK
            self._known.clear()
            self._points = hanging_points()
        if not self._points:
            return False
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = leads_into(path, self._points)
        return found


def hanging_points() -> set[str]:
    """Return the folders where such filesystems are mounted; none where the system has no table of mounts."""
    points: set[str] = set()
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                words = line.split()
                point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), words[4])
                kind = words[words.index("-") + 1]
                if Mount(kind, point).is_remote or kind in _HANGS:
                    points.add(point)
                else:
                    points.discard(point)  # mounted over the other
    except (OSError, ValueError, IndexError):
        return set()
    return points


def leads_into(path: str, points: set[str]) -> bool:
    """Whether a path reaches one of these folders, by itself or through links; nothing in them is looked at."""
    if "/" in points:
        return True
    current, links = "/", 0
    names = path.split("/")[::-1]
    while names:
        name = names.pop()
        if name == "..":
            current = os.path.dirname(current)
        elif name not in ("", "."):
            after = os.path.join(current, name)
            if after in points:
                return True
            try:
                target = os.readlink(after)
            except OSError:
                current = after  # no link; or it does not exist, which the start of the command will find
                continue
            links += 1
            if links > _MOST_LINKS:
                return False
            if target.startswith("/"):
                current = "/"
            names += target.split("/")[::-1]
    return False
