"""One Spool in a program with threads, forks and many requests: nothing crashes, waits for ever, or stays open."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIXED = """
from concurrent.futures import ThreadPoolExecutor
from queuectl import Filter, Spool

spool = Spool()

def mixed(thread):
    right = []
    for turn in range(50):
        job_id, kind = f"t{thread}-{turn}", turn % 10
        if kind == 0:
            right.append(spool.enqueue("true", id=job_id, tags=[f"t{thread}"]).id == job_id)
        elif kind == 1:
            right.append(spool.get(f"t{thread}-{turn - 1}").command == "true")
        elif kind == 2:
            right.append(spool.counts()["pending"] > 0)
        elif kind == 3:
            right.append(any(row.id == f"t{thread}-{turn - 3}" for row in spool.list()))
        elif kind == 4:
            right.append(len(list(spool.enqueue_many({"command": "true"} for _ in range(3)))) == 3)
        elif kind == 5:
            right.append(spool.set(f"t{thread}-{turn - 5}", priority=9).priority == 9)
        elif kind == 6:
            right.append(spool.hold(f"t{thread}-{turn - 6}"))
        elif kind == 7:
            right.append(spool.cancel(f"t{thread}-{turn - 7}") == "cancelled")
        elif kind == 8:
            found = spool.list(where=Filter(tags=(f"t{thread}",), states=("dead",)))
            right.append(f"t{thread}-{turn - 8}" in [row.id for row in found])
        else:
            right.append([one.state for one in spool.wait(f"t{thread}-{turn - 9}")] == ["dead"])
    return right

with ThreadPoolExecutor(8) as threads:
    print(sum(map(sum, threads.map(mixed, range(8)))), spool.counts()["pending"], spool.counts()["dead"])
"""


def test_eight_threads_share_a_spool_and_each_gets_its_own_answers(spool_dir: Path) -> None:
    """A global Spool behind a threading web server, or asyncio.to_thread: two threads inside SQLite ended the process."""
    done = subprocess.run([sys.executable, "-c", MIXED], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["400", "120", "40"], "")


LOCK_FOR_EACH_STEP = {
    "cancel", "cancel_many", "clear", "close", "enqueue_many", "enqueue_stream", "forget", "forget_many", "last_output", "wait",
}  # fmt: skip
"""They wait for a worker, for jobs or for the caller's own code. Others need not wait with them."""

WITHOUT_INDEX = {
    "answer_at_once",
    "check",
    "drain",
    "hold",
    "output",
    "output_part",
    "read_output",
    "release",
    "release_many",
    "retry",
    "set",
    "pause",
    "paused",
    "resume",
    "workers",
}
"""They read and write files only, or call one method that takes the lock."""


def test_each_method_takes_the_lock_or_is_known_to_wait() -> None:
    """A new method that forgets `@locked` would be found by the first web server that uses it."""
    methods = dict(inspect.getmembers(Spool, inspect.isfunction))
    public = {name for name in methods if not name.startswith("_")}
    marked = {name for name in public if hasattr(methods[name], "__wrapped__")}

    assert public - marked == LOCK_FOR_EACH_STEP | WITHOUT_INDEX


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for the other thread"


def test_a_thread_that_waits_for_a_job_keeps_no_other_from_enqueueing(spool_dir: Path) -> None:
    """A web page waits for its job, and all other pages go on."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="waits", hold=True)
    told: list[str] = []
    waiting = threading.Thread(target=lambda: told.extend(one.state for one in spool.wait("waits")))
    waiting.start()

    in_thread(lambda: spool.enqueue("true", id="other"))
    in_thread(lambda: spool.cancel("waits"))
    waiting.join(10)
    assert told == ["dead"]


def test_the_source_of_a_stream_may_wait_for_another_thread(spool_dir: Path) -> None:
    """The jobs come from a generator of the caller, which may take minutes for each."""
    spool = Spool(spool_dir)

    def jobs() -> Iterator[dict[str, Any]]:
        yield {"command": "true", "id": "first"}
        in_thread(lambda: spool.enqueue("true", id="other"))
        yield {"command": "true", "id": "last"}

    assert list(spool.enqueue_stream(jobs())) == ["first", "last"]
    assert spool.enqueue_many({**job, "id": f"{job['id']}2"} for job in more_jobs(spool)) == [
        "first2",
        "last2",
    ]
    assert spool.counts()["pending"] == 6


def more_jobs(spool: Spool) -> Iterator[dict[str, Any]]:
    yield {"command": "true", "id": "first"}
    in_thread(lambda: spool.enqueue("true", id="other2"))
    yield {"command": "true", "id": "last"}


FORKED = """
import multiprocessing, threading
from queuectl import DuplicateId, Spool

spool = Spool()
spool.enqueue("true", id="before")
busy = threading.Event()

def hold_the_lock():
    with spool._lock:
        busy.set()
        threading.Event().wait()

threading.Thread(target=hold_the_lock, daemon=True).start()
busy.wait()

def enqueue(number):
    job = spool.enqueue("true", id=f"f{number}")
    try:
        spool.enqueue("true", id="before")
    except DuplicateId as error:
        return job.id, error.job_id, spool.counts()["pending"] > 1

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(sorted(pool.map(enqueue, range(4))) == [(f"f{n}", "before", True) for n in range(4)])
"""


def test_a_forked_process_goes_on_with_the_spool_of_its_parent(spool_dir: Path) -> None:
    """multiprocessing, gunicorn: SQLite forbids the connection of the parent, and a thread there may hold the lock."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_spool_can_be_sent_to_another_process(spool_dir: Path) -> None:
    """`Pool.map(spool.enqueue, commands)` pickles the spool: the other process opens it for itself."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")

    assert pickle.loads(pickle.dumps(spool)).get("a").id == "a"  # noqa: S301 (our own)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts its open files in /proc")


@needs_proc
def test_a_closed_spool_has_no_file_open_and_opens_again_when_it_is_used(spool_dir: Path) -> None:
    """A server that makes a Spool for each request ran out of descriptors."""
    before = open_files()
    with Spool(spool_dir) as spool:
        spool.enqueue("true", id="a")
        spool.counts()
        assert open_files() > before
    assert open_files() == before

    assert spool.get("a").id == "a"
    spool.close()
    spool.close()
    assert open_files() == before


def _use(spool: Spool, name: str) -> None:
    spool.enqueue("true", id=name, unique=name)
    spool.set(name, priority=9)
    spool.cancel(name)
    spool.wait(name)
    spool.refresh(lambda _: print(spool))


@needs_proc
def test_a_forgotten_spool_closes_its_files_without_the_garbage_collector(spool_dir: Path) -> None:
    """A ring of references would keep them open until the collector comes, which may be much later."""
    before = open_files()
    gc.disable()
    try:
        for number in range(3):
            _use(Spool(spool_dir), f"k{number}")
        assert open_files() == before
    finally:
        gc.enable()


def test_a_program_that_never_closes_gets_no_warning(spool_dir: Path) -> None:
    """From Python 3.13 on, an SQLite connection that is not closed before its end gives a ResourceWarning."""
    script = "from queuectl import Spool\nfor _ in range(3): Spool().counts()\nspool = Spool(); spool.enqueue('true')"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
