"""posix_spawn of the C library, called so that other threads run meanwhile, and with a folder that the child enters.

Python's own `os.posix_spawn` keeps all threads waiting until the child has begun its program, and cannot enter a folder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from queuectl.system import libc

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_SET_SIGNALS_AND_SESSION = 0x04 | 0x08 | 0x80
"""POSIX_SPAWN_SETSIGDEF, POSIX_SPAWN_SETSIGMASK and POSIX_SPAWN_SETSID, as glibc and musl have them."""

_ROOM = 1024
"""Bytes for one of the C library's structures. The largest one has 336."""


def posix_spawn(
    program: bytes,
    words: Sequence[bytes],
    environment: Sequence[bytes],
    folder: bytes,
    opened: Sequence[tuple[bytes, int]],
    copied: Sequence[tuple[int, int]],
    reset: Collection[int],
) -> int:
    """Start a program in a session of its own, with no signal blocked; returns its pid.

    Args:
        words, environment: without zeros.
        folder: the child enters it first.
        opened: paths and flags of its first descriptors, from 0 on; files that are made are 0600.
        copied: descriptors of this process, and the numbers that the child gets them under.
        reset: signals that get back what they do by default. All calls must give the same ones.

    Raises:
        OSError: the system refused, or has no such function.
    """
    import ctypes

    pid, actions = ctypes.c_int(), ctypes.create_string_buffer(_ROOM)
    _check(libc.quick("posix_spawn_file_actions_init", "c_void_p", actions))
    try:
        _check(libc.quick("posix_spawn_file_actions_addchdir_np", "c_void_p c_char_p", actions, folder))
        types = "c_void_p c_int c_char_p c_int c_uint"
        for fd, (path, flags) in enumerate(opened):
            _check(libc.quick("posix_spawn_file_actions_addopen", types, actions, fd, path, flags, 0o600))
        types = "c_void_p c_int c_int"
        for one in copied:
            _check(libc.quick("posix_spawn_file_actions_adddup2", types, actions, *one))
        types = "c_void_p c_char_p c_void_p c_void_p c_void_p c_void_p"
        lists = _ended_by_zero(words), _ended_by_zero(environment)
        attributes = _attributes(reset)
        _check(libc.call("posix_spawn", types, ctypes.byref(pid), program, actions, attributes, *lists))
    finally:
        libc.quick("posix_spawn_file_actions_destroy", "c_void_p", actions)
    return pid.value


def _ended_by_zero(texts: Sequence[bytes]) -> Any:
    import ctypes

    return (ctypes.c_char_p * (len(texts) + 1))(*texts)


_made: list[Any] = []


def _attributes(reset: Collection[int]) -> Any:
    """What is the same for all programs; made once."""
    if not _made:
        import ctypes

        attributes, none, defaults = (ctypes.create_string_buffer(_ROOM) for _ in range(3))
        libc.quick("sigemptyset", "c_void_p", none)
        libc.quick("sigemptyset", "c_void_p", defaults)
        for number in reset:
            libc.quick("sigaddset", "c_void_p c_int", defaults, number)
        _check(libc.quick("posix_spawnattr_init", "c_void_p", attributes))
        flags = _SET_SIGNALS_AND_SESSION
        _check(libc.quick("posix_spawnattr_setflags", "c_void_p c_short", attributes, flags))
        _check(libc.quick("posix_spawnattr_setsigmask", "c_void_p c_void_p", attributes, none))
        _check(libc.quick("posix_spawnattr_setsigdefault", "c_void_p c_void_p", attributes, defaults))
        _made.append(attributes)
    return _made[0]


def _check(code: int) -> None:
    """Raise what a function of the posix_spawn family has returned: the number of an error, or -1 if it does not exist."""
    if code:
        code = code if code > 0 else libc.last_error()
        raise OSError(code, os.strerror(code))
