"""A kernel lock is given back once, and never touches a file that has its number later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from queuectl.system.locks import Lock, is_locked

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
