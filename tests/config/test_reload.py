"""Workers follow their settings: at once on HUP, within a second of an edit, and through an edit that went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from terminal import in_a_terminal

from queuectl import Spool, Worker

from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no HUP")


def log_of(spool: Path, name: str = "worker-0") -> str:
    return (spool / "data" / "workers" / f"{name}.log").read_text()


def pids(spool: Path) -> list[int]:
    """The living workers that have said their pids; a name is taken before its process is there."""
    return [worker.pid for worker in Spool(spool).workers() if worker.pid]


def timeout_of(spool: Path, job_id: str) -> float:
    """The time limit that a job was accepted with, once it is done."""
    wait_until(lambda: finished(spool, job_id))
    timeout: float = load(spool / "done" / f"{job_id}.json")["timeout"]
    return timeout


def drop_job(spool: Path, job_id: str) -> None:
    """Drop a file that leaves all to the settings of the worker that takes it in."""
    scratch = spool / "tmp" / f".{job_id}"
    scratch.write_text('{"command": "true"}')
    scratch.rename(spool / "pending" / f"{job_id}.json")


def test_edit_is_followed_and_told(spool_dir: Path, workers: Cli, cli: Cli) -> None:
    """Nobody restarts a worker for a setting, and its log says what changed to what."""
    workers(1)
    cli("config", "set", "timeout", "90", expect=0)
    wait_until(lambda: "settings: timeout = 90 (was 20)\n" in log_of(spool_dir))
    drop_job(spool_dir, "a")

    assert timeout_of(spool_dir, "a") == 90


def test_hup_has_the_settings_read_and_ends_nobody(spool_dir: Path, workers: Cli) -> None:
    """As with other daemons: `kill -HUP` means "read your settings", also when they have not changed."""
    workers(1)
    (info,) = Spool(spool_dir).workers()
    os.kill(info.pid, signal.SIGHUP)
    wait_until(lambda: "settings read again: they are as before\n" in log_of(spool_dir))

    assert [worker.pid for worker in Spool(spool_dir).workers()] == [info.pid]
    drop_job(spool_dir, "a")
    wait_until(lambda: where_is(spool_dir, "a") == ["done"])


@pytest.mark.parametrize("bad", ["timeout: soon\n", "timeout: [\n", b"\xff\xfe", "max_retries: 1e9999\n"])
def test_bad_settings_leave_those_before_in_force(
    spool_dir: Path, workers: Cli, cli: Cli, bad: str | bytes
) -> None:
    """A slip of the pen in config.yaml ends no worker and stops no job; log and status say what is wrong, and where."""
    cli("config", "set", "timeout", "77", expect=0)
    workers(2)
    (spool_dir / "config.yaml").write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    wait_until(
        lambda: all(
            "the settings from before stay in force" in log_of(spool_dir, f"worker-{n}") for n in (0, 1)
        )
    )
    drop_job(spool_dir, "a")

    assert timeout_of(spool_dir, "a") == 77
    told = cli("status", expect=0).stderr
    assert "config.yaml" in told
    assert "workers go on with the settings from before" in told
    assert log_of(spool_dir).count("stay in force") == 1
    (spool_dir / "config.yaml").write_text("timeout: 66\n")
    mended = "settings: timeout = 66 (was 77)\n"
    wait_until(lambda: all(mended in log_of(spool_dir, f"worker-{n}") for n in (0, 1)))
    assert "settings" not in cli("status", expect=0).stderr
    assert all(worker.settings is None for worker in Spool(spool_dir).workers())
    assert cli("worker", "stop", expect=0).stdout == "Stopped 2 worker(s)\n"


def test_hup_with_bad_settings_says_so_each_time(spool_dir: Path, workers: Cli) -> None:
    """Who sends HUP wants an answer, although the trouble has been told before."""
    workers(1)
    (info,) = Spool(spool_dir).workers()
    (spool_dir / "config.yaml").write_text("timeout: soon\n")
    wait_until(lambda: log_of(spool_dir).count("stay in force") == 1)
    os.kill(info.pid, signal.SIGHUP)
    wait_until(lambda: log_of(spool_dir).count("stay in force") == 2)

    assert [worker.settings is not None for worker in Spool(spool_dir).workers()] == [True]


def test_settings_that_could_not_be_read_are_tried_again(spool_dir: Path) -> None:
    """Trouble that passes by itself, as with a disk, is no reason to stay with old settings for ever."""
    from queuectl.config.reload import CurrentSettings
    from queuectl.layout import Layout

    layout = Layout(spool_dir)
    layout.create()
    notes: list[str | None] = []
    said: list[str] = []
    current = CurrentSettings(layout, said.append, notes.append)
    (spool_dir / "config.yaml").mkdir()

    assert [current.check().timeout, current.check().timeout] == [20, 20]
    (spool_dir / "config.yaml").rmdir()
    assert current.check().timeout == 20
    assert [note is None for note in notes] == [False, False, True]
    assert [line.endswith("stay in force") for line in said] == [True, False]


def test_file_that_is_being_written_is_waited_for(spool_dir: Path) -> None:
    """An editor that writes in place empties the file first: in that instant nothing goes back to built-in values."""
    from queuectl.config.reload import CurrentSettings
    from queuectl.layout import Layout

    Layout(spool_dir).create()
    config = spool_dir / "config.yaml"
    config.write_text("timeout: 77\n")
    current = CurrentSettings(Layout(spool_dir), lambda _: None, lambda _: None)
    current.read()
    config.write_text("")
    assert current.check().timeout == 77
    config.write_text("timeout: 78\n")
    assert current.check().timeout == 78
    config.write_text("")
    os.utime(config, (1, 1))
    assert current.check().timeout == 20


def test_an_edit_in_the_second_of_the_last_look_is_seen(spool_dir: Path) -> None:
    """Some file systems store whole seconds only: an edit in place may leave inode, size and time as they were."""
    spool = Spool(spool_dir)
    spool.layout.create()
    config, second = spool_dir / "config.yaml", time.time_ns() // 10**9 * 10**9
    found = []
    for limit in (77, 78):
        config.write_text(f"timeout: {limit}\n")
        os.utime(config, ns=(second, second))
        found.append(spool.settings().timeout)

    assert found == [77, 78]


def test_hup_to_the_foreground_reaches_all_its_workers(spool_dir: Path) -> None:
    """A service's reload goes to its first process: each worker below it reads the settings, and none ends."""
    parent = subprocess.Popen(
        [sys.executable, "-u", "-m", "queuectl", "worker", "start", "--foreground", "--count", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        team = wait_until(lambda: len(found := pids(spool_dir)) == 2 and found)
        os.kill(parent.pid, signal.SIGHUP)
        drop_job(spool_dir, "a")
        wait_until(lambda: finished(spool_dir, "a"))
        assert pids(spool_dir) == team
    finally:
        os.kill(parent.pid, signal.SIGTERM)
        out, _ = parent.communicate(timeout=20)

    assert parent.returncode == 0
    assert out.count("settings read again: they are as before") == 2


def test_nohup_keeps_a_worker_through_the_end_of_its_terminal(spool_dir: Path, cli: Cli) -> None:
    """Who was started deaf to HUP does not leave with the terminal; it reads its settings all the same."""
    command = f"{sys.executable} -m queuectl worker start --foreground"
    shell, terminal = in_a_terminal(f"nohup {command} > $HOME/out 2>&1 & while :; do sleep 1; done")
    (info,) = wait_until(Spool(spool_dir).workers)
    os.close(terminal)
    shell.wait(10)
    drop_job(spool_dir, "a")
    wait_until(lambda: finished(spool_dir, "a"))

    assert [worker.pid for worker in Spool(spool_dir).workers()] == [info.pid]
    cli("worker", "stop", expect=0)


def test_worker_in_a_program_reads_its_settings_when_asked(spool_dir: Path) -> None:
    """The Python door has the same: no signal needed."""
    said: list[str] = []
    worker = Worker(spool_dir, drain=True, say=said.append)
    worker.register()
    worker.read_settings()
    worker.run()

    assert "settings read again: they are as before" in said
