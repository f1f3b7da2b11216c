"""A folder in a place where others may rename folders and make links: opened name by name, so that no link is followed."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def held(root: str, *names: str, make: bool = False) -> Iterator[str]:
    """Yield a path that leads into a folder below another one.

    On Linux it leads into the same folder, whatever is put in the place of a name on the way meanwhile. Elsewhere there
    was no link when it was looked at.

    Args:
        root: the folder in which to begin. The path to it may have links.
        names: of the folders on the way, one for each level.
        make: make those that are missing.

    Raises:
        FileNotFoundError: a folder is not there.
        OSError: one of the names is a link or no folder, or it cannot be opened.
    """
    if os.open not in os.supports_dir_fd:
        yield _checked(root, names, make=make)
        return
    fd = os.open(root, _FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
            inner = os.open(name, _FLAGS, dir_fd=fd)
            os.close(fd)
            fd = inner
        path = f"/proc/self/fd/{fd}"
        yield path if sys.platform == "linux" and os.path.isdir(path) else os.path.join(root, *names)
    finally:
        os.close(fd)


def _checked(root: str, names: tuple[str, ...], *, make: bool) -> str:
    path = root
    for name in names:
        path = os.path.join(path, name)
        if make:
            with suppress(FileExistsError):
                os.mkdir(path)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return path
