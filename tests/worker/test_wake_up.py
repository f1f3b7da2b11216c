"""Waking up: events are hints, so no lost, dead or refused watch may keep a job from starting."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.system import watcher
from queuectl.system.watcher import Bell, FolderWatch

from support import drop, drop_bytes, finished, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def bell() -> Iterator[Bell]:
    """A bell of one's own."""
    made = Bell()
    yield made
    made.close()


@pytest.fixture
def watch(tmp_path: Path, bell: Bell) -> Iterator[FolderWatch]:
    """A watch on an empty folder."""
    folder = tmp_path / "pending"
    folder.mkdir()
    made = FolderWatch(str(folder), bell)
    yield made
    made.drop()


@pytest.fixture
def threaded(watch: FolderWatch, monkeypatch: pytest.MonkeyPatch) -> FolderWatch:
    """The same as it is elsewhere than on Linux."""
    monkeypatch.setattr(watcher, "CHEAP", False)
    return watch


# -- the bell ------------------------------------------------------------------------------------------------------


def test_a_bell_that_nobody_rings_waits_its_time(bell: Bell) -> None:
    """And never less: a wait that ends just before its moment would spin."""
    for timeout in (0.0, 0.0005, 0.02, 0.1):
        began = time.monotonic()
        assert bell.wait(timeout) is False
        assert time.monotonic() - began >= timeout


def test_a_ring_before_the_wait_is_not_lost(bell: Bell) -> None:
    """However often it rang, it ends one wait."""
    for _ in range(10):
        bell.ring()
    assert bell.wait(10) is True
    assert bell.wait(0) is False


def test_a_bell_that_is_rung_without_end_never_blocks_the_ringer(bell: Bell) -> None:
    """A hundred thousand rings that nobody hears end one wait."""
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(10) is True
    assert bell.wait(0) is False


def test_a_thread_ends_the_wait(bell: Bell) -> None:
    """At once, and from ten threads as well as from one."""
    threads = [threading.Timer(0.05, bell.ring) for _ in range(10)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    assert bell.wait(20) is True
    assert time.monotonic() - began < 5
    for thread in threads:
        thread.join()


def test_a_signal_handler_ends_the_wait(bell: Bell) -> None:
    """The handler rings, as the worker's does."""
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.ring())
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        began = time.monotonic()
        while not bell.wait(20):
            assert time.monotonic() - began < 10
        assert time.monotonic() - began < 5
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_descriptor_ends_the_wait_and_is_no_ring(bell: Bell) -> None:
    """The end of a job does."""
    readable, writable = os.pipe()
    try:
        os.write(writable, b"x")
        began = time.monotonic()
        assert bell.wait(20, readable) is False
        assert time.monotonic() - began < 5
    finally:
        os.close(readable)
        os.close(writable)


def test_ringing_a_closed_bell_is_no_error() -> None:
    """An observer's thread may be late."""
    bell = Bell()
    bell.close()
    bell.ring()


# -- the watch -----------------------------------------------------------------------------------------------------


def ways_to_land(folder: Path, outside: Path) -> dict[str, Callable[[], Any]]:
    """Every way in which a file comes to lie in a folder; each may raise another kind of event."""
    outside.mkdir(exist_ok=True)

    def made(name: str) -> Path:
        path = outside / name
        path.write_text("{}")
        return path

    (folder / "old.json").write_text("{}")
    (folder / ".scratch").write_text("{}")
    return {
        "written in place": lambda: (folder / "a.json").write_text("{}"),
        "moved in": lambda: made("b").rename(folder / "b.json"),
        "linked in": lambda: os.link(made("c"), folder / "c.json"),
        "a link": lambda: (folder / "d.json").symlink_to(outside),
        "renamed inside": lambda: (folder / ".scratch").rename(folder / "e.json"),
        "replaced": lambda: made("f").replace(folder / "old.json"),
        "rewritten": lambda: (folder / "old.json").write_text('{"a": 1}'),
        "made empty": (folder / "g.json").touch,
        "a folder": (folder / "h.json").mkdir,
    }


def test_whatever_lands_rings_and_what_leaves_does_not(
    tmp_path: Path, watch: FolderWatch, bell: Bell
) -> None:
    """Each way to land rings within a moment; moving out and deleting are our own doing and stay silent."""
    folder = tmp_path / "pending"
    ways = ways_to_land(folder, tmp_path / "outside")
    assert watch.arm() is True
    for how, land in ways.items():
        began = time.monotonic()
        land()
        assert bell.wait(10) is True, how
        assert time.monotonic() - began < 1, how
        while bell.wait(0.05):
            continue
    (folder / "a.json").rename(tmp_path / "outside" / "away")
    (folder / "b.json").unlink()
    assert bell.wait(0.3) is False


def test_what_lands_is_told_by_name_and_in_order(tmp_path: Path, watch: FolderWatch, bell: Bell) -> None:
    """So that an urgent job is found among a million others, and a file edited in place, too."""
    folder = tmp_path / "pending"
    (tmp_path / "made").write_text("{}")
    watch.arm()
    (tmp_path / "made").rename(folder / "b \N{SNOWMAN}.json")
    os.link(folder / "b \N{SNOWMAN}.json", folder / "a.json")
    assert bell.wait(10)
    assert list(watch.heard) == ["b \N{SNOWMAN}.json", "a.json"]
    watch.heard.clear()
    watch.written = False
    (folder / "a.json").write_text('{"a": 1}')
    assert bell.wait(10)
    assert list(watch.heard) == ["a.json"]
    assert watch.written is False


def test_more_events_than_the_kernel_keeps_are_told_of(tmp_path: Path, watch: FolderWatch) -> None:
    """Then names are missing, and only a look at everything helps."""
    watch.arm()
    watch.missed = watch.written = False
    assert watch.tells_all
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    ours, other = tmp_path / "pending" / "a.json", tmp_path / "pending" / "b.json"
    ours.touch()
    for _ in range(kept // 2 + 1):
        os.rename(ours, other)
        os.rename(other, ours)
    watch.hear()
    assert not watch.tells_all
    assert watch.written
    assert not watch.heard


def test_events_that_cannot_be_read_are_missed_and_end_nothing(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to say what landed: a look at the folder is due, and the worker goes on."""
    assert watch.arm()
    watch.missed = False

    def refuse(fd: int, size: int) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", refuse)
        assert watch.hear() is False
    assert watch.missed
    assert not watch.tells_all


def test_a_noisy_folder_can_be_left_alone_for_a_while(tmp_path: Path, watch: FolderWatch, bell: Bell) -> None:
    """While a colleague deals with a storm, it must not wake us a hundred thousand times."""
    watch.arm()
    watch.hush(quiet=True)
    (tmp_path / "pending" / "a.json").touch()
    assert bell.wait(0.2) is False
    watch.hush(quiet=False)
    assert bell.wait(10) is True
    assert list(watch.heard) == ["a.json"]


def test_what_was_written_is_told_from_what_was_moved(
    tmp_path: Path, threaded: FolderWatch, bell: Bell
) -> None:
    """Where no names are told, only a file edited in place needs the dear look at every file."""
    folder = tmp_path / "pending"
    (tmp_path / "made").write_text("{}")
    threaded.arm()
    threaded.written = False
    (tmp_path / "made").rename(folder / "a.json")
    assert bell.wait(10)
    assert threaded.written is False
    (folder / "a.json").write_text('{"a": 1}')
    wait_until(lambda: threaded.written)


def test_a_folder_made_again_is_watched_again(tmp_path: Path, watch: FolderWatch, bell: Bell) -> None:
    """The old watch would stay silent for ever, without an error."""
    folder = tmp_path / "pending"
    watch.arm()
    shutil.rmtree(folder)
    assert watch.healthy() is False
    assert watch.arm() is False
    folder.mkdir()
    watch._retry_at = 0.0
    while bell.wait(0.05):
        continue
    assert watch.arm() is True
    (folder / "a.json").write_text("{}")
    assert bell.wait(10) is True


def test_a_dead_observer_is_noticed_and_replaced(tmp_path: Path, threaded: FolderWatch, bell: Bell) -> None:
    """Its thread may end without a word."""
    threaded.arm()
    threaded._observer.stop()
    threaded._observer.join(5)
    assert threaded.healthy() is False
    assert threaded.arm() is True
    (tmp_path / "pending" / "a.json").write_text("{}")
    assert bell.wait(10) is True


def test_a_dead_emitter_is_noticed(threaded: FolderWatch) -> None:
    """The thread that reads the events can die while the one that hands them on lives."""
    threaded.arm()
    for emitter in threaded._observer.emitters:
        emitter.stop()
        emitter.join(5)
    assert threaded.healthy() is False
    assert threaded.arm() is True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_raises_is_replaced(
    tmp_path: Path, threaded: FolderWatch, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the observer's thread; the next look notices and watches anew."""
    threaded.arm()

    def landed(*, written: bool) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(threaded, "landed", landed)
    (tmp_path / "pending" / "a.json").write_text("{}")
    wait_until(lambda: not threaded.healthy())
    monkeypatch.undo()
    assert threaded.arm() is True
    (tmp_path / "pending" / "b.json").write_text("{}")
    assert bell.wait(10) is True


def test_a_storm_ends_a_dear_watch(tmp_path: Path, threaded: FolderWatch) -> None:
    """From some events on a scan is cheaper than threads that listen."""
    threaded.arm()
    threaded.hear()
    assert threaded.healthy()
    for number in range(watcher.STORM + 1):
        (tmp_path / "pending" / str(number)).touch()
    wait_until(lambda: threaded.events > watcher.STORM)
    threaded.hear()
    assert not threaded.healthy()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.ENOSYS])
def test_no_watch_to_be_had_says_why_and_is_tried_again(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The kernel has limits; half a minute later there may be room."""

    def refuse(_: FolderWatch) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(watcher, "_start", refuse)
    assert watch.arm() is False
    assert os.strerror(code) in (watch.failure or "")
    monkeypatch.undo()
    assert watch.arm() is False
    watch._retry_at = 0.0
    assert watch.arm() is True
    assert watch.failure is None


def test_arming_and_dropping_leaks_nothing(watch: FolderWatch) -> None:
    """A worker does both thousands of times a day."""
    watch.arm()
    watch.drop()
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(20):
        assert watch.arm()
        watch.drop()
        watch.drop()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


# -- workers without a working watch -------------------------------------------------------------------------------

BROKEN_WATCH = {
    "too many instances": "def start(w): raise OSError(24, 'inotify instance limit reached')",
    "too many watches": "def start(w): raise OSError(28, 'inotify watch limit reached')",
    "no library": "def start(w): raise ImportError('no module named watchdog')",
}
DEAF = """
wake.CHEAP = {cheap}
real = wake._start
def start(w):
    real(w)
    {what}
"""
STRUCK_DUMB = {
    "kernel is silent": DEAF.format(cheap=True, what="w._ear.read = lambda: ([], False)"),
    "kernel forgets us": DEAF.format(cheap=True, what="w._ear.is_over = True"),
    "observer dies": DEAF.format(cheap=False, what="w._observer.stop(); w._observer.join()"),
    "emitter dies": DEAF.format(cheap=False, what="[(e.stop(), e.join()) for e in w._observer.emitters]"),
    "handler raises": DEAF.format(cheap=False, what="w.landed = None")
    + "import threading; threading.excepthook = lambda args: None",
}


@contextmanager
def worker_with(spool: Path, patch: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process in which watching is patched; it is idle when this begins."""
    code = f"import sys\nfrom queuectl.system import watcher\nfrom queuectl import Worker\n{patch}\nwake._start = start\nWorker(sys.argv[1]).run()"
    with subprocess.Popen([sys.executable, "-c", code, str(spool)], text=True) as process:
        try:
            drop(spool, "first", command="true")
            wait_until(lambda: finished(spool, "first"))
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", BROKEN_WATCH)
def test_without_events_a_worker_polls_and_status_says_so(
    spool_dir: Path, cli: Callable[..., subprocess.CompletedProcess[str]], how: str
) -> None:
    """Jobs start within two seconds, and a person learns why not at once."""
    with worker_with(spool_dir, BROKEN_WATCH[how]) as process:
        reason = BROKEN_WATCH[how].split("'")[1]
        wait_until(lambda: reason in (told := cli("status", expect=0)).stderr + told.stdout)
        assert "polls" in cli("status", expect=0).stderr
        drop(spool_dir, "moved", command="true")
        wait_until(lambda: finished(spool_dir, "moved"), timeout=5)
        (spool_dir / "pending" / "later.json").write_text(
            '{"command": "true", "run_at": "2100-01-01T00:00:00Z"}'
        )
        wait_until(lambda: cli("list", expect=0).stdout.count("later - pending"))
        assert process.poll() is None


@pytest.mark.parametrize("how", STRUCK_DUMB)
def test_a_watch_that_falls_silent_holds_no_job_up(spool_dir: Path, how: str) -> None:
    """The look once a second finds the job, and the worker lives on."""
    with worker_with(spool_dir, STRUCK_DUMB[how]) as process:
        for number in range(3):
            began = time.monotonic()
            drop(spool_dir, f"job{number}", command="true")
            wait_until(lambda number=number: finished(spool_dir, f"job{number}"), timeout=8)  # type: ignore[misc]
            assert time.monotonic() - began < 5
        assert process.poll() is None


def test_pending_deleted_and_made_again_under_idle_workers(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """What is dropped afterwards runs, by either way of making it again."""
    workers(2)
    shutil.rmtree(spool_dir / "pending")
    wait_until((spool_dir / "pending").is_dir, message="the workers to make it again")
    drop(spool_dir, "one", command="true")
    wait_until(lambda: finished(spool_dir, "one"))

    (spool_dir / "pending").rename(spool_dir / "away")
    (spool_dir / "pending").mkdir(mode=0o700, exist_ok=True)
    drop_bytes(spool_dir, "two.json", b'{"command": "true"}')
    wait_until(lambda: finished(spool_dir, "two"))
    assert cli("status", expect=0).stdout.startswith("jobs: {'pending': 0, 'processing': 0, 'completed': 2")
    (spool_dir / "away").rmdir()


def test_a_job_dropped_on_an_idle_worker_starts_at_once(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """By event and not by the look once a second: ten drops, each within a moment."""
    workers(1)
    drop(spool_dir, "first", command="true")
    wait_until(lambda: finished(spool_dir, "first"))
    waits = []
    for number in range(10):
        began = time.monotonic()
        drop(spool_dir, f"job{number}", command="true")
        wait_until(lambda number=number: finished(spool_dir, f"job{number}"))  # type: ignore[misc]
        waits.append(time.monotonic() - began)
    assert sorted(waits)[5] < 0.3, waits
