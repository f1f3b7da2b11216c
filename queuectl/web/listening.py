"""Where a server of pages listens: a port of 127.0.0.1, or a unix socket that only its owner can reach. Nothing else."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from queuectl.errors import QueuectlError, SpoolError
from queuectl.system import safe_open

TRIES = 20
"""Further ports that are tried when one is taken."""

ADDRESS = "127.0.0.1"
_WAITING = 64


def on_port(port: int) -> socket.socket:
    """Return a socket that listens on this port of 127.0.0.1, or on one of the next twenty; 0: on any free one.

    Raises:
        QueuectlError: none of them can be had.
    """
    last: OSError | None = None
    for one in [port] if port == 0 else range(port, min(port + TRIES, 65535) + 1):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # a port that was used a minute ago; elsewhere this would share it
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((ADDRESS, one))
            made.listen(_WAITING)
        except OSError as error:
            made.close()
            last = error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
        else:
            return made
    reason = (last.strerror or "").lower() if last else ""
    raise QueuectlError(f"cannot listen on port {port}: {reason}", hint="queuectl web --port 0")


def on_path(path: str) -> socket.socket:
    """Return a socket that listens at this path, with the mode 0600, in a folder that others cannot change.

    Raises:
        QueuectlError: something else is there, a server listens there, or others could replace it.
        SpoolError: the system refuses it.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
        if safe_open.has_other_owner(status):
            raise QueuectlError(f"{folder} is the folder of another user, who could replace the socket")
        if status.st_mode & safe_open.OTHERS_WRITE:
            raise QueuectlError(
                f"others can write into {folder}, and could replace the socket", hint=f"chmod go-w {folder}"
            )
        _drop_dead(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            made.bind(path)
        except BaseException:
            made.close()
            raise
        finally:
            os.umask(before)
        os.chmod(path, 0o600)
        made.listen(_WAITING)
    except OSError as error:
        raise SpoolError.from_os("listen at", path, error) from None
    return made


def _drop_dead(path: str) -> None:
    """Delete the socket of a server that has ended.

    Raises:
        QueuectlError: it is no socket, or a server listens there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise QueuectlError(f"{path} is there already, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked, suppress(ConnectionRefusedError):
        asked.connect(path)
        raise QueuectlError(f"a server listens at {path} already")
    os.unlink(path)
