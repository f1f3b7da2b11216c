"""Bounds: output, memory, disk, the size of job files and logs, and how often a command may run at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool
from queuectl.errors import InvalidJob
from queuectl.job.record import SIZE_LIMIT

from support import drain, drop, end_workers, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


MEGA = 1 << 20


# -- output --------------------------------------------------------------------------------------------------------


def test_a_flood_leaves_the_workers_memory_flat(spool_dir: Path, cli: Any, workers: Any) -> None:
    """Endless lines on one stream, one endless line on the other: the job is not held up, the logs stay small."""
    cli("config", "set", "log_limit", "256K", expect=0)
    workers(1)
    (info,) = Spool(spool_dir).workers()
    worker = psutil.Process(info.pid)
    drop(spool_dir, "first", command="true")
    wait_until(lambda: finished(spool_dir, "first"))
    before = most = worker.memory_info().rss
    drop(
        spool_dir,
        "flood",
        timeout=0,
        command="yes | head -c 60M & head -c 60M /dev/zero | tr '\\0' x >&2; wait; echo end",
    )
    while not finished(spool_dir, "flood"):
        most = max(most, worker.memory_info().rss)
    assert where_is(spool_dir, "flood") == ["done"]
    assert most - before < 12 * MEGA
    for stream, head in (("out", b"y\ny\n"), ("err", b"xxxx")):
        log = (spool_dir / "logs" / f"flood.1.{stream}").read_bytes()
        assert log.startswith(head)
        assert b"[queuectl: output cut at 262144 bytes]" in log
        assert len(log) < 300_000
    assert "output cut at" in cli("logs", "flood").stdout
    assert (spool_dir / "done" / "flood.json").stat().st_size < 20_000


def test_a_workers_log_begins_anew_when_it_is_full(spool_dir: Path, cli: Any, workers: Any) -> None:
    """One old log is kept beside it; both are private, and both are read."""
    cli("config", "set", "log_limit", "20K", expect=0)
    for number in range(120):
        drop(spool_dir, f"job{number:03}", command=f"true {'x' * 400}")
    workers(1)
    wait_until(lambda: Spool(spool_dir).counts()["completed"] == 120, 40)
    cli("worker", "stop", expect=0)
    logs = sorted((spool_dir / "data" / "workers").glob("worker-0.log*"))
    assert [path.name for path in logs] == ["worker-0.log", "worker-0.log.1"]
    for path in logs:
        assert path.stat().st_size <= 21 << 10
        assert path.stat().st_mode & 0o777 == 0o600
    shown = cli("worker", "logs", expect=0).stdout
    lines = [line for log in reversed(logs) for line in log.read_text().splitlines()]
    assert shown.splitlines() == lines
    assert "stopped after 120 attempt(s)" in lines[-1]


# -- free space ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(spool_dir: Path) -> Iterator[Callable[[str], None]]:
    """Mount a small file system under the spool."""
    mounted = []

    def mount(options: str) -> None:
        spool_dir.mkdir(mode=0o700)
        words = ["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", str(spool_dir)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        mounted.append(spool_dir)

    yield mount
    end_workers(spool_dir)
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path, leave: int) -> None:
    """Fill the file system of this path up to so many bytes."""
    free = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file:  # nothing is left to be written when it is closed
        for _ in range((free.f_bavail * free.f_frsize - leave) // 4096):
            try:
                file.write(bytes(4096))
            except OSError:
                break


@pytest.mark.parametrize("leave", [3 * MEGA, 0], ids=["below the floor", "to the last byte"])
def test_workers_pause_without_room_and_go_on_by_themselves(
    spool_dir: Path, cli: Any, workers: Any, small_disk: Callable[[str], None], leave: int
) -> None:
    """`status`, `worker list` and the log say so. Running jobs finish, and the workers resume by themselves."""
    small_disk("size=9m")
    workers(1)
    drop(spool_dir, "runs", command="until test -e $HOME/go; do sleep 0.05; done")
    wait_until(lambda: where_is(spool_dir, "runs") == ["processing/worker-0"])
    drop(spool_dir, "waits", command="true")
    fill(spool_dir / "filler", leave)
    wait_until(lambda: "workers start nothing" in cli("status").stderr)
    if leave:
        wait_until(lambda: load(spool_dir / "data" / "workers" / "worker-0.json").get("paused"))
    (spool_dir.parent / "home" / "go").touch()
    if leave:
        wait_until(lambda: finished(spool_dir, "runs"))
        wait_until(lambda: "paused: " in cli("worker", "list").stdout)
        (told,) = json.loads(cli("worker", "list", "--json").stdout)
        assert f"min_free_space is {4 * MEGA}" in told["paused"]
        assert "min_free_space" in cli("status", "--json").stdout
        cli("enqueue", "--id", "more", "true", expect=0)  # one more file fits
    assert where_is(spool_dir, "waits") == ["pending"]
    (spool_dir / "filler").unlink()
    wait_until(lambda: finished(spool_dir, "runs", "waits"))
    assert where_is(spool_dir, "runs") == ["done"]
    assert cli("status").stderr == ""
    wait_until(lambda: "paused" not in cli("worker", "list").stdout)
    if leave:
        log = cli("worker", "logs").stdout
        assert log.count("pausing: ") == 1
        assert log.count("resuming: the disk has enough free space again") == 1


def test_workers_can_be_stopped_on_a_full_disk(
    spool_dir: Path, cli: Any, workers: Any, small_disk: Callable[[str], None]
) -> None:
    """The stop note cannot be written, but the signal can be sent."""
    small_disk("size=9m")
    workers(2)
    fill(spool_dir / "filler", 0)
    assert "Stopped 2 worker(s)" in cli("worker", "stop", expect=0).stdout


def test_a_disk_without_inodes_is_no_room_either(
    spool_dir: Path, cli: Any, workers: Any, small_disk: Callable[[str], None]
) -> None:
    """Bytes are free, but no file can be created."""
    small_disk("size=40m,nr_inodes=200")
    drop(spool_dir, "job", command="true")
    number = 0
    while os.statvfs(spool_dir).f_favail > 60:
        (spool_dir / f"filler{number}").touch()
        number += 1
    workers(1)
    wait_until(lambda: finished(spool_dir, "job"))
    while os.statvfs(spool_dir).f_favail > 20:
        (spool_dir / f"filler{number}").touch()
        number += 1
    wait_until(lambda: "more files" in cli("worker", "list").stdout)
    drop(spool_dir, "later", command="true")
    assert "more files" in cli("status").stderr
    assert where_is(spool_dir, "later") == ["pending"]
    for path in spool_dir.glob("filler*"):
        path.unlink()
    wait_until(lambda: finished(spool_dir, "later"))


def test_a_floor_of_zero_is_no_floor(spool_dir: Path, cli: Any, small_disk: Callable[[str], None]) -> None:
    """A spool may lie on a disk that is always that small."""
    small_disk("size=3m")
    cli("config", "set", "min_free_space", "0", expect=0)
    drop(spool_dir, "job", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "job")


# -- job files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["enqueue", "drop"])
def test_a_job_at_the_limit_runs_retries_and_is_read(spool_dir: Path, cli: Any, way: str) -> None:
    """Output and history make its file larger than the limit, which must not make it a dead letter."""
    spool = Spool(spool_dir)
    record: dict[str, Any] = {
        "id": "job",
        "command": "head -c 9000 /dev/zero | tr '\\0' '\\1'; exit 3",
        "attachment": "x" * (SIZE_LIMIT - 1000),
    }
    settings = {"max_retries": 3, "backoff_base": 1, "max_backoff": 0}
    if way == "enqueue":
        spool.enqueue({**record, "max_retries": 3, "backoff_base": 1})
    else:
        drop(spool_dir, "job", **record, **settings)
    moment = [0.0]

    for _ in range(3):
        drain(spool_dir, now=lambda: time.time() + moment[0])
        moment[0] += 10
    assert where_is(spool_dir, "job") == ["dead"]
    assert (spool_dir / "dead" / "job.json").stat().st_size > SIZE_LIMIT
    again = Spool(spool_dir)
    job = again.get("job")
    assert (job.attempts, len(job.history), job.last_error) == (3, 3, "Exit code 3")
    again.reindex()
    assert again.get("job").last_error == "Exit code 3"
    assert again.retry("job").attempts == 0
    again.refresh()
    assert where_is(spool_dir, "job") == ["pending"]
    assert again.get("job").state == "pending"


def test_a_job_above_the_limit_is_refused(spool_dir: Path, cli: Any) -> None:
    """From the command line, from Python, in a file of jobs, and dropped."""
    large = {"command": f"true {'x' * SIZE_LIMIT}"}
    assert "too large" in cli("enqueue", "--file", "-", stdin=json.dumps(large), expect=1).stderr
    with pytest.raises(InvalidJob, match="too large"):
        Spool(spool_dir).enqueue(large)
    # A file that is not valid may not be complete yet. These are.
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop(spool_dir, "large", **large)
    drop(spool_dir, "swells", command="touch $HOME/ran", x=[[[[0]]]] * 100_000)  # small, until it is indented
    drop(spool_dir, "small", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "small")
    for name in ("large", "swells"):
        assert where_is(spool_dir, name) == ["dead"]
        assert "too large" in (spool_dir / "dead" / f"{name}.json.reason").read_text()
    assert not (spool_dir.parent / "home" / "ran").exists()


@pytest.mark.parametrize("way", ["enqueue", "drop"])
def test_a_job_that_was_accepted_can_be_written_back_at_each_step(
    spool_dir: Path, cli: Any, way: str
) -> None:
    """Defaults that were filled in, or a hold, made it too large: it could not be held, and a new index buried it."""
    spool = Spool(spool_dir)
    record = {"command": "exit 3", "cwd": str(spool_dir.parent), "x": ""}
    room = SIZE_LIMIT - len(json.dumps(record, indent=2))
    largest = {**record, "x": "x" * room}
    with pytest.raises(InvalidJob, match=f"too large: {SIZE_LIMIT + 1} bytes, and the limit is {SIZE_LIMIT}"):
        spool.enqueue({**record, "x": "x" * (room + 1)})
    drop(spool_dir, "more", **{**record, "x": "x" * (room + 1)})
    if way == "enqueue":
        spool.enqueue({**largest, "id": "job"})
    else:
        drop(spool_dir, "job", **largest)

    assert spool.hold("job")
    spool.reindex()
    assert spool.set("job", priority=9, max_retries=2, max_backoff=0).hold
    assert spool.release("job")
    with pytest.raises(InvalidJob, match="too large"):
        spool.set("job", tags=["a"])
    drain(spool_dir, now=lambda: time.time() + 10)
    drain(spool_dir, now=lambda: time.time() + 20)
    assert where_is(spool_dir, "job") == ["dead"]
    with pytest.raises(InvalidJob, match="too large"):
        spool.retry("job", tags=["a"])
    assert spool.retry("job", timeout=5).state == "pending"
    spool.reindex()
    assert spool.hold("job")
    assert {row.id: row.state for row in Spool(spool_dir).list()} == {"job": "pending", "more": "dead"}
    with pytest.raises(InvalidJob, match="too large"):
        spool.retry("more")


def test_the_text_in_which_a_job_comes_is_not_measured(spool_dir: Path, cli: Any) -> None:
    """Blanks count for nothing, and escapes as the letters that they stand for: it is written anew at the next step."""
    record = {"command": "true", "x": "é" * 300_000}
    for name, text in {
        "blanks": json.dumps(record, ensure_ascii=False) + " " * SIZE_LIMIT,
        "escapes": json.dumps(record),
    }.items():
        (spool_dir / "pending").mkdir(parents=True, mode=0o700, exist_ok=True)
        (spool_dir / "pending" / f"{name}.json").write_text(text, encoding="utf-8")
    os.chmod(spool_dir, 0o700)
    spool = Spool(spool_dir)

    # In a file of jobs the text had to be as short as what queuectl writes.
    typed = json.dumps({**record, "id": "typed"})
    assert len(typed) > SIZE_LIMIT
    cli("enqueue", "--file", "-", stdin=typed, expect=0)
    cli("remove", "typed", expect=0)

    assert {row.id: row.state for row in spool.list()} == {"blanks": "pending", "escapes": "pending"}
    assert spool.hold_many(["blanks", "escapes"]) == {"blanks": True, "escapes": True}


# -- commands that must not run twice ------------------------------------------------------------------------------


def kill_mid_job(spool: Path, job_id: str) -> None:
    wait_until((spool.parent / "home" / f"{job_id}.ran").exists)
    (info,) = Spool(spool).workers()
    assert info.job_id == job_id
    os.kill(info.pid, signal.SIGKILL)
    wait_until(lambda: not Spool(spool).workers())


def test_a_command_that_must_not_run_twice_does_not(spool_dir: Path, workers: Any, cli: Any) -> None:
    """When its worker is killed it goes to dead/ with the reason, and only a person runs it again. Other jobs run again."""
    workers(1)
    for name, on_crash in (("once", "dead"), ("again", "retry")):
        script = f"echo run >> $HOME/{name}.ran; test $(wc -l < $HOME/{name}.ran) -gt 1 || sleep 60"
        cli("enqueue", json.dumps({"id": name, "command": script, "on_crash": on_crash}), expect=0)
        kill_mid_job(spool_dir, name)
        workers(1)
        wait_until(lambda name=name: finished(spool_dir, name))  # type: ignore[misc]
    assert where_is(spool_dir, "again") == ["done"]
    assert where_is(spool_dir, "once") == ["dead"]
    home = spool_dir.parent / "home"
    assert (home / "once.ran").read_text() == "run\n"
    assert (home / "again.ran").read_text() == "run\nrun\n"
    record = load(spool_dir / "dead" / "once.json")
    assert record["attempts"] == 0
    assert record["last_error"] == "worker-0 died while running it; on_crash is dead, so it is not run again"
    assert [entry["outcome"] for entry in record["history"]] == ["interrupted"]
    assert "on_crash is dead" in cli("dlq", "list").stdout
    cli("dlq", "retry", "once", expect=0)
    wait_until(lambda: where_is(spool_dir, "once") == ["done"])
    assert (home / "once.ran").read_text() == "run\nrun\n"


def test_a_command_that_must_not_run_twice_may_still_fail_and_retry(spool_dir: Path) -> None:
    """on_crash is about the death of a worker, not about attempts that have ended."""
    drop(spool_dir, "job", command="false", on_crash="dead", max_retries=2)
    drain(spool_dir)
    assert where_is(spool_dir, "job") == ["pending"]
    drain(spool_dir, now=lambda: time.time() + 60)
    assert load(spool_dir / "dead" / "job.json")["attempts"] == 2
