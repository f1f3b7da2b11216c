"""A kernel lock is given back once, and never touches a file that has its number later."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl.system.locks import Lock, is_held, is_locked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("first", ["detach", "release"])
def test_a_lock_that_was_given_back_closes_no_other_file(tmp_path: Path, first: str) -> None:
    """The number of a closed descriptor goes to the next file that is opened, which a second release closed."""
    lock = Lock.acquire(str(tmp_path / "lock"))
    assert lock
    number = lock.fd
    getattr(lock, first)()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == number
        lock.release()
        lock.detach()
        assert not lock.is_on(str(tmp_path / "other"))
        os.fstat(number)
    assert not is_locked(str(tmp_path / "lock"))


def test_who_asks_whether_a_lock_is_held_keeps_nobody_else_from_the_answer(tmp_path: Path) -> None:
    """Two workers that look at a free place at once must both find it free. A file that is not there is not made."""
    path = str(tmp_path / "lock")
    assert not is_held(path)
    assert not os.path.lexists(path)
    lock = Lock.acquire(path)
    assert lock
    assert is_held(path)
    lock.release()
    if sys.platform != "win32":
        import fcntl

        with open(path, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            assert not is_held(path)
