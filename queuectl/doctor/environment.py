"""Examines what a spool needs: its folders and their permissions, the filesystem, free space, the clock, the watch."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from queuectl.control import mounts, pause, permissions
from queuectl.doctor.finding import Finding
from queuectl.errors import SpoolError
from queuectl.job import times, zone
from queuectl.layout import DEAD, DONE, FOLDERS, PENDING, PERMITS, PROCESSING, QUEUES
from queuectl.system import safe_open
from queuectl.system.host import disk_shortage, mount_of
from queuectl.system.wake_up import WakeUp
from queuectl.system.watcher import FolderWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case
    from queuectl.layout import Layout

CLOCK_SLACK = 5.0
"""Seconds that the clock may be behind the newest file: NTP sets a running clock back by less."""


def examine(case: Case) -> Iterator[Finding]:
    """Examine everything that does not depend on the jobs."""
    missing = list(_missing_folders(case))
    yield from missing
    if case.config_error is not None:
        yield Finding(
            "settings",
            "config",
            f"{case.config_error}",
            case.config_error.hint or "correct the settings file",
        )
    if missing:
        return
    yield from _permissions(case)
    yield from _devices(case)
    yield from _filesystem(case)
    yield from _pause(case)
    yield from _free_space(case)
    yield from _clock(case)
    yield from _zone()
    yield from _watch(case)


def _missing_folders(case: Case) -> Iterator[Finding]:
    for name in (*FOLDERS, QUEUES, PERMITS):
        path = case.path(name)
        if os.path.isdir(path):
            continue
        if os.path.lexists(path):
            yield Finding(
                "no folder",
                name,
                f"{name} is not a folder",
                "move it away; the next command creates the folder",
            )
        else:
            yield Finding(
                "no folder", name, f"the folder {name}/ is missing", "create it", case.layout.create
            )


def _permissions(case: Case) -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    owner = permissions.other_owner(case.layout)
    if owner:
        # This is no fault. But if root repaired the spool, its owner could not use it.
        cure = permissions.as_owner(case.layout, owner, "doctor")
        you = "you are root" if os.geteuid() == 0 else "not yours"
        fact = f"{case.layout.root} is the spool of {owner}, and {you}: its permissions are checked for its owner only"
        yield Finding("owner", case.layout.root, fact, cure, harmless=True)
        return
    try:
        for path, problem, hint in permissions.unsafe(case.layout):
            inside = path == case.layout.root or path.startswith(case.layout.root + os.sep)
            inside = inside and _is_the_spools(case.layout, path)
            fix = partial(_make_private, path) if hint.startswith("chmod") and inside else None
            cure = f"{hint} {shlex.quote(path)}"
            yield Finding("rights", path, f"{path} {problem}, who could run commands as you", cure, fix)
    except SpoolError as error:
        yield Finding("rights", case.layout.root, str(error), "")


def _is_the_spools(layout: Layout, path: str) -> bool:
    """Return whether a path is in the spool and nowhere else: no link leads out of it, and it has no second name."""
    inside = os.path.join(os.path.realpath(layout.root), os.path.relpath(path, layout.root))
    try:
        status = os.lstat(path)
    except OSError:
        return False
    is_linked = path != layout.root and os.path.realpath(path) != os.path.normpath(inside)
    return not is_linked and (stat.S_ISDIR(status.st_mode) or status.st_nlink == 1)


def _make_private(path: str) -> None:
    """Make a path writable for its owner only.

    Raises:
        SpoolError: the mode does not change.
        OSError: it may not be changed.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode & ~safe_open.OTHERS_WRITE)
    if os.stat(path).st_mode & safe_open.OTHERS_WRITE:
        raise SpoolError("this filesystem keeps no modes; move the spool to one that does")


def _devices(case: Case) -> Iterator[Finding]:
    for name, fact in mounts.obstacles(case.layout):
        yield Finding("device", name, fact, mounts.HINT)


def _filesystem(case: Case) -> Iterator[Finding]:
    root = case.layout.root
    mount = mount_of(root)
    if mount and mount.is_remote:
        fact = (
            f"{root} is on {mount.type}, where locks, renames and events may not work as the spool needs them"
        )
        yield Finding("filesystem", root, fact, "move the spool to a local disk")
    if hasattr(os, "statvfs") and os.statvfs(root).f_flag & os.ST_RDONLY:
        fact = f"{root} is on a read-only filesystem"
        yield Finding("read-only", root, fact, "see dmesg for the reason, then mount it for writing")


def _pause(case: Case) -> Iterator[Finding]:
    found = pause.read(case.layout)
    if found:
        fact = f"{found.sentence}; workers start nothing"
        yield Finding("paused", "paused", fact, "queuectl resume, or delete the file", harmless=True)


def _free_space(case: Case) -> Iterator[Finding]:
    lacking = disk_shortage(case.layout.root, case.settings.min_free_space)
    if lacking:
        yield Finding("room", case.layout.root, f"workers pause: {lacking}", "free some space on the disk")


def _clock(case: Case) -> Iterator[Finding]:
    newest, name = 0.0, ""
    for place in (PENDING, DONE, DEAD, PROCESSING, "tmp", "logs", "data/workers"):
        # The kernel sets the change time. A producer can set the modification time to anything.
        with suppress(OSError):
            changed = os.stat(case.path(place)).st_ctime
            if changed > newest:
                newest, name = changed, place
    behind = newest - case.now()
    if behind > CLOCK_SLACK:
        fact = f"the clock is {behind:.0f} s behind {name}/, which was changed at {times.iso(newest)}"
        yield Finding("clock", "clock", fact, "set the clock; scheduled jobs and retries depend on it")


def _zone() -> Iterator[Finding]:
    text = zone.fault_of_variable()
    if text is not None:
        fact = f"the variable TZ is {text!r}, which is no time zone of this machine, so times are read and shown in UTC"
        yield Finding("zone", "TZ", fact, "correct TZ, or unset it: timedatectl list-timezones")


def _watch(case: Case) -> Iterator[Finding]:
    wake_up = WakeUp()
    watch = FolderWatch(case.layout.pending, wake_up)
    try:
        if not watch.start():
            fact = f"pending/ cannot be watched for events, so workers scan it every second: {watch.failure}"
            cure = "raise fs.inotify.max_user_instances and max_user_watches (sysctl)"
            yield Finding("watch", "pending", fact, cure, harmless=True)
    finally:
        watch.stop()
