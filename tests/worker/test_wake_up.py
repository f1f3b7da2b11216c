"""Waking up: events are hints, so no lost, dead or refused watch may keep a job from starting."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from watchdog.observers import inotify_c

from queuectl.system import watcher
from queuectl.system.wake_up import WakeUp
from queuectl.system.watcher import FolderWatch

from support import drop, drop_bytes, finished, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def wake_up() -> Iterator[WakeUp]:
    """A wake_up of one's own."""
    made = WakeUp()
    yield made
    made.close()


@pytest.fixture
def watch(tmp_path: Path, wake_up: WakeUp) -> Iterator[FolderWatch]:
    """A watch on an empty folder."""
    folder = tmp_path / "pending"
    folder.mkdir()
    made = FolderWatch(str(folder), wake_up)
    yield made
    made.stop()


@pytest.fixture
def threaded(watch: FolderWatch, monkeypatch: pytest.MonkeyPatch) -> FolderWatch:
    """The same as it is elsewhere than on Linux."""
    monkeypatch.setattr(watcher, "HAS_INOTIFY", False)
    return watch


# -- the wake_up ------------------------------------------------------------------------------------------------------


def test_a_wait_that_nobody_ends_lasts_its_time(wake_up: WakeUp) -> None:
    """And never less: a wait that ends just before its moment would spin."""
    for timeout in (0.0, 0.0005, 0.02, 0.1):
        began = time.monotonic()
        assert wake_up.wait(timeout) is False
        assert time.monotonic() - began >= timeout


def test_a_wake_up_before_the_wait_is_not_lost(wake_up: WakeUp) -> None:
    """However often it was set, it ends one wait."""
    for _ in range(10):
        wake_up.set()
    assert wake_up.wait(10) is True
    assert wake_up.wait(0) is False


def test_setting_it_without_end_never_blocks(wake_up: WakeUp) -> None:
    """A hundred thousand calls end one wait."""
    for _ in range(100_000):
        wake_up.set()
    assert wake_up.wait(10) is True
    assert wake_up.wait(0) is False


def test_a_thread_ends_the_wait(wake_up: WakeUp) -> None:
    """At once, and from ten threads as well as from one."""
    threads = [threading.Timer(0.05, wake_up.set) for _ in range(10)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    assert wake_up.wait(20) is True
    assert time.monotonic() - began < 5
    for thread in threads:
        thread.join()


def test_a_signal_handler_ends_the_wait(wake_up: WakeUp) -> None:
    """The handler sets it, as the worker's does."""
    before = signal.signal(signal.SIGUSR1, lambda *_: wake_up.set())
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        began = time.monotonic()
        while not wake_up.wait(20):
            assert time.monotonic() - began < 10
        assert time.monotonic() - began < 5
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_descriptor_ends_the_wait_and_is_no_wake_up(wake_up: WakeUp) -> None:
    """The end of a job does."""
    readable, writable = os.pipe()
    try:
        os.write(writable, b"x")
        began = time.monotonic()
        assert wake_up.wait(20, readable) is False
        assert time.monotonic() - began < 5
    finally:
        os.close(readable)
        os.close(writable)


def test_setting_a_closed_one_is_no_error() -> None:
    """An observer's thread may be late."""
    wake_up = WakeUp()
    wake_up.close()
    wake_up.set()


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


def test_every_new_file_wakes_and_a_file_that_leaves_does_not(
    tmp_path: Path, watch: FolderWatch, wake_up: WakeUp
) -> None:
    """Each way in which a file appears wakes within a second; workers move and delete files all the time, so that does not."""
    folder = tmp_path / "pending"
    ways = ways_to_land(folder, tmp_path / "outside")
    assert watch.start() is True
    for how, land in ways.items():
        began = time.monotonic()
        land()
        assert wake_up.wait(10) is True, how
        assert time.monotonic() - began < 1, how
        while wake_up.wait(0.05):
            continue
    (folder / "a.json").rename(tmp_path / "outside" / "away")
    (folder / "b.json").unlink()
    assert wake_up.wait(0.3) is False


def test_new_files_are_reported_by_name_and_in_order(
    tmp_path: Path, watch: FolderWatch, wake_up: WakeUp
) -> None:
    """An urgent job is found among a million others, and a file that was edited in place, too."""
    folder = tmp_path / "pending"
    (tmp_path / "made").write_text("{}")
    watch.start()
    (tmp_path / "made").rename(folder / "b \N{SNOWMAN}.json")
    os.link(folder / "b \N{SNOWMAN}.json", folder / "a.json")
    assert wake_up.wait(10)
    assert list(watch.names) == ["b \N{SNOWMAN}.json", "a.json"]
    watch.names.clear()
    watch.is_edited = False
    (folder / "a.json").write_text('{"a": 1}')
    assert wake_up.wait(10)
    assert list(watch.names) == ["a.json"]
    assert watch.is_edited is False


def test_more_events_than_the_kernel_keeps_are_noticed(tmp_path: Path, watch: FolderWatch) -> None:
    """Names are missing then, and only a scan of the folder helps."""
    watch.start()
    watch.is_lost = watch.is_edited = False
    assert watch.names_all
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    ours, other = tmp_path / "pending" / "a.json", tmp_path / "pending" / "b.json"
    ours.touch()
    for _ in range(kept // 2 + 1):
        os.rename(ours, other)
        os.rename(other, ours)
    watch.read()
    assert not watch.names_all
    assert watch.is_edited
    assert not watch.names


def test_events_that_cannot_be_read_count_as_lost_and_end_nothing(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to report: a scan of the folder is due, and the worker continues."""
    assert watch.start()
    watch.is_lost = False
    Path(watch.folder, "a.json").touch()

    def refuse(fd: int, size: int) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", refuse)
        assert watch.read() is False
    assert watch.is_lost
    assert not watch.names_all


def test_a_busy_folder_can_be_masked_for_a_while(tmp_path: Path, watch: FolderWatch, wake_up: WakeUp) -> None:
    """While another worker takes in a burst, the events must not wake this one a hundred thousand times."""
    watch.start()
    watch.mask(masked=True)
    (tmp_path / "pending" / "a.json").touch()
    assert wake_up.wait(0.2) is False
    watch.mask(masked=False)
    assert wake_up.wait(10) is True
    assert list(watch.names) == ["a.json"]


def test_a_file_written_in_place_is_told_apart_from_one_moved_in(
    tmp_path: Path, threaded: FolderWatch, wake_up: WakeUp
) -> None:
    """Without names, only a file edited in place makes the expensive look at every file necessary."""
    folder = tmp_path / "pending"
    (tmp_path / "made").write_text("{}")
    threaded.start()
    threaded.is_edited = False
    (tmp_path / "made").rename(folder / "a.json")
    assert wake_up.wait(10)
    assert threaded.is_edited is False
    (folder / "a.json").write_text('{"a": 1}')
    wait_until(lambda: threaded.is_edited)


def test_a_folder_made_again_is_watched_again(tmp_path: Path, watch: FolderWatch, wake_up: WakeUp) -> None:
    """The old watch would report nothing, without an error."""
    folder = tmp_path / "pending"
    watch.start()
    shutil.rmtree(folder)
    assert watch.is_healthy() is False
    assert watch.start() is False
    folder.mkdir()
    watch._retry_at = 0.0
    while wake_up.wait(0.05):
        continue
    assert watch.start() is True
    (folder / "a.json").write_text("{}")
    assert wake_up.wait(10) is True


def test_a_dead_observer_is_noticed_and_replaced(
    tmp_path: Path, threaded: FolderWatch, wake_up: WakeUp
) -> None:
    """Its thread may end without a word."""
    threaded.start()
    threaded._observer.stop()
    threaded._observer.join(5)
    assert threaded.is_healthy() is False
    assert threaded.start() is True
    (tmp_path / "pending" / "a.json").write_text("{}")
    assert wake_up.wait(10) is True


def test_a_dead_emitter_is_noticed(threaded: FolderWatch) -> None:
    """The thread that reads the events can die while the one that hands them on lives."""
    threaded.start()
    for emitter in threaded._observer.emitters:
        emitter.stop()
        emitter.join(5)
    assert threaded.is_healthy() is False
    assert threaded.start() is True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_raises_is_replaced(
    tmp_path: Path, threaded: FolderWatch, wake_up: WakeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the observer's thread; the next check notices and starts another."""
    threaded.start()

    def on_unnamed(*, edited: bool) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(threaded, "on_unnamed", on_unnamed)
    (tmp_path / "pending" / "a.json").write_text("{}")
    wait_until(lambda: not threaded.is_healthy())
    monkeypatch.undo()
    assert threaded.start() is True
    (tmp_path / "pending" / "b.json").write_text("{}")
    assert wake_up.wait(10) is True


def test_a_burst_stops_an_expensive_watch(tmp_path: Path, threaded: FolderWatch) -> None:
    """Beyond a number of events a scan is cheaper than threads that read them."""
    threaded.start()
    threaded.read()
    assert threaded.is_healthy()
    for number in range(watcher.BURST + 1):
        (tmp_path / "pending" / str(number)).touch()
    wait_until(lambda: threaded.unnamed > watcher.BURST)
    threaded.read()
    assert not threaded.is_healthy()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.ENOSYS])
def test_a_watch_that_fails_says_why_and_is_tried_again(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The kernel has limits; half a minute later a watch may be free."""

    def refuse(_: FolderWatch) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(watcher, "_start", refuse)
    assert watch.start() is False
    assert watch.failure == os.strerror(code)
    monkeypatch.undo()
    assert watch.start() is False
    watch._retry_at = 0.0
    assert watch.start() is True
    assert watch.failure is None


def test_starting_and_stopping_leaks_nothing(watch: FolderWatch) -> None:
    """A worker does both thousands of times a day."""
    watch.start()
    watch.stop()
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(20):
        assert watch.start()
        watch.stop()
        watch.stop()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


# -- watchdog ------------------------------------------------------------------------------------------------------


def test_what_is_private_to_watchdog_is_there_and_the_version_is_bounded() -> None:
    """Two private attributes are used; a version in which they may mean something else is not installed."""
    made = inotify_c.InotifyFD()
    os.fstat(made._inotify_fd)
    assert made._is_reading is True
    made._is_reading = False
    made.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made._inotify_fd)
    project = Path(__file__).parents[2] / "pyproject.toml"
    dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
    assert "watchdog>=7.1,<7.2" in dependencies


def test_a_watch_has_no_thread_and_is_not_inherited(watch: FolderWatch) -> None:
    """The worker itself reads the events; a job must not get the instance."""
    before = threading.active_count()
    assert watch.start()
    assert threading.active_count() == before
    assert watch._inotify is not None
    assert os.get_inheritable(watch._inotify.fd) is False


def test_a_folder_that_may_not_be_read_is_no_watch(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watchdog raises no error for EACCES, and nothing would ever be reported."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EACCES)
        return -1

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(inotify_c, "inotify_add_watch", refuse)
    assert watch.start() is False
    assert "Permission denied" in (watch.failure or "")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_start_without_enough_descriptors_keeps_none(watch: FolderWatch, free: int) -> None:
    """Watchdog loses the instance when it cannot open the pipe after it, and a start is tried again for ever."""
    assert watch.start()  # what is imported late is imported before descriptors run out
    watch.stop()
    before = os.listdir("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 16, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        assert watch.start() is False
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_reading_ends_however_fast_events_arrive(
    tmp_path: Path, watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reads until no event is left would end no job at its timeout while others drop files."""
    assert watch.start()
    reads = 0
    read_events = inotify_c.InotifyFD.read_events

    def endless(inotify: inotify_c.InotifyFD) -> list[inotify_c.InotifyEvent]:
        nonlocal reads
        reads += 1
        assert reads < 100
        found = read_events(inotify)
        (tmp_path / "pending" / f"{reads}.json").touch()
        return found * watcher._FULL_READ

    monkeypatch.setattr(inotify_c.InotifyFD, "read_events", endless)
    (tmp_path / "pending" / "first.json").touch()
    assert watch.read() is True
    assert "first.json" in watch.names


def test_a_folder_made_again_before_the_added_watches_end_is_noticed(
    tmp_path: Path, watch: FolderWatch
) -> None:
    """Its inode number may be the same, and watchdog discards the end of a watch that was removed."""
    assert watch.start()
    folder = tmp_path / "pending"
    assert watch.add([(str(folder), watcher.SELF)])
    folder.rmdir()
    folder.mkdir()
    watch.remove_added()
    assert not watch.is_healthy()


def test_without_that_class_the_observer_watches(
    tmp_path: Path, watch: FolderWatch, wake_up: WakeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of watchdog may not have it."""

    def refuse(_: str) -> Any:
        raise ImportError("cannot import name 'InotifyFD'")

    monkeypatch.setattr(watcher, "Inotify", refuse)
    assert watch.start() is True
    assert watch._inotify is None
    (tmp_path / "pending" / "a.json").touch()
    assert wake_up.wait(10) is True
    assert watch.unnamed > 0


def test_a_class_that_has_changed_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the descriptor nobody can wait for events: AttributeError is what the observer is tried for."""
    monkeypatch.setattr(inotify_c, "InotifyFD", type("InotifyFD", (), {"close": lambda _: None}))
    with pytest.raises(AttributeError):
        watcher.Inotify(str(tmp_path))


def test_a_busy_worker_loads_watchdog_only_after_a_while(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short drain does not pay for it; a long one gets events of urgent jobs."""
    monkeypatch.delitem(sys.modules, "watchdog.observers")
    watch._load_at = time.monotonic() + 100
    assert watch.start(busy=True) is False
    assert watch.failure is None
    watch._load_at = 0.0
    assert watch.start(busy=True) is True


def test_a_short_drain_loads_no_watchdog(spool_dir: Path) -> None:
    """It leaves before it is idle."""
    drop(spool_dir, "job", command="true")
    code = (
        "import sys\nfrom queuectl import Worker\nfrom queuectl.system import watcher\nwatcher.LOAD_AFTER = 60\n"
        "Worker(sys.argv[1], drain=True).run()\nprint('watchdog' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(spool_dir)], capture_output=True, text=True, check=True
    )
    assert finished(spool_dir, "job")
    assert done.stdout == "False\n"


NEVER_CHECKS = """
import sys
from queuectl import Worker
from queuectl.worker import idle
from watchdog.observers.inotify_c import InotifyFD
idle.TICK = 100_000.0
{patch}
Worker(sys.argv[1]).run()
"""
BROKEN_CLASS = """
def refuse(self):
    raise OSError(24, "no instance is left")
InotifyFD.__init__ = refuse
"""


@pytest.mark.parametrize("is_broken", [False, True])
def test_watchdog_is_what_wakes_an_idle_worker(spool_dir: Path, is_broken: bool) -> None:
    """One that checks once a day starts a dropped job at once; with watchdog's class unusable it does not."""
    code = NEVER_CHECKS.format(patch=BROKEN_CLASS if is_broken else "")
    drop(spool_dir, "first", command="true")
    with subprocess.Popen([sys.executable, "-c", code, str(spool_dir)]) as process:
        try:
            wait_until(lambda: finished(spool_dir, "first"))
            time.sleep(2)  # until it is idle
            drop(spool_dir, "job", command="true")
            if is_broken:
                time.sleep(2)
                assert where_is(spool_dir, "job") == ["pending"]
            else:
                wait_until(lambda: finished(spool_dir, "job"), 5)
        finally:
            process.kill()


# -- workers without a working watch -------------------------------------------------------------------------------

BROKEN_WATCH = {
    "too many instances": "def start(w): raise OSError(24, 'inotify instance limit reached')",
    "too many watches": "def start(w): raise OSError(28, 'inotify watch limit reached')",
    "no library": "def start(w): raise ImportError('no module named watchdog')",
}
SILENT = """
watcher.HAS_INOTIFY = {cheap}
real = watcher._start
def start(w):
    real(w)
    {what}
"""
SILENT_WATCH = {
    "kernel is silent": SILENT.format(cheap=True, what="w._inotify.read = lambda: ([], False)"),
    "kernel forgets us": SILENT.format(cheap=True, what="w._inotify.is_over = True"),
    "observer dies": SILENT.format(cheap=False, what="w._observer.stop(); w._observer.join()"),
    "watchdog reports nothing": "from watchdog.observers.inotify_c import InotifyFD\n"
    + SILENT.format(cheap=True, what="")
    + "InotifyFD.handle_event = lambda self, event: None",
    "emitter dies": SILENT.format(cheap=False, what="[(e.stop(), e.join()) for e in w._observer.emitters]"),
    "handler raises": SILENT.format(cheap=False, what="w.on_unnamed = None")
    + "import threading; threading.excepthook = lambda args: None",
}


@contextmanager
def worker_with(spool: Path, patch: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process in which watching is patched; it is idle when this begins."""
    code = f"import sys\nfrom queuectl.system import watcher\nfrom queuectl import Worker\n{patch}\nwatcher._start = start\nWorker(sys.argv[1]).run()"
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


@pytest.mark.parametrize("how", SILENT_WATCH)
def test_a_watch_that_falls_silent_delays_no_job(spool_dir: Path, how: str) -> None:
    """The check once a second finds the job, and the worker continues."""
    with worker_with(spool_dir, SILENT_WATCH[how]) as process:
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
    """By an event and not by the check once a second: ten drops, each within 0.3 s."""
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
