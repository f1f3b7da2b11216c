"""What is wrong with a spool is found, explained in one line and repaired if possible, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.doctor import doctor, environment
from queuectl.layout import Layout
from queuectl.system import host, locks

from support import drain, drop_bytes, load, processes_of, read_only, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[Path], object]
    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rights, mounts and commands are a Unix's")

OLD = time.time() - 40 * 3600
RUN = {"run": 1, "attempt": 1, "worker": "worker-0", "outcome": "failed", "exit_code": 1}


def put(spool: Path, place: str, name: str, /, **fields: object) -> Path:
    """A file with these fields, or with this text, in a folder of the spool."""
    fields.setdefault("command", f"echo {place}")
    return drop_bytes(spool, name, json.dumps(fields).encode(), place)


def contents(spool: Path) -> set[bytes]:
    """The contents of all files of the spool except those in data/; data/aside/ is included."""
    found = set()
    for path in spool.rglob("*"):
        inside = path.relative_to(spool).parts
        if path.is_file() and not path.is_symlink() and (inside[0] != "data" or inside[1] == "aside"):
            found.add(path.read_bytes())
    return found


def kinds(spool: Path) -> set[str]:
    return {one.kind for one in doctor.examine(Layout(spool)) if not one.harmless}


@pytest.fixture
def spool(spool_dir: Path) -> Path:
    """A spool in order, with a job in each folder."""
    door = Spool(spool_dir)
    door.enqueue("echo fine", id="good")
    door.enqueue("exit 3", id="bad", max_retries=1)
    drain(spool_dir)
    door.enqueue("echo later", id="waits", delay="10m")
    drop_bytes(spool_dir, "odd.json", b"no job", "dead")
    (spool_dir / "dead" / "odd.json.reason").write_text("not JSON\n")
    assert door.counts() == {"pending": 1, "processing": 0, "completed": 1, "failed": 0, "dead": 2}
    assert doctor.examine(Layout(spool_dir)) == []
    return spool_dir


def test_a_look_deletes_no_job_that_a_dropped_file_replaces(spool_dir: Path) -> None:
    """Who gives way to whom is decided when the file is taken in, not when somebody looks."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="old", unique="k")
    drop_bytes(
        spool_dir, "new.json", b'{"id": "new", "command": "true", "unique": "k", "if_exists": "replace"}'
    )

    doctor.examine(Layout(spool_dir))

    assert where_is(spool_dir, "old") == where_is(spool_dir, "new") == ["pending"]


def aged(path: Path) -> Path:
    """A file with a modification time 40 hours ago. The change time cannot be set."""
    os.utime(path, (OLD, OLD))
    return path


def two_ends(spool: Path) -> None:
    put(spool, "done", "bad.json", id="bad", updated_at=1e9)


def backup_of_finished(spool: Path) -> None:
    put(spool, "dead", "waits.json", id="waits", history=[RUN])


def same_state_twice(spool: Path) -> None:
    put(spool, "done", "copy of good.json", id="good")


def copy_in_a_dead_workers_hands(spool: Path) -> None:
    put(spool, "processing/worker-7", "good.json", id="good", history=[RUN])


def job_in_a_dead_workers_hands(spool: Path) -> None:
    put(spool, "processing/worker-7", "taken.json", id="taken")


def job_beside_the_workers_folders(spool: Path) -> None:
    put(spool, "processing", "stray.json", id="stray")


def rubbish_in_done(spool: Path) -> None:
    drop_bytes(spool, "rubbish.json", b"\0\0\0", "done")


def unexplained_rubbish_in_dead(spool: Path) -> None:
    drop_bytes(spool, "rubbish.json", b"{", "dead")


def logs_of_nobody(spool: Path) -> None:
    (spool / "logs" / "gone.1.out").write_text("precious?")
    (spool / "logs" / "gone.2.err").write_text("this too")


def reason_for_nothing(spool: Path) -> None:
    (spool / "dead" / "gone.json.reason").write_text("it was bad\n")


def spare_files_of_a_dead_worker(spool: Path) -> None:
    folder = spool / "data" / "workers" / "worker-7.spare.3"
    folder.mkdir()
    (folder / "old.json").write_text('{"command": "x"}')


def outcome_lost_by_a_power_cut(spool: Path) -> None:
    put(spool, "data/workers/worker-7.held.00000bad.1", "cut~0.json", id="cut")


def open_folder(spool: Path) -> None:
    (spool / "pending").chmod(0o777)


def lost_folder(spool: Path) -> None:
    (spool / "tmp").rmdir()


def in_index(statement: str) -> Make:
    def change(spool: Path) -> None:
        with sqlite3.connect(spool / "data" / "queuectl.db") as db:
            db.execute(statement)
        db.close()

    return change


def damaged_index(spool: Path) -> None:
    # What SQLite itself does not notice until it reads that page.
    path = spool / "data" / "queuectl.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 4] = b"\xff" * 8192
    path.write_bytes(data)


FAULTS: dict[str, tuple[str, Make]] = {
    "two ends": ("twin", two_ends),
    "a backup beside the live job": ("twin", backup_of_finished),
    "twice in done": ("twin", same_state_twice),
    "a void copy of a dead worker": ("abandoned", copy_in_a_dead_workers_hands),
    "a job of a dead worker": ("abandoned", job_in_a_dead_workers_hands),
    "a stray": ("stray", job_beside_the_workers_folders),
    "rubbish in done": ("invalid", rubbish_in_done),
    "rubbish without a reason": ("no reason", unexplained_rubbish_in_dead),
    "logs of nobody": ("orphan log", logs_of_nobody),
    "a reason for nothing": ("orphan reason", reason_for_nothing),
    "spare files": ("held files", spare_files_of_a_dead_worker),
    "held files of an old boot": ("held files", outcome_lost_by_a_power_cut),
    "an open folder": ("rights", open_folder),
    "a lost folder": ("no folder", lost_folder),
    "a row too many": ("drift", in_index("INSERT INTO jobs(id, state, place, name) VALUES ('x', 'dead', 'dead', 'x.json')")),
    "a row too few": ("drift", in_index("DELETE FROM jobs WHERE id = 'good'")),
    "another state": ("drift", in_index("UPDATE jobs SET state = 'failed' WHERE id = 'waits'")),
    "another id": ("drift", in_index("UPDATE jobs SET id = 'wrong' WHERE id = 'good'")),
    "another number": ("drift", in_index("UPDATE counts SET n = 7 WHERE state = 'dead'")),
    "a damaged index": ("index", damaged_index),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_explained_and_repaired(spool: Path, fault: str) -> None:
    """Each fault is reported in one line; one repair fixes it, a second one finds nothing; no bytes are lost."""
    kind, make = FAULTS[fault]
    make(spool)
    before = contents(spool)

    found = [one for one in doctor.examine(Layout(spool)) if not one.harmless]
    assert kind in {one.kind for one in found}
    assert contents(spool) == before
    for one in found:
        assert one.repairable
        assert one.cure
        assert "\n" not in one.fact
        assert one.where.rpartition("/")[2] in one.fact

    said: list[str] = []
    assert doctor.repair(Layout(spool), say=said.append) == []
    after = contents(spool)
    if kind != "abandoned":
        assert before <= after
        assert said
    assert doctor.repair(Layout(spool)) == []
    assert contents(spool) == after
    states = {row.id: row.state for row in Spool(spool).list()}
    assert (states["good"], states["odd"]) == ("completed", "dead")
    assert {"bad", "waits"} <= set(states)
    assert sum(Spool(spool).counts().values()) == len(states)


@pytest.mark.parametrize(
    ("fault", "job_id", "states"),
    [
        ("two ends", "bad", ["dead"]),
        ("a backup beside the live job", "waits", ["dead"]),
        ("twice in done", "good", ["done"]),
        ("a void copy of a dead worker", "good", ["done"]),
        ("a job of a dead worker", "taken", ["pending"]),
        ("a stray", "stray", ["pending"]),
        ("held files of an old boot", "cut", ["pending"]),
    ],
)
def test_repair_follows_the_rule(spool: Path, fault: str, job_id: str, states: list[str]) -> None:
    """After a repair each id is where the rule for copies says, and nowhere else."""
    FAULTS[fault][1](spool)

    doctor.repair(Layout(spool))

    assert where_is(spool, job_id) == states
    folders = {"done": "completed", "dead": "dead", "pending": "pending"}
    assert Spool(spool).get(job_id).state == folders[states[0]]


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_among_the_workers_folders_is_reported_at_once(spool: Path, target: str) -> None:
    """Nothing was said of it for a day and a half. A worker whose name it has would put its jobs there."""
    (spool.parent / "elsewhere").mkdir()
    (spool / "processing" / "link").symlink_to(spool.parent / target)

    for found in (doctor.examine(Layout(spool)), doctor.repair(Layout(spool))):
        assert [(one.kind, one.where, one.harmless) for one in found] == [
            ("foreign", "processing/link", True)
        ]
        assert "processing/link is a symbolic link" in found[0].fact


def test_a_wrong_time_zone_is_no_secret(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library means UTC when it does not know TZ, and says nothing: jobs start hours away from what was meant."""
    for text in ("UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3", ""):
        monkeypatch.setenv("TZ", text)
        assert doctor.examine(Layout(spool)) == []
    monkeypatch.setenv("TZ", "Europe/Berln")

    (found,) = doctor.examine(Layout(spool))

    assert (found.kind, found.harmless) == ("zone", False)
    assert "'Europe/Berln', which is no time zone of this machine" in found.fact


def test_a_file_in_aside_has_a_note(spool: Path) -> None:
    """Each file in data/aside/ is unchanged and has a note that says where it was and why, also two with one name."""
    put(spool, "done", "copy.json", id="good", n=1)
    doctor.repair(Layout(spool))
    put(spool, "done", "copy.json", id="good", n=2)
    doctor.repair(Layout(spool))

    folder = spool / "data" / "aside"
    assert [load(folder / name)["n"] for name in ("copy.json", "copy-2.json")] == [1, 2]
    note = (folder / "copy-2.json.note").read_text()
    assert "was done/copy.json\n" in note
    assert "job good, which is in done/good.json" in note
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_copy_with_a_longer_history_is_valid(spool: Path) -> None:
    """The file of an interrupted settle is valid, not the claimed file, nor an older outcome."""
    first, second = {**RUN, "run": 1}, {**RUN, "run": 2}
    put(spool, "dead", "retry.json", id="retry", command="x", created_at=1e9, history=[first])
    put(spool, "done", "retry.json", id="retry", command="x", created_at=1e9, history=[first, second])

    assert doctor.repair(Layout(spool)) == []

    assert where_is(spool, "retry") == ["done"]


def test_leftovers_go_after_36_hours_and_never_sooner(spool: Path) -> None:
    """A producer may be writing a file in tmp/. After a day and a half nobody is, and the file is kept in data/aside/."""
    drop_bytes(spool, "half.json", b'{"comm', "tmp")
    scratch = drop_bytes(spool, ".abcdefghijklmnop.tmp", b"{}", "dead")
    layout = Layout(spool)
    assert doctor.examine(layout) == []
    assert doctor.examine(layout, now=lambda: time.time() + 35.9 * 3600) == []

    found = doctor.examine(layout, now=lambda: time.time() + 36.1 * 3600)
    assert [(one.kind, one.where) for one in found] == [
        ("leftover", "tmp/half.json"),
        ("leftover", f"dead/{scratch.name}"),
    ]
    assert doctor.repair(layout, now=lambda: time.time() + 36.1 * 3600) == []
    assert (spool / "data" / "aside" / "half.json").read_bytes() == b'{"comm'


def test_other_files_are_reported_and_left_alone(spool: Path) -> None:
    """A file whose name cannot be a job's is reported, is no fault, and stays, even after a repair."""
    (spool / "done" / "README").write_text("mine")
    (spool / "pending" / ".job.json.swp").write_text("vi")
    (spool / "processing" / "notes.txt").write_text("mine too")
    (spool / "pending" / ".gitkeep").touch()

    found = doctor.repair(Layout(spool), now=lambda: time.time() + 37 * 3600)

    assert sorted(one.where for one in found) == [
        "done/README",
        "pending/.job.json.swp",
        "processing/notes.txt",
    ]
    assert {(one.kind, one.harmless, one.repairable) for one in found} == {("foreign", True, False)}
    assert (spool / "done" / "README").read_text() == "mine"


def test_living_workers_are_left_alone(spool: Path) -> None:
    """The claims and kept files of a running worker are no findings; a second copy of a job is reported, not touched."""
    lock = locks.Lock.acquire(str(spool / "data" / "workers" / "worker-7.lock"))
    assert lock is not None
    try:
        put(spool, "processing/worker-7", "busy.json", id="busy")
        put(spool, "data/workers/worker-7.held.00000000.1", "busy~0.json", id="busy")
        assert doctor.examine(Layout(spool)) == []

        put(spool, "processing/worker-7", "good.json", id="good")
        [found] = doctor.repair(Layout(spool))
        assert (found.kind, found.repairable) == ("twin", False)
        assert where_is(spool, "good") == ["processing/worker-7", "done"]
    finally:
        lock.release()


def test_work_in_progress_is_no_fault(spool: Path, workers: Cli) -> None:
    """Examined again and again while workers run and producers drop files, the spool shows no fault."""
    workers(2)
    ids = Spool(spool).enqueue_many({"command": "echo work"} for _ in range(300))
    looks = 0
    while not all((spool / "done" / f"{job_id}.json").exists() for job_id in ids):
        assert kinds(spool) == set()
        looks += 1
    assert looks > 0


def test_clock_that_went_back_is_noticed(spool: Path) -> None:
    """A clock an hour behind the newest change is reported, because scheduled jobs depend on it."""
    found = doctor.examine(Layout(spool), now=lambda: time.time() - 3600)

    assert "clock" in {one.kind for one in found}
    assert any(re.search("the clock is 3[56][0-9]{2} s behind", one.fact) for one in found)


def test_folder_on_another_device_is_noticed(spool: Path) -> None:
    """No file can be renamed into a state folder that is a mount of its own."""
    done = str(spool / "done")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", done], capture_output=True, check=False
    ).returncode:
        pytest.skip("cannot mount here")
    try:
        found = {one.kind: one for one in doctor.examine(Layout(spool))}
        assert "done/ is on another filesystem" in found["device"].fact
        assert host.mount_of(done) == host.Mount("tmpfs", done)
    finally:
        subprocess.run(["umount", "--lazy", done], check=True)


def test_read_only_disk_is_noticed(spool: Path) -> None:
    """A read-only disk is reported, and the spool on it can be examined."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    with read_only(spool):
        assert "read-only" in kinds(spool)
        assert "read-only" in {one.kind for one in doctor.repair(Layout(spool))}


@pytest.mark.parametrize(
    ("kind", "told"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), ("tmpfs", False)]
)
def test_remote_filesystem_is_noticed(
    spool: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: bool
) -> None:
    """The doctor reports a filesystem on which locks and renames depend on another machine."""
    monkeypatch.setattr(environment, "mount_of", lambda _: host.Mount(kind, "/mnt"))

    assert ("filesystem" in kinds(spool)) is told


def test_mount_is_found_by_the_kernels_number() -> None:
    """/proc is always a filesystem of type proc."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mountinfo is Linux's")
    mount = host.mount_of("/proc/self")

    assert mount is not None
    assert mount.type == "proc"


def test_lack_of_space_is_noticed(spool: Path) -> None:
    """The doctor reports the lack of space for which workers pause."""
    (spool / "config.yaml").write_text("min_free_space: 1000000000000000\n")

    assert kinds(spool) == {"room"}


def test_settings_that_cannot_be_read_are_noticed(spool: Path) -> None:
    """A broken settings file is reported, and hides no other fault."""
    (spool / "config.yaml").write_text("timeout: [")
    two_ends(spool)

    assert {"settings", "twin"} <= kinds(spool)


def test_lack_of_events_is_reported(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free inotify watch workers poll. That is slower, but no fault."""

    def refuse(_: object) -> object:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("queuectl.system.watcher._start", refuse)

    [found] = doctor.examine(Layout(spool))
    assert (found.kind, found.harmless) == ("watch", True)
    assert "watch limit reached" in found.fact


def test_process_of_an_ended_run_is_reported(spool: Path) -> None:
    """A process that a job left in the background is reported with its pid; a repair does not end it."""
    Spool(spool).enqueue("sleep 30 & echo started", id="parent")
    drain(spool)
    [left] = wait_until(lambda: processes_of(spool))
    try:
        found = doctor.repair(Layout(spool))
        assert [(one.kind, one.harmless) for one in found] == [("process", True)]
        assert f"process {left.pid} of job parent" in found[0].fact
        assert left.is_running()
    finally:
        left.kill()
        left.wait(5)


def test_a_missing_spool_is_not_created(spool_dir: Path, cli: Cli) -> None:
    """An examination does not create a spool."""
    done = cli("doctor", expect=0)

    assert done.stdout == f"there is no spool at {spool_dir}\n"
    assert not spool_dir.exists()


def test_command_reports_and_repairs(spool: Path, cli: Cli) -> None:
    """One line for each fault, and exit code 1; with --repair they are gone, and the code is 0."""
    two_ends(spool)
    logs_of_nobody(spool)

    sick = cli("doctor", expect=1)
    assert [line.partition(":")[0] for line in sick.stdout.splitlines()] == ["twin", "orphan log"]
    record = json.loads(cli("doctor", "--json", expect=1).stdout)
    assert (record["sane"], [one["kind"] for one in record["findings"]]) == (False, ["twin", "orphan log"])

    mended = cli("doctor", "--repair", expect=0)
    assert mended.stdout.splitlines()[-1] == "nothing is wrong with this spool"
    assert json.loads(run_cli("--json", "doctor", expect=0).stdout)["findings"] == []


def test_drops_and_moves_by_hand_are_no_faults(spool: Path, cli: Cli) -> None:
    """What was just done by hand is taken in, not reported."""
    put(spool, "pending", "dropped.json")
    (spool / "dead" / "bad.json").rename(spool / "pending" / "bad.json")
    (spool / "done" / "good.json").unlink()
    for log in (spool / "logs").glob("good.*"):
        log.unlink()

    cli("doctor", expect=0)


def test_settings_of_an_accepted_job_are_no_fault(spool: Path, cli: Cli) -> None:
    """The settings of the time when a dropped job was accepted hold, though a new index would have others."""
    put(spool, "pending", "dropped.json")
    cli("status", expect=0)
    cli("config", "set", "priority", "3", expect=0)
    cli("config", "set", "max_retries", "9", expect=0)

    cli("doctor", expect=0)
