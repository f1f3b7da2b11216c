"""An idle worker sleeps until the kernel reports a change, and all that it promises to notice ends that sleep."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from spool_changes import CHANGES
from watchdog.observers import inotify_c

from queuectl import Spool, Worker
from queuectl.control import permissions
from queuectl.layout import Layout
from queuectl.system import locks, watcher
from queuectl.system.host import Mount
from queuectl.worker import health, idle

from support import cpu_in, drop, end_workers, finished, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel reports changes on Linux")

ENDLESS = 100_000.0


class Sleeper:
    """A worker in a thread of this process, with its full checks counted and its messages kept."""

    def __init__(self, spool: Path) -> None:
        self.said: list[str] = []
        self.looks: list[float] = []
        self.worker = Worker(spool, say=self.said.append)
        remember = self.worker._upkeep.snapshot.take

        def counted() -> None:
            self.looks.append(time.monotonic())
            remember()

        self.worker._upkeep.snapshot.take = counted  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.worker.run)

    @property
    def sleeps(self) -> bool:
        """Whether it watches more than pending/."""
        watch = self.worker._watch._inotify
        return watch is not None and bool(watch._more)

    def sleep(self) -> None:
        """Wait until it sleeps without any check."""
        wait_until(lambda: self.sleeps, 30, "the worker to sleep")

    def checks_as_before(self) -> None:
        """Start it, and see that it makes a full check every five seconds and never sleeps longer."""
        self.thread.start()
        wait_until(lambda: self.sleeps or sum(gap > 3 for gap in self.gaps) > 1, 40)
        assert not self.sleeps

    @property
    def gaps(self) -> list[float]:
        """Seconds between its full checks."""
        return [later - earlier for earlier, later in pairwise(self.looks)]

    def has_checked(self, before: int) -> None:
        """Wait until it has made more full checks than that."""
        wait_until(lambda: len(self.looks) > before, message="a full check")

    def has_said(self, text: str) -> None:
        """Wait until it has said something with these words."""
        wait_until(lambda: any(text in line for line in self.said), message=lambda: f"{text}: {self.said}")


@pytest.fixture
def patient(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool whose workers soon sleep, without an end unless something wakes them."""
    monkeypatch.setattr(idle, "CLOCK_STEP", 100_000_000)
    monkeypatch.setattr(idle, "SLEEP_AFTER", 0.2)
    monkeypatch.setattr(idle, "MAX_SLEEP", ENDLESS)
    # Whoever changes the mode of anything in /tmp would wake them, too.
    ancestors = permissions._ancestors
    top = os.path.dirname(spool_dir.parent)

    def near(path: str) -> Iterator[str]:
        return takewhile(lambda way: way != top, ancestors(path))

    monkeypatch.setattr(permissions, "_ancestors", near)
    Spool(spool_dir).refresh()
    return spool_dir


@pytest.fixture
def sleeper(patient: Path) -> Iterator[Sleeper]:
    """A worker of it, which the test starts."""
    made = Sleeper(patient)
    yield made
    made.worker.stop()
    if made.thread.ident is not None:
        made.thread.join()


@pytest.fixture
def asleep(sleeper: Sleeper) -> Sleeper:
    """One that sleeps."""
    sleeper.thread.start()
    sleeper.sleep()
    return sleeper


@pytest.mark.parametrize("how", CHANGES)
def test_every_change_ends_the_sleep(patient: Path, asleep: Sleeper, how: str) -> None:
    """All that the check of each second could see is reported by the kernel while it sleeps."""
    looks = len(asleep.looks)
    (patient / "data" / "copy").write_bytes((patient / "data" / "queuectl.db").read_bytes())
    (patient / "processing" / "worker-7").mkdir(mode=0o700)
    asleep.has_checked(looks)
    asleep.sleep()
    looks, mode = len(asleep.looks), patient.parent.stat().st_mode & 0o777
    try:
        if how == "a claim":  # none comes from elsewhere than pending/
            drop(patient, "later", command="true", run_at="2100-01-01T00:00:00Z")
            wait_until(lambda: len(asleep.looks) > looks)
            asleep.sleep()
            looks = len(asleep.looks)
            (patient / "pending" / "later.json").rename(patient / "processing" / "worker-7" / "later.json")
        else:
            CHANGES[how](patient)
        asleep.has_checked(looks)
    finally:
        patient.parent.chmod(mode)


def replace(path: Path) -> None:
    """Write it as `config set` does."""
    path.with_name(".new").write_text("timeout: 7\n")
    path.with_name(".new").replace(path)


EDITS: dict[str, Callable[[Path], object]] = {
    "in place": lambda path: path.write_text("timeout: 7\n"),
    "replaced": replace,
}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("how", EDITS)
def test_settings_that_are_edited_are_followed(
    sleeper: Sleeper, patient: Path, how: str, linked: bool
) -> None:
    """By either way of writing a file, and where the spool has only a link to it."""
    file = patient / "config.yaml"
    if linked:
        file.symlink_to(patient.parent / "settings")
        file = patient.parent / "settings"
    file.write_text("timeout: 5\n")
    sleeper.thread.start()
    sleeper.sleep()
    EDITS[how](file)
    sleeper.has_said("timeout = 7")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("how", EDITS)
def test_queues_that_are_edited_are_followed(sleeper: Sleeper, patient: Path, how: str, linked: bool) -> None:
    """The file of a queue may be a link as well, into a folder that is kept with other settings."""
    file = patient / "queues" / "mail.yaml"
    if linked:
        file.symlink_to(patient.parent / "mail")
        file = patient.parent / "mail"
    file.write_text("timeout: 5\n")
    sleeper.thread.start()
    sleeper.sleep()
    EDITS[how](file)
    sleeper.has_said("queue mail: timeout = 7")


def test_a_change_while_the_watch_is_extended_is_seen(
    patient: Path, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks once more after it watches everything, as nothing has reported what came just before."""
    add = watcher.Inotify.add

    def change_and_add(watch: watcher.Inotify, paths: Iterable[tuple[str, int]]) -> None:
        (patient / "paused").touch()
        add(watch, paths)

    monkeypatch.setattr(watcher.Inotify, "add", change_and_add)
    sleeper.thread.start()
    sleeper.has_said("pausing: ")


def test_a_link_on_the_way_that_leads_elsewhere_is_noticed(patient: Path) -> None:
    """The spool is another one then, though nothing has changed in this one."""
    way = patient.parent / "way"
    way.symlink_to(patient.parent)
    sleeper = Sleeper(way / patient.name)
    sleeper.thread.start()
    try:
        sleeper.sleep()
        (patient.parent / "other").mkdir(mode=0o700)
        (patient.parent / "new").symlink_to(patient.parent / "other")
        (patient.parent / "new").replace(way)
        sleeper.has_said("was removed or replaced; this worker leaves")
        (patient.parent / "new").symlink_to(patient.parent)
        (patient.parent / "new").replace(way)
    finally:
        sleeper.worker.stop()
        sleeper.thread.join()


def test_a_worker_that_sleeps_follows_the_rules_as_soon_as_the_one_that_did_is_dead(
    patient: Path, sleeper: Sleeper
) -> None:
    """At its next check of everything half a minute may have passed, and with it moments of rules."""
    (patient / "rules" / "backup.yaml").write_text("when: {cron: '@yearly'}\njob: {command: 'true'}\n")
    held = locks.Lock.acquire(str(patient / "data" / "rules.lock"))
    assert held is not None
    sleeper.thread.start()
    sleeper.sleep()

    held.detach()  # as the kernel does at its death: it closes the file
    wait_until(lambda: sleeper.worker._upkeep.rules._plans is not None)


def test_a_drop_starts_at_once(patient: Path, asleep: Sleeper) -> None:
    """And again after the next sleep: it watches pending/ as before."""
    for name in ("one", "two"):
        asleep.sleep()
        drop(patient, name, command="true")
        wait_until(lambda name=name: finished(patient, name))  # type: ignore[misc]


def test_a_job_starts_at_its_moment(patient: Path, sleeper: Sleeper) -> None:
    """However long the sleep could be."""
    moment = time.time() + 4
    drop(patient, "job", command="true", run_at=moment)
    sleeper.thread.start()
    sleeper.sleep()
    assert time.time() < moment
    wait_until(lambda: finished(patient, "job"))


def test_a_job_expires_at_its_moment(patient: Path, sleeper: Sleeper) -> None:
    """Though nothing happens when it does."""
    drop(patient, "job", command="true", hold=True, expires_at=time.time() + 4)
    sleeper.thread.start()
    sleeper.sleep()
    assert where_is(patient, "job") == ["pending"]
    wait_until(lambda: where_is(patient, "job") == ["dead"])


def test_compression_of_logs_continues(asleep: Sleeper) -> None:
    """Many logs are compressed a slice at each check; with a sleep between two slices it would take days."""
    assert asleep.worker._maintenance.seconds_to_next() > 0
    asleep.worker._maintenance._compressing = iter([None])
    assert asleep.worker._maintenance.seconds_to_next() == 0


def test_no_job_starts_on_a_disk_that_has_filled_up_meanwhile(
    patient: Path, asleep: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That causes no event, so it is checked between the drop and the start."""
    monkeypatch.setattr(health, "disk_shortage", lambda *_: "0 bytes of disk are free")
    (patient / "pending" / "job.json").write_text(
        '{"command": "true"}'
    )  # without setting a mode, which would cause an event, too
    asleep.has_said("pausing: 0 bytes")
    assert where_is(patient, "job") == ["pending"]
    monkeypatch.undo()
    wait_until(lambda: finished(patient, "job"))


def test_no_job_starts_in_a_spool_opened_meanwhile(
    patient: Path, asleep: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the job was there before the worker was awake."""
    real, once = asleep.worker._wake_up.wait, iter([True])

    def wait(timeout: float | None, also: int | None = None) -> bool:
        if asleep.sleeps and next(
            once, False
        ):  # its watch is set up, so both events are in the queue when it wakes
            (patient / "done").chmod(0o770)
            drop(patient, "job", command="true")
        return real(timeout, also)

    monkeypatch.setattr(asleep.worker._wake_up, "wait", wait)
    asleep.worker._wake_up.set()
    asleep.has_said("pausing: ")
    assert where_is(patient, "job") == ["pending"]


def test_a_note_is_enough_to_stop_it(asleep: Sleeper) -> None:
    """A worker in somebody's program gets no signal."""
    run_cli("--spool", asleep.worker.layout.root, "worker", "stop", expect=0)
    asleep.thread.join(15)
    assert not asleep.thread.is_alive()


def test_a_worker_whose_spool_is_deleted_leaves(patient: Path, asleep: Sleeper) -> None:
    """It sleeps, and would otherwise work on a new spool at the same path without being listed there."""
    patient.rename(patient.parent / "old")
    shutil.rmtree(patient.parent / "old")
    asleep.has_said("was removed or replaced; this worker leaves")
    asleep.thread.join(20)
    assert not asleep.thread.is_alive()
    assert not patient.exists()


COLLEAGUE = """
import os, sys
from queuectl import Worker
worker = Worker(sys.argv[1])
worker.register()
os.makedirs(worker.layout.claims(worker.name), exist_ok=True)
print("seated", flush=True)
sys.stdin.readline()
os.rename(os.path.join(worker.layout.pending, "job.json"), os.path.join(worker.layout.claims(worker.name), "job.json"))
print("claimed", flush=True)
sys.stdin.readline()
"""


def test_a_worker_with_a_claim_is_checked_every_second(patient: Path, sleeper: Sleeper) -> None:
    """A lock that is freed by the end of its process causes no event: no worker sleeps long beside a claim, and the job comes back."""
    drop(patient, "job", command="true", run_at="2100-01-01T00:00:00Z")
    words = [sys.executable, "-c", COLLEAGUE, str(patient)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == "seated\n"
        sleeper.thread.start()
        sleeper.sleep()
        looks = len(sleeper.looks)
        other.stdin.write("\n")
        assert other.stdout.readline() == "claimed\n"
        wait_until(lambda: len(sleeper.looks) > looks + 3, message="a check each second")
        other.kill()
    wait_until(lambda: where_is(patient, "job") == ["pending"])


def test_an_owner_that_must_be_asked_is_asked_every_second(patient: Path, sleeper: Sleeper) -> None:
    """Whether the worker is to leave, where nothing reports that."""
    over: list[bool] = []
    sleeper.worker.leave_when(lambda: bool(over))
    sleeper.thread.start()
    wait_until(lambda: max(sleeper.gaps, default=0) > 3, 30)
    over.append(True)
    sleeper.thread.join(10)
    assert not sleeper.thread.is_alive()


def watches(pid: int) -> int:
    """How many files and folders a process watches."""
    number = 0
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we look
            number += info.read_text(encoding="ascii").count("inotify wd:")
    return number


def test_workers_asleep_leave_with_the_one_who_started_them(spool_dir: Path) -> None:
    """Though that makes no event in the spool; and until then they use no processor time at all."""
    words = [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", "--count", "2"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as parent:
        try:
            children = psutil.Process(parent.pid).children()
            while len(children) < 2:
                children = psutil.Process(parent.pid).children()
            for child in children:
                wait_until(lambda pid=child.pid: watches(pid) > 5, 60)  # type: ignore[misc]
            # The last look before a long sleep may still come, and one look each half minute.
            wait_until(lambda: all(cpu_in(child, 2.5) == 0.0 for child in children), 45)
            parent.send_signal(signal.SIGKILL)
            _, left = psutil.wait_procs(children, timeout=10)
            assert not left
        finally:
            parent.kill()
            end_workers(spool_dir)


# -- where the kernel does not report --------------------------------------------------------------------------------


def add_nothing(_: watcher.Inotify, paths: object) -> None:
    """Watch nothing more, and report no error."""


def test_a_change_without_an_event_is_found_by_the_check_that_ends_the_sleep(
    patient: Path, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute late, once: after a change without an event a worker makes no long sleeps."""
    monkeypatch.setattr(watcher.Inotify, "add", add_nothing)
    monkeypatch.setattr(idle, "MAX_SLEEP", 3.0)
    slept: list[float] = []
    sleep = sleeper.worker._idle._sleep

    def counted(seconds: float, stirs: Callable[[], bool]) -> bool | None:
        slept.append(seconds)
        return sleep(seconds, stirs)

    monkeypatch.setattr(sleeper.worker._idle, "_sleep", counted)
    sleeper.thread.start()
    wait_until(lambda: slept)
    (patient / "done").chmod(0o770)
    sleeper.has_said("pausing: ")
    monkeypatch.setattr(idle, "MAX_SLEEP", ENDLESS)
    (patient / "done").chmod(0o700)
    sleeper.has_said("resuming: ")
    number = len(slept)
    (patient / "config.yaml").write_text("timeout: 7\n")
    sleeper.has_said("timeout = 7")
    wait_until(lambda: sleeper.gaps[-1] > 3, 30)
    assert len(slept) == number


@pytest.mark.parametrize("mount", [Mount("nfs4", "/mnt"), Mount("fuse.sshfs", "/mnt"), None])
def test_a_spool_shared_with_another_machine_is_checked_as_before(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, mount: Mount | None
) -> None:
    """The kernel does not report what is done there; the full check comes every five seconds."""
    monkeypatch.setattr(idle, "mount_of", lambda _: mount)
    sleeper.checks_as_before()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_where_not_everything_can_be_watched_it_checks_as_before(
    patient: Path, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The kernel has limits, and a folder above may not be readable; a watch of only a part is not used."""
    # At the system call, as watchdog raises no error for EACCES.
    add = inotify_c.inotify_add_watch
    refused: list[bytes] = []

    def refuse(fd: int, path: bytes, mask: int) -> int:
        if path == os.fsencode(patient.parent):
            refused.append(path)
            ctypes.set_errno(code)
            return -1
        return add(fd, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", refuse)
    sleeper.thread.start()
    wait_until(lambda: refused and not sleeper.sleeps)
    (patient / "done").chmod(0o770)
    sleeper.has_said("pausing: ")
    assert not sleeper.sleeps


def test_a_long_sleep_needs_some_seconds_without_a_change(
    patient: Path, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding two dozen watches for each short pause between two jobs would cost more than it saves."""
    monkeypatch.setattr(idle, "SLEEP_AFTER", ENDLESS)
    sleeper.checks_as_before()


def test_a_file_that_is_written_in_place_in_a_watched_folder_ends_the_sleep(
    sleeper: Sleeper, patient: Path
) -> None:
    """It changes no time of the folder: only the event tells, and only a look at the whole folder finds it."""
    scans = patient.parent / "scans"
    scans.mkdir()
    (scans / "a.pdf").write_text("old")
    os.utime(scans / "a.pdf", (1, 1))
    os.utime(scans, (1, 1))
    sleeper.worker.layout.create()
    rule = patient / "rules" / "scans.yaml"
    rule.write_text(f"when: {{file: {scans}, settle: 0}}\njob: {{command: 'cat {{}}'}}\n")
    os.utime(rule, (1, 1))
    sleeper.thread.start()
    wait_until(lambda: list((patient / "done").iterdir()))
    sleeper.sleep()
    (scans / "a.pdf").write_text("new text")
    wait_until(lambda: len(list((patient / "done").iterdir())) == 2, timeout=10)


def test_a_watch_that_was_extended_reports_as_before(tmp_path: Path) -> None:
    """Nothing of it is left: no watch, no event, and only files that appear count."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    watch = watcher.Inotify(str(home))
    try:
        before = watches(os.getpid())
        for _ in range(2):
            watch.add([(str(path), watcher.CONTENT) for path in (home, other, other, tmp_path / "missing")])
            (home / "a").touch()
            assert set(watch.read()[0]) == {"a"}
            assert not watch.has_other_events
            (other / "b").touch()
            assert watch.read() == ([], False)
            assert watch.has_other_events
            watch.remove_added()
            watch.read()
            assert watches(os.getpid()) == before
            (other / "b").unlink()
            (home / "a").unlink()
            assert select.select([watch.fd], [], [], 0.1)[0] == []
    finally:
        watch.close()


def test_of_very_many_rules_none_is_edited_unseen(patient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files are compared before each sleep only, also if a check of everything came between the edit and the sleep."""
    monkeypatch.setattr(idle, "FEW_RULES", 1)
    monkeypatch.setattr(idle, "CLOCK_STEP", 0)
    rules = [patient / "rules" / f"{name}.yaml" for name in "abc"]
    for path in rules:
        path.write_text("when: {every: 1h}\njob: {command: 'true'}\n")
        os.utime(path, (1e9, 1e9))  # two writes within some milliseconds may leave one time
    snapshot = idle.Snapshot(Layout(patient), (), (str(patient / "rules"),))
    snapshot.take()
    assert snapshot.is_current()

    rules[1].write_text("when: {every: 2h}\njob: {command: 'true'}\n")
    snapshot.take()
    assert snapshot.is_current(each_rule=False)
    assert not snapshot.has_other_rules
    assert not snapshot.is_current()
    assert snapshot.has_other_rules
    assert snapshot.is_current()
