"""What has the name of a worker's file may be anything: it ends no worker, makes none wait, and is reported."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.control import registry, run_lock
from queuectl.control.registration import Registration
from queuectl.doctor import doctor
from queuectl.system.host import boot_id
from queuectl.system.locks import is_folder_locked

from support import drain, drop_bytes, run_cli, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.layout import Layout

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no FIFOs")

ODD_RECORDS = [
    '{"started_at": "yesterday"}',
    '{"pid": 99999999999999999999, "process_started": 1, "boot_id": "x", "started_at": []}',
    '{"pid": true, "process_started": 1, "boot_id": "x", "mode": 5, "paused": {}}',
    '{"pid": "12", "parent": ["a", "b"], "polling": [1]}',
    "[1]",
    "null",
    "{",
    "",
]


def folder(path: str) -> None:
    os.mkdir(path)


def link(path: str) -> None:
    os.symlink("/etc/passwd", path)


@pytest.mark.parametrize("text", ODD_RECORDS)
def test_an_odd_record_ends_no_worker(spool_dir: Path, layout: Layout, text: str) -> None:
    """One such file ended every worker of the spool. Here it is that of a name that somebody holds."""
    held = [Registration.acquire(layout) for _ in range(2)]
    for registration in held:
        with open(layout.worker_file(registration.name, "json"), "w", encoding="utf-8") as file:
            file.write(text)
    held[0].release()
    Spool(spool_dir).enqueue("true", id="job")

    drain(spool_dir)

    assert where_is(spool_dir, "job") == ["done"]
    assert [worker.pid for worker in registry.live_workers(layout)] == [0]
    held[1].release()


@pytest.mark.parametrize("kind", ["lock", "json", "stop", "cancel", "run", "out", "err", "log"])
@pytest.mark.parametrize("make", [folder, os.mkfifo, link])
def test_a_name_whose_files_are_odd_is_left_out(
    spool_dir: Path, layout: Layout, kind: str, make: Callable[[str], None]
) -> None:
    """A worker waited at a FIFO, or ended at a folder, while `doctor` said that nothing was wrong."""
    path = layout.worker_file("worker-0", kind)
    make(path)
    Spool(spool_dir).enqueue("true", id="job")

    worker = Worker(spool_dir, drain=True)
    worker.register()
    assert worker.name == "worker-1"
    worker.run()
    assert where_is(spool_dir, "job") == ["done"]
    assert registry.live_workers(layout) == []
    assert run_lock.read(layout, "worker-0") is None

    [found] = [one for one in doctor.examine(layout) if one.kind == "worker file"]
    assert found.where == f"data/workers/worker-0.{kind}"
    assert [one.kind for one in doctor.repair(layout)] == []
    assert not os.path.lexists(path)
    assert os.path.lexists(os.path.join(layout.data, "aside", f"worker-0.{kind}"))


@pytest.mark.parametrize(("make", "code"), [(folder, errno.EISDIR), (link, errno.ELOOP)])
def test_an_odd_lock_keeps_nothing_else_from_being_done(
    spool_dir: Path, layout: Layout, make: Callable[[str], None], code: int
) -> None:
    """Jobs of other dead workers were not taken back, and nothing expired and no record was purged any more."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="expires", hold=True, expires_at=time.time() + 0.01)
    for name in ("worker-3", "worker-4", "worker-5"):
        (spool_dir / "processing" / name).mkdir(mode=0o700)
        drop_bytes(spool_dir, f"of-{name}.json", b'{"command": "true"}', f"processing/{name}")
    make(layout.worker_file("worker-4", "lock"))
    (spool_dir / "data" / "workers" / "worker-4.json").write_text("{}")

    said = drain(spool_dir)

    assert [line for line in said if "worker-4" in line] == [
        f"cannot find out whether worker-4 is alive: its lock cannot be opened: {os.strerror(code).lower()}"
    ]
    assert (where_is(spool_dir, "of-worker-3"), where_is(spool_dir, "of-worker-5")) == (["done"], ["done"])
    assert where_is(spool_dir, "of-worker-4") == ["processing/worker-4"]
    assert where_is(spool_dir, "expires") == ["dead"]


def test_a_worker_whose_record_cannot_be_written_does_all_the_rest(spool_dir: Path, workers: Cli) -> None:
    """It took back no job of a dead worker any more, gave up no cancelled one, and looked after no watch."""
    workers(1)
    record = spool_dir / "data" / "workers" / "worker-0.json"
    record.unlink()
    record.mkdir()
    (spool_dir / "processing" / "worker-9").mkdir(mode=0o700)
    drop_bytes(spool_dir, "job.json", b'{"command": "true"}', "processing/worker-9")

    wait_until(lambda: where_is(spool_dir, "job") == ["done"])
    record.rmdir()


def test_a_worker_that_leaves_gives_its_name_back_whatever_has_its_records_name(layout: Layout) -> None:
    """In a program that goes on, the lock of its folder stayed: its jobs counted as running for ever."""
    registration = Registration.acquire(layout)
    registration.announce("program")
    os.unlink(layout.worker_file(registration.name, "json"))
    os.mkdir(layout.worker_file(registration.name, "json"))

    registration.release()

    assert not is_folder_locked(layout.claims(registration.name))
    assert not os.path.exists(layout.claims(registration.name))


def test_worker_whose_record_is_overwritten_can_be_stopped(spool_dir: Path, workers: Cli) -> None:
    """Without its record nobody knows its process: it answered no stop."""
    workers(1)
    path = spool_dir / "data" / "workers" / "worker-0.json"
    record = json.loads(path.read_text())
    path.write_text('{"started_at": "yesterday"}')

    wait_until(lambda: json.loads(path.read_text()).get("pid") == record["pid"])
    assert run_cli("worker", "stop", expect=0).stdout == "Stopped 1 worker(s)\n"


@pytest.mark.parametrize("odd", ["nan", "-1e300"])
def test_an_odd_moment_in_a_run_file_ends_no_command(spool_dir: Path, layout: Layout, odd: str) -> None:
    """`list`, `show` and `worker list` ended in a traceback while that job ran."""
    held = Registration.acquire(layout)
    held.announce("program")
    drop_bytes(spool_dir, "job.json", b'{"command": "true"}', f"processing/{held.name}")
    with open(layout.worker_file(held.name, "run"), "w", encoding="ascii") as file:
        file.write(f"job 1.0 {boot_id()} 0 {odd}\n")

    for words in (
        ["list"],
        ["show", "job"],
        ["worker", "list"],
        ["list", "--json"],
        ["worker", "list", "--json"],
    ):
        run_cli("--spool", spool_dir, *words, expect=0)
    held.release()


@pytest.mark.parametrize("odd", ["nan", "1e300"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_odd_moment_of_an_ended_run_ends_no_worker(
    spool_dir: Path, layout: Layout, odd: str, which: int
) -> None:
    """Whoever took the job back ended over it, and so did each worker that came after."""
    job_id = Spool(spool_dir).enqueue("true").id
    job = Spool(spool_dir).get(job_id)
    (spool_dir / "processing" / "worker-3").mkdir(mode=0o700)
    os.rename(
        spool_dir / "pending" / f"{job_id}.json", spool_dir / "processing" / "worker-3" / f"{job_id}.json"
    )
    moments = ["1.5", "2.5", "1.0"]
    moments[which] = odd
    with open(layout.worker_file("worker-3", "run"), "w", encoding="ascii") as file:
        file.write(f"other 1.0 {boot_id()} 1 3.5\n{job_id} {job.run_mark(1)} {' '.join(moments)}\n")

    drain(spool_dir)

    assert where_is(spool_dir, job_id) == ["done"]


@pytest.mark.parametrize("make", [folder, os.mkfifo, link])
def test_an_odd_mark_of_the_boot_holds_no_worker_up(
    spool_dir: Path, layout: Layout, make: Callable[[str], None]
) -> None:
    """With a FIFO there a worker waited for ever at its start."""
    make(os.path.join(layout.data, "boot"))
    drop_bytes(spool_dir, "job.json", b'{"command": "true"}')

    run_cli("--spool", spool_dir, "worker", "start", "--foreground", "--drain", expect=0, timeout=20)

    assert where_is(spool_dir, "job") == ["done"]


def test_logs_of_workers_do_not_wait_at_a_fifo(spool_dir: Path, layout: Layout) -> None:
    """`worker logs` opened it and waited for a writer for ever."""
    os.mkfifo(layout.worker_file("worker-3", "log"))
    os.mkfifo(layout.worker_file("worker-4", "log.1"))
    (spool_dir / "data" / "workers" / "worker-4.log").write_text("2026-01-01T00:00:00Z [worker-4] hello\n")

    shown = run_cli("--spool", spool_dir, "worker", "logs", expect=0, timeout=20)
    assert shown.stdout == "2026-01-01T00:00:00Z [worker-4] hello\n"
