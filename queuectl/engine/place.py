"""The folder of a spool on the shared file system: checked, made once, and never that of another spool.

    slurm_dir/ID/            0700; the packs are in it
    slurm_dir/ID/owner.json  whose it is: the host and the path of the spool

ID is drawn once and kept in `data/spool-id`. If that is deleted, as `data/` may be at any time, it is found again by
`owner.json`. A new one would hide what runs there, and all of it would be run again.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import permissions
from queuectl.errors import SpoolError
from queuectl.layout import is_job_name
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from queuectl.layout import Layout

_LIMIT = 1 << 16
_OLD = 3600.0
"""Seconds after which nobody still works with a temporary file."""
_OWNER = "owner.json"
_NOTE = ".place"
_DIGITS = frozenset("0123456789abcdef")


def check(folder: str, layout: Layout) -> None:
    """Check the folder that a person has chosen for the packs of spools.

    Raises:
        SpoolError: it cannot be used, with the reason.
    """
    if not os.path.isabs(folder) or not folder.isprintable():
        raise SpoolError(f"slurm_dir must be an absolute path, the same on all nodes, not {folder!r}")
    try:
        status = os.stat(folder)
    except OSError as error:
        raise SpoolError.from_os("use slurm_dir", folder, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolError(f"slurm_dir {folder} is not a folder")
    if layout.contains(folder) or _is_above(folder, layout.root):
        raise SpoolError(f"slurm_dir {folder} and the spool {layout.root} must not lie in each other")
    if status.st_uid != os.geteuid():
        raise SpoolError(f"slurm_dir {folder} belongs to another user (uid {status.st_uid})")
    if status.st_mode & safe_open.OTHERS_WRITE:
        hint = f"chmod go-w {folder}"
        raise SpoolError(
            f"slurm_dir {folder} can be written by others, who could run commands as you", hint=hint
        )
    for path, problem, _ in permissions.unsafe_parents(folder):
        raise SpoolError(f"slurm_dir {folder}: {path} {problem}, who could run commands as you")


def _is_above(folder: str, root: str) -> bool:
    return os.path.realpath(root).startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep)


def prepare(folder: str, layout: Layout, host: str, *, used_by: str | None = None) -> tuple[str, str]:
    """Return the id of a spool, and the path of its folder below this one, which is made if it is not there.

    Args:
        host: the name of this machine.
        used_by: the engine that has jobs of this spool now. The folder in which it has them must be there: found empty,
            because the share is not mounted or the setting is another one, all of them would be run again.

    Raises:
        SpoolError: the folder cannot be used, or it is that of another spool: this one is a copy of that.
    """
    check(folder, layout)
    mine = {"host": host, "root": os.path.realpath(layout.root)}
    try:
        spool = _known_id(layout) or _id_by_owner(folder, mine) or os.urandom(4).hex()
        _keep_id(layout, spool)
        place = os.path.join(folder, spool)
        if used_by is not None:
            _refuse_another(layout.claims(used_by), place)
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
        status = os.lstat(place)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise SpoolError(
                f"{place} must be a folder of yours that nobody else may enter", hint=f"chmod 700 {place}"
            )
        _own(place, mine)
        _try_links(place)
    except OSError as error:
        raise SpoolError.from_os("use", error.filename or folder, error) from None
    return spool, place


def remember(claims: str, place: str) -> None:
    """Note in the folder of the claims in which place their jobs are handed over. Call it before the first one is.

    Raises:
        OSError: the disk refused.
    """
    path = os.path.join(claims, _NOTE)
    if _noted(claims) != place:
        files.replace(path, f"{place}\n".encode())
        files.sync_folder(claims)


def _noted(claims: str) -> str | None:
    with suppress(FileNotFoundError, safe_open.NotReadable):
        return os.fsdecode(safe_open.read_regular(os.path.join(claims, _NOTE), _LIMIT)[0]).removesuffix("\n")
    return None


def _refuse_another(claims: str, place: str) -> None:
    """Make sure that a place is the one in which jobs are out.

    Raises:
        SpoolError: it is not.
    """
    known = _noted(claims) or place
    if known != place:
        raise SpoolError(
            f"jobs are out in {known}, and slurm_dir is another folder now",
            hint=f"queuectl config set slurm_dir {os.path.dirname(known)}",
        )
    _refuse_missing(place)


def _refuse_missing(place: str) -> None:
    if not os.path.isdir(place):
        fact = f"jobs are out in {place}, which is not there: is its file system mounted?"
        raise SpoolError(fact, hint=f"findmnt --target {shlex.quote(os.path.dirname(place))}")


def check_used(claims: str) -> None:
    """Make sure that the place in which jobs are out is there.

    Args:
        claims: the folder of their claims.

    Raises:
        SpoolError: it is not.
        OSError: the claims cannot be read.
    """
    place = _noted(claims)
    if place and not os.path.isdir(place) and any(is_job_name(name) for name in os.listdir(claims)):
        _refuse_missing(place)


def _known_id(layout: Layout) -> str | None:
    path = os.path.join(layout.data, "spool-id")
    try:
        found = safe_open.read_regular(path, _LIMIT)[0].decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except safe_open.NotReadable as error:
        raise SpoolError(f"{path} is {error}") from None
    if len(found) != 8 or not _DIGITS.issuperset(found):
        raise SpoolError(f"{path} does not have 8 hexadecimal digits", hint=f"rm {path}")
    return found


def _keep_id(layout: Layout, spool: str) -> None:
    path = os.path.join(layout.data, "spool-id")
    if not os.path.lexists(path):
        files.replace(path, f"{spool}\n".encode())


def _id_by_owner(folder: str, mine: dict[str, str]) -> str | None:
    """Return the name of the folder that is this spool's by its owner.json."""
    for name in sorted(os.listdir(folder)):
        if len(name) == 8 and _DIGITS.issuperset(name) and _owner_of(os.path.join(folder, name)) == mine:
            return name
    return None


def _owner_of(place: str) -> object:
    """Return whose a folder is; None if it does not say so yet."""
    with suppress(FileNotFoundError, NotADirectoryError, safe_open.NotReadable):
        data = safe_open.read_regular(os.path.join(place, _OWNER), _LIMIT)[0]
        try:
            return json.loads(data)
        except ValueError:
            return data
    return None


def _own(place: str, mine: dict[str, str]) -> None:
    """Write whose the folder is, or make sure that it is this spool's.

    Raises:
        SpoolError: it is another one's.
    """
    path = os.path.join(place, _OWNER)
    scratch = os.path.join(place, files.temporary_name())
    status = files.write_new(scratch, json.dumps(mine).encode(), sync=True)
    _delete_scratch(place, status.st_mtime - _OLD)
    with suppress(FileExistsError):
        files.publish(scratch, path)
    with suppress(FileNotFoundError):
        os.unlink(scratch)
    files.sync_folder(place)
    _refuse_other_owner(place, mine)


def _delete_scratch(place: str, before: float) -> None:
    """Delete what dispatchers have left that were killed while they wrote here. `engine check` may be writing, too.

    Args:
        before: a moment by the clock of the share.
    """
    for name in filter(files.is_temporary_name, os.listdir(place)):
        path = os.path.join(place, name)
        with suppress(FileNotFoundError):
            if os.lstat(path).st_mtime < before:
                os.unlink(path)


def existing(folder: str, layout: Layout, host: str) -> str | None:
    """Return the folder of a spool below this one, and make none; None if there is none.

    Raises:
        SpoolError: it is that of another spool, or this folder cannot be used.
    """
    check(folder, layout)
    mine = {"host": host, "root": os.path.realpath(layout.root)}
    known = _known_id(layout)
    spool = known if known is not None else _id_by_owner(folder, mine)
    place = os.path.join(folder, spool or "")
    if spool is None or not os.path.isdir(place):
        return None
    if os.path.lexists(os.path.join(place, _OWNER)):
        _refuse_other_owner(place, mine)
    return place


def _refuse_other_owner(place: str, mine: dict[str, str]) -> None:
    owner, path = _owner_of(place), os.path.join(place, _OWNER)
    if owner != mine:
        whose = (
            f"{owner['root']} on {owner['host']}"
            if isinstance(owner, dict) and {"root", "host"} <= owner.keys()
            else "another spool"
        )
        raise SpoolError(
            f"{place} belongs to {whose}, and this spool has the same id: one is a copy of the other",
            hint=f"in the copy: rm data/spool-id; if the spool was moved or its host renamed: rm {path}",
        )


def _try_links(place: str) -> None:
    """Make sure that hard links hold there: a claim is one.

    Raises:
        SpoolError: they do not.
    """
    one, other = (os.path.join(place, files.temporary_name()) for _ in range(2))
    try:
        files.write_new(one, b"", sync=False)
        files.publish(one, other, keep=True)
        holds = os.path.lexists(one) and os.path.samestat(os.lstat(one), os.lstat(other))
    finally:
        for path in (one, other):
            with suppress(FileNotFoundError):
                os.unlink(path)
    if not holds:
        raise SpoolError(f"the file system of {place} has no hard links, by which nodes claim jobs")
