"""A long list is processed on two cores, with the same result as on one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool
from queuectl.api import listing
from queuectl.index.index import Index
from queuectl.intake import rebuild, reconcile
from queuectl.system import fork

from support import drop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ITEMS = [str(number) for number in range(fork.MIN_ITEMS)]


def pids(items: Sequence[str]) -> list[tuple[str, int]]:
    return [(item, os.getpid()) for item in items]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process be forked in spite of xdist's threads, and on a machine with one core."""
    monkeypatch.setattr(fork, "_can_fork", lambda: True)


def in_a_process_of_its_own(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout.strip()


COUNT = (
    "import os, threading\n"
    "from queuectl.system import fork\n"
    "os.sched_getaffinity = lambda _: {0, 1}\n"
    "items = [str(n) for n in range(fork.MIN_ITEMS)]\n"
    "work = lambda part: [(one, os.getpid()) for one in part]\n"
)


def test_two_processes_do_it_and_nothing_is_left_out() -> None:
    """Each item is worked on once, and the copy is gone afterwards."""
    told = in_a_process_of_its_own(
        COUNT + "made = fork.split_work(work, items)()\n"
        "assert sorted(one for one, _ in made) == sorted(items)\n"
        "try: os.waitpid(-1, os.WNOHANG); print('a child is left')\n"
        "except ChildProcessError: print(len({pid for _, pid in made}))\n"
    )
    assert told == "2"


def test_a_process_with_threads_is_not_copied() -> None:
    """A lock that another thread holds would stay locked in the copy."""
    told = in_a_process_of_its_own(
        COUNT + "stop = threading.Event()\n"
        "thread = threading.Thread(target=stop.wait); thread.start()\n"
        "print(len({pid for _, pid in fork.split_work(work, items)()}))\n"
        "stop.set(); thread.join()\n"
    )
    assert told == "1"


def test_a_short_list_is_not_worth_it() -> None:
    """A copy of the process costs more than reading a thousand files."""
    assert {pid for _, pid in fork.split_work(pids, ITEMS[:-1])()} == {os.getpid()}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_what_a_killed_copy_leaves_is_done_here(two_cores: None) -> None:
    """If the system kills the copy for lack of memory, the result is complete all the same."""
    here = os.getpid()

    def work(items: Sequence[str]) -> list[tuple[str, int]]:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return pids(items)

    made = fork.split_work(work, ITEMS)()

    assert sorted(item for item, _ in made) == sorted(ITEMS)
    assert {pid for _, pid in made} == {here}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_error_in_the_copy_is_an_error_here(two_cores: None) -> None:
    """The work is repeated in this process, where the error is raised."""

    def work(items: Sequence[str]) -> list[tuple[str, int]]:
        if ITEMS[-1] in items:
            raise OSError("the disk")
        return pids(items)

    with pytest.raises(OSError, match="the disk"):
        fork.split_work(work, ITEMS)()


def test_no_thread_of_ours_outlives_a_look(spool_dir: Path) -> None:
    """Otherwise the second scan would use one core only."""
    drop(spool_dir, "a", command="true")
    before = threading.active_count()
    Spool(spool_dir).refresh()
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_files_read_by_two_are_told_as_if_read_by_one(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows in the same order, including invalid files."""
    monkeypatch.setattr(fork, "MIN_ITEMS", 4)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="ours")
    for number in range(12):
        drop(spool_dir, f"job{number}", command=f"echo {number}", priority=1 + number % 10)
    (spool_dir / "dead" / "odd.json").write_text("{no job")
    drop(spool_dir, "twin", id="job3", command="true")
    spool.refresh()
    found = []
    for both in (False, True):
        monkeypatch.setattr(fork, "_can_fork", lambda both=both: both)
        spool.reindex()
        found.append(
            [(row.id, row.state, row.name, row.priority, row.command) for row in listing.select(spool)]
        )

    assert found[0] == found[1]
    assert [row[0] for row in found[0] if row[1] == "pending"] == ["ours", *(f"job{n}" for n in range(12))]
    assert len(found[0]) == 15


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_folder_read_part_by_part_is_told_whole(
    spool_dir: Path, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next part is read while one is inserted; of two files with the same id the same one wins as without a copy."""
    spool = Spool(spool_dir)
    for number in range(12):
        drop(spool_dir, f"job{number}", command=f"echo {number}")
        drop(spool_dir, f"twin{number}", id=f"job{number}", command="true")
    spool.refresh()
    whole = sorted((row.id, row.state, row.name, row.command) for row in listing.select(spool))
    monkeypatch.setattr(fork, "MIN_ITEMS", 2)
    monkeypatch.setattr(reconcile, "LARGE_CHUNK", 3)
    monkeypatch.setattr(rebuild, "LARGE_CHUNK", 3)
    spool.reindex()

    assert sorted((row.id, row.state, row.name, row.command) for row in listing.select(spool)) == whole
    assert {row[0] for row in whole if row[1] == "pending"} == {f"job{number}" for number in range(12)}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_rebuild_that_is_broken_off_leaves_no_process_behind(
    spool_dir: Path, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is reading the next part when the first part cannot be inserted."""
    spool = Spool(spool_dir)
    for number in range(12):
        drop(spool_dir, f"job{number}", command="true")
    spool.refresh()
    spool._index.use_memory()  # else the files are read before anything is inserted
    monkeypatch.setattr(fork, "MIN_ITEMS", 2)
    monkeypatch.setattr(reconcile, "LARGE_CHUNK", 4)

    def refuse(*_: object) -> int:
        raise MemoryError

    before = {child.pid for child in psutil.Process().children()}
    with monkeypatch.context() as patched:
        patched.setattr(Index, "insert_new", refuse)
        with pytest.raises(MemoryError):
            spool.reindex()

    assert {child.pid for child in psutil.Process().children()} <= before
    assert spool.reindex() == 12
