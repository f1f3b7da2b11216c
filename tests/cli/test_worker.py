"""Workers are started, listed and stopped from any terminal, with the documented lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.cli.commands import demo

from support import drop, finished, processes_of, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_start_prints_the_documented_lines(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """One line for each worker, the number, and the process ids of living processes."""
    lines = workers(3).stdout.splitlines()

    pids = [int(line.split("=")[1]) for line in lines[:3]]
    assert lines[:3] == [f"[worker-{n}] started PID={pid}" for n, pid in enumerate(pids)]
    assert lines[3:] == ["Started 3 worker(s)", f"Worker PIDs: [{', '.join(map(str, pids))}]"]
    assert set(pids) <= {process.pid for process in processes_of(spool_dir)} | set(pids)
    for pid in pids:
        os.kill(pid, 0)


def test_start_as_json(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """--json is an array of names and process ids."""
    (told,) = json.loads(workers(1, "--json").stdout)

    assert told["name"] == "worker-0"
    os.kill(told["pid"], 0)


def test_count_comes_from_flag_then_setting_then_one(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """--count overrides worker_count; the default is one."""
    cli("config", "set", "worker_count", "2", expect=0)
    by_setting = cli("worker", "start", expect=0).stdout
    by_flag = workers(1).stdout

    assert "Started 2 worker(s)" in by_setting
    assert "Started 1 worker(s)" in by_flag


def test_stop_from_anywhere(cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path) -> None:
    """A stop in another directory stops all workers, however they were started; a second stop finds none."""
    workers(1)
    workers(2)
    stopped = cli("worker", "stop", expect=0, cwd=tmp_path)
    again = cli("worker", "stop", expect=0)

    assert (stopped.stdout, again.stdout) == ("Stopped 3 worker(s)\n", "No workers to stop\n")
    assert processes_of(spool_dir) == []


def test_stop_names_who_is_busy(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """At the end of its time a stop lists the running jobs and exits with 1; each worker stops when its job ends."""
    cli(
        "enqueue",
        "--id",
        "long",
        "--timeout",
        "0",
        f"while [ ! -e '{tmp_path}/go' ]; do sleep 0.05; done",
        expect=0,
    )
    workers(1)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])

    stopped = cli("worker", "stop", "--timeout", "0", expect=1)
    listed = cli("worker", "list", expect=0).stdout
    (tmp_path / "go").touch()

    assert re.match(r"error: still running: worker-0 \(job long for \d+s", stopped.stderr)
    assert stopped.stderr.splitlines()[1] == "hint: queuectl worker stop --force ends the jobs"
    assert re.fullmatch(r"worker-0 - PID=\d+ - job long for \d+s, then stops\n", listed)
    wait_until(lambda: not processes_of(spool_dir))
    assert where_is(spool_dir, "long") == ["done"]


def test_workers_can_be_stopped_whatever_the_settings_say(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """A typing error in config.yaml must not be in the way of the person who wants to stop everything."""
    workers(1)
    (spool_dir / "config.yaml").write_text("stop_timeout: soon\n")
    done = cli("worker", "stop", expect=0)

    assert done.stdout == "Stopped 1 worker(s)\n"
    assert "stop_timeout" in done.stderr
    assert "the built-in stop_timeout is used" in done.stderr


def test_scale_starts_and_stops_as_many_as_needed(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """The number is what counts, whatever ran before. Idle workers go first."""
    workers(1)
    drop(spool_dir, "long", command="sleep 60", timeout=0)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])

    assert "Started 2 worker(s)\n" in cli("worker", "scale", "3", expect=0).stdout
    assert cli("worker", "scale", "3", expect=0).stdout == "3 worker(s) are running already\n"
    told = json.loads(cli("worker", "scale", "1", "--json", expect=0).stdout)
    assert (told["started"], told["stopped"], told["busy"]) == ([], 2, [])
    assert [one["name"] for one in json.loads(cli("worker", "list", "--json").stdout)] == ["worker-0"]
    assert "must be 0 to" in cli("worker", "scale", "5000", expect=2).stderr


def test_workers_of_a_queue_are_scaled_apart_from_the_others(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """Or the workers of one queue would be stopped, or not be started, because of those of another."""
    Spool(spool_dir).set_queue("mail", limit=5)
    workers(1)
    told = json.loads(cli("worker", "scale", "2", "--queue", "mail", "--json", expect=0).stdout)
    assert [one["queues"] for one in told["started"]] == [["mail"], ["mail"]]
    assert cli("worker", "scale", "2", "--queue", "mail", expect=0).stdout.startswith(
        "2 worker(s) are running"
    )
    assert "Started 1 worker(s)\n" in cli("worker", "scale", "1", "--not-queue", "mail", expect=0).stdout
    cli("worker", "scale", "0", "--queue", "mail", expect=0)
    left = json.loads(cli("worker", "list", "--json", expect=0).stdout)
    assert [(one["queues"], one["not_queues"]) for one in left] == [([], []), ([], ["mail"])]
    assert "contradict" in cli("worker", "scale", "1", "--queue", "a", "--not-queue", "a", expect=2).stderr


def test_a_crontab_that_scales_starts_no_worker_beside_busy_ones_and_all_leave(
    cli: Cli, spool_dir: Path, tmp_path: Path
) -> None:
    """Each call of `worker start --drain` would start two more while a long job runs."""
    gate = tmp_path / "gate"
    for name in ("a", "b", "c"):
        drop(spool_dir, name, command=f"until [ -e {gate} ]; do sleep 0.05; done", timeout=0)

    assert "Started 2 worker(s)\n" in cli("worker", "scale", "2", "--drain", expect=0).stdout
    assert cli("worker", "scale", "2", "--drain", expect=0).stdout == "2 worker(s) are running already\n"

    gate.touch()
    wait_until(lambda: finished(spool_dir, "a", "b", "c"))
    wait_until(lambda: json.loads(cli("worker", "list", "--json").stdout) == [])
    wait_until(lambda: not processes_of(spool_dir))  # they end a moment after they have left the list


def test_drained_worker_says_how_many_wait_for_another_attempt(cli: Cli, spool_dir: Path) -> None:
    """A script that sees it leave with 0 would believe that all is done."""
    drop(spool_dir, "job1", command="exit 1", backoff_base=100, max_retries=2)
    text = cli("worker", "start", "--foreground", "--drain", expect=0).stdout

    assert "[worker-0] 1 failed job(s) wait for another attempt; --wait-retries waits for them\n" in text


def test_forced_stop_puts_the_job_back(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """--force ends the job, which goes back to pending without a counted attempt."""
    cli("enqueue", "--id", "long", "sleep 60", expect=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])

    assert cli("worker", "stop", "--force", expect=0).stdout == "Stopped 1 worker(s)\n"
    assert where_is(spool_dir, "long") == ["pending"]
    assert json.loads(cli("list", "--json").stdout)[0]["attempts"] == 0


def test_list_of_workers(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Workers as lines and as JSON; without workers an empty array."""
    assert cli("worker", "list", "--json", expect=0).stdout == "[]\n"
    workers(2)
    told = json.loads(cli("worker", "list", "--json", expect=0).stdout)

    assert [(worker["name"], worker["job_id"], worker["stopping"]) for worker in told] == [
        ("worker-0", None, False),
        ("worker-1", None, False),
    ]
    assert json.loads(cli("status", "--json").stdout)["workers"] == 2


def test_foreground_shows_each_job(cli: Cli, spool_dir: Path) -> None:
    """A foreground worker prints the start and end of each job, and with --drain exits by itself."""
    drop(spool_dir, "job1", command="echo hi", priority=8, max_retries=3)
    done = cli("worker", "start", "--foreground", "--drain", expect=0)

    text = done.stdout
    assert re.search(r"^\[worker-0\] started PID=\d+$", text, flags=re.MULTILINE)
    assert "[worker-0] executing job job1: echo hi\n" in text
    assert "[worker-0] completed job1\n" in text
    for part in ("priority 8", "attempt 1/3", "timeout 20s", "execution time 0.", "exit code 0"):
        assert part in text


def test_several_in_the_foreground_drain_all(cli: Cli, spool_dir: Path) -> None:
    """Several workers in one terminal run each job once."""
    for number in range(20):
        drop(spool_dir, f"j{number}", command="true")

    text = cli("worker", "start", "--foreground", "--drain", "--count", "2", expect=0).stdout

    assert sorted(re.findall(r"\] completed (\S+)", text)) == sorted(f"j{n}" for n in range(20))


def test_start_that_fails_says_why(cli: Cli, spool_dir: Path) -> None:
    """A spool that others can write is refused with one line and an error code."""
    spool_dir.mkdir()
    spool_dir.chmod(0o777)

    done = cli("worker", "start", expect=1)

    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2


def test_demo_shows_every_job_of_the_example(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """The demo takes seconds, explains each job and its result, and changes no other spool."""
    (tmp_path / "t").mkdir()
    done = cli("demo", expect=0, env={"TMPDIR": str(tmp_path / "t")}, timeout=20)

    (root,) = (tmp_path / "t").iterdir()
    for name, lesson in demo.LESSONS.items():
        assert f"\n{name}: {lesson}\n" in done.stdout
    assert "a job\n    in " not in done.stdout
    others = "disk-report (completed), fetch-rates (completed), half-written (dead), send-invoice (dead)"
    told = next(line for line in done.stdout.splitlines() if "had ended before: " in line)
    assert ", ".join(sorted(told.partition("before: ")[2].split(", "))) == others
    assert told.startswith("The example came with 4 more jobs")
    assert finished(root, *(name for name in demo.LESSONS if name != "new-year"))
    assert f"queuectl --spool {root} show too-slow" in done.stdout
    assert not spool_dir.exists()


def complete(shell: str, *words: str) -> list[str]:
    line = " ".join(("queuectl", *words))
    env = {
        **os.environ,
        "_QUEUECTL_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "queuectl"], env=env, capture_output=True, text=True, check=True
    )
    return [part.partition(",")[2] for part in done.stdout.splitlines() if part]


def test_completion_of_names_and_ids(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """Completes commands, options, states, settings and fitting ids, in the given spool."""
    drop(spool_dir, "alpha", command="true")
    drop(tmp_path / "other", "beta", command="true")
    (spool_dir / "dead").mkdir(exist_ok=True)
    (spool_dir / "dead" / "omega.json").write_text('{"command": "x"}')

    assert complete("bash", "wor") == ["worker"]
    assert complete("bash", "worker", "sto") == ["stop"]
    assert sorted(complete("bash", "show", "''")) == ["alpha", "omega"]
    assert complete("bash", "show", "a") == ["alpha"]
    assert complete("bash", "dlq", "retry", "''") == ["omega"]
    assert complete("bash", "--spool", str(tmp_path / "other"), "show", "''") == ["beta"]
    assert complete("bash", "list", "--state", "pe") == ["pending"]
    assert complete("bash", "config", "set", "max-r") == ["max_retries"]
    assert complete("bash", "show", "--spool", str(tmp_path / "missing" / "x"), "''") == []


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no-files")]
)
def test_completion_script(cli: Cli, spool_dir: Path, shell: str, mark: str) -> None:
    """Each script asks queuectl for completions; bash accepts its script."""
    script = cli("completion", shell, expect=0).stdout

    assert mark in script
    assert "_QUEUECTL_COMPLETE=" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
