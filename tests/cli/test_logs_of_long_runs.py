"""The end of a long log is found quickly, the right runs are selected, and compressed logs are read."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.job import times
from queuectl.layout import Layout
from queuectl.storage import job_logs

from support import drain, drop_bytes, finished, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def thrice(spool_dir: Path) -> Path:
    """A job that has run three times, one hour apart, with three lines on each stream."""
    now = time.time()
    history = [
        {
            "run": run,
            "attempt": run,
            "outcome": "failed",
            "exit_code": 1,
            "started_at": times.iso(now - 3600 * (4 - run)),
        }
        for run in (1, 2, 3)
    ]
    record = {"id": "job1", "command": "x", "attempts": 3, "history": history}
    drop_bytes(spool_dir, "job1.json", json.dumps(record).encode(), "dead")
    for run in (1, 2, 3):
        for stream in ("out", "err"):
            lines = "".join(f"{stream} {run} {n}\n" for n in (1, 2, 3))
            drop_bytes(spool_dir, f"job1.{run}.{stream}", lines.encode(), "logs")
    return spool_dir


def test_last_lines_of_each_stream(cli: Cli, thrice: Path) -> None:
    """-n applies to each stream; 0 prints nothing, a large number prints all."""
    two = cli("logs", "job1", "-n", "2", expect=0)

    assert (two.stdout, two.stderr) == ("out 3 2\nout 3 3\n", "err 3 2\nerr 3 3\n")
    assert cli("logs", "job1", "-n", "0", expect=0).stdout == ""
    assert cli("logs", "job1", "--lines", "99", "--stdout", expect=0).stdout == "out 3 1\nout 3 2\nout 3 3\n"
    assert cli("logs", "job1", "--tail", "1", "--stdout", expect=0).stdout == "out 3 3\n"
    assert cli("logs", "-f", "job1", "-n", "1", "--stderr", expect=0).stdout == "err 3 3\n"


def test_end_of_ten_megabytes_is_read_alone(thrice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Printing the last lines does not read the whole log."""
    path = thrice / "logs" / "job1.3.out"
    path.write_bytes(b"x" * 99 + b"\n" + b"0123456789" * (1 << 20) + b"\nlast but one\nlast\n")

    with path.open("rb") as file:
        start = job_logs.last_lines(file, 2)
        assert path.stat().st_size - start == len(b"last but one\nlast\n")
        reads: list[int] = []

        class Counted:
            seek = file.seek

            def read(self, size: int) -> bytes:
                reads.append(size)
                return file.read(size)

        counted: Any = Counted()
        assert job_logs.last_lines(counted, 2) == start
    assert sum(reads) < 1 << 20


def test_all_runs_with_a_line_before_each(cli: Cli, thrice: Path) -> None:
    """--all prints headings like `tail` with several files; --since selects the runs that began since then."""
    every = cli("logs", "job1", "--all", "-n", "1", "--stdout", expect=0).stdout
    late = cli("logs", "job1", "--since", "150m", "--stderr", "-n", "1", expect=0).stdout
    none = cli("logs", "job1", "--since", "1m", expect=0)

    heads = [line for line in every.splitlines() if line.startswith("==>")]
    assert [head.partition(", began")[0] for head in heads] == [
        f"==> job1 run {run}: failed, exit code 1" for run in (1, 2, 3)
    ]
    assert every.splitlines()[1::2] == ["out 1 3", "out 2 3", "out 3 3"]
    assert late.splitlines()[1::2] == ["err 2 3", "err 3 3"]
    assert (none.stdout, none.stderr) == ("", "no run of job job1 began since then\n")


def test_head_stands_on_a_line_of_its_own(cli: Cli, thrice: Path) -> None:
    """If the output of a run has no final line end, the next heading still has its own line."""
    (thrice / "logs" / "job1.1.out").write_bytes(b"no end")

    every = cli("logs", "job1", "--all", "--stdout", expect=0).stdout.splitlines()

    assert every[1] == "no end"
    assert every[2].startswith("==> job1 run 2")


def test_ways_to_say_which_run_exclude_each_other(cli: Cli, thrice: Path) -> None:
    """--attempt, --all and --since exclude each other."""
    for words in (
        ("--attempt", "1", "--all"),
        ("--all", "--since", "1h"),
        ("--attempt", "1", "--since", "1h"),
    ):
        assert "give only one of" in cli("logs", "job1", *words, expect=2).stderr


def test_following_a_job_that_does_not_exist_is_refused(cli: Cli, spool_dir: Path) -> None:
    """Following a job that does not exist fails at once."""
    assert cli("logs", "-f", "nobody", expect=1).stderr.startswith("error: no job 'nobody'")


@pytest.mark.parametrize("words", [("logs", "-f", "job1"), ("worker", "logs", "-f")])
def test_ctrl_c_ends_a_follower_quietly(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Ctrl+C ends --follow without a message; everything written so far was printed."""
    cli(
        "enqueue",
        "--id",
        "job1",
        "--timeout",
        "0",
        f"echo begun; while [ ! -e '{tmp_path}/go' ]; do sleep 0.05; done",
    )
    workers(1)
    command = [sys.executable, "-m", "queuectl", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
    (tmp_path / "go").touch()

    assert first
    assert (follower.returncode, err) == (130, b"")
    wait_until(lambda: finished(spool_dir, "job1"))


def test_follower_of_all_runs_goes_through_the_retries(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """-f --all starts before the first run and prints a heading for each."""
    cli(
        "enqueue",
        "--id",
        "job1",
        "--max-retries",
        "2",
        "--backoff-base",
        "1",
        "echo try $QUEUECTL_ATTEMPT; exit 1",
    )
    command = [sys.executable, "-m", "queuectl", "logs", "-f", "--all", "job1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
        workers(1)
        out, _ = follower.communicate(timeout=30)

    lines = out.decode().splitlines()
    assert [line for line in lines if not line.startswith("==>")] == ["try 1", "try 2"]
    assert [line.split()[3].rstrip(":") for line in lines if line.startswith("==>")] == ["1", "2"]


def test_end_of_a_log_is_never_the_next_jobs(thrice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read counts only if the file still belongs to the run: a worker's jobs write into the same file."""
    spool = Spool(thrice)
    live = thrice / "data" / "worker-0.out"
    live.parent.mkdir(exist_ok=True)
    live.write_text("of the next job\n")
    kept = str(thrice / "logs" / "job1.3.out")
    answers = iter([str(live), kept, kept, kept])
    monkeypatch.setattr(spool, "output", lambda *_, **__: next(answers))

    assert spool.last_output("job1", 1) == "out 3 3\n"


# -- compressed --------------------------------------------------------------------------------------------------------


def pack_all(spool: Path, before: float | None = None) -> None:
    for _ in job_logs.compress(Layout(spool), time.time() + 10 if before is None else before):
        pass


def fill(path: Path) -> str:
    text = "".join(f"line {n}\n" for n in range(20_000))
    path.write_text(text)
    path.chmod(0o600)
    return text


def test_compressed_log_is_read_like_any_other(cli: Cli, thrice: Path) -> None:
    """A compressed log is read completely, at its end, by Python and by `dlq show`; it is 0600, keeps its time, and is smaller."""
    path = thrice / "logs" / "job1.3.out"
    text = fill(path)
    os.utime(path, (1e9, 1e9))

    pack_all(thrice)

    packed = thrice / "logs" / "job1.3.out.gz"
    assert not path.exists()
    assert (packed.stat().st_mode & 0o777, packed.stat().st_mtime) == (0o600, 1e9)
    assert packed.stat().st_size < len(text) / 3
    assert cli("logs", "job1", "--stdout", expect=0).stdout == text
    assert cli("logs", "-f", "job1", "--stdout", "-n", "2", expect=0).stdout == "line 19998\nline 19999\n"
    assert Spool(thrice).output("job1", run=3) == str(packed)
    assert Spool(thrice).last_output("job1", 1) == "line 19999\n"
    assert "line 19999" in cli("dlq", "show", "job1", "--lines", "1", expect=0).stdout
    assert "nothing is wrong" in cli("doctor", expect=0).stdout


def test_deleting_a_job_deletes_its_compressed_logs(cli: Cli, thrice: Path) -> None:
    """`clear` deletes compressed logs too."""
    fill(thrice / "logs" / "job1.3.out")
    pack_all(thrice)

    cli("clear", "--yes", expect=0)

    assert list((thrice / "logs").iterdir()) == []


def test_only_old_and_worthwhile_logs_are_compressed(thrice: Path) -> None:
    """New and small logs, links, and logs that a process still writes are not compressed."""
    old, young, small = (thrice / "logs" / f"job1.{run}.out" for run in (1, 2, 3))
    written, link = thrice / "logs" / "job1.1.err", thrice / "logs" / "other.1.out"
    for path in (old, young, written):
        fill(path)
    link.symlink_to(old)
    for path in (old, small, written):
        os.utime(path, (1e9, 1e9))

    with written.open("ab"):
        pack_all(thrice, before=1.5e9)

    packed = sorted(path.name for path in (thrice / "logs").glob("*.gz"))
    assert packed == ["job1.1.out.gz"]
    assert young.exists()
    assert small.exists()
    assert written.exists()
    assert link.is_symlink()


def test_stopped_half_way_nothing_is_lost(thrice: Path) -> None:
    """After a crash at any step the log can be read completely, and the next start finishes the work."""
    path = thrice / "logs" / "job1.3.out"
    text = fill(path) * 30
    path.write_text(text)
    spool = Spool(thrice)

    def read() -> str:
        found = spool.output("job1", run=3)
        assert found is not None
        opened = gzip.open(found, "rt") if found.endswith(".gz") else open(found)  # noqa: SIM115
        with opened as file:
            return file.read()

    for steps in range(12):
        pack = job_logs.compress(Layout(thrice), time.time() + 10)
        for _ in range(steps):
            next(pack, None)
        pack.close()  # type: ignore[attr-defined]
        assert read() == text
        assert list((thrice / "tmp").iterdir()) == []
    pack_all(thrice)

    assert not path.exists()
    assert read() == text


def test_log_beside_its_compressed_copy_counts(thrice: Path) -> None:
    """After a kill between two steps both files exist: the log is used, and the next round removes one of them."""
    path = thrice / "logs" / "job1.3.out"
    text = fill(path)
    (thrice / "logs" / "job1.3.out.gz").write_bytes(b"half")

    assert Spool(thrice).output("job1", run=3) == str(path)
    pack_all(thrice)
    assert gzip.decompress((thrice / "logs" / "job1.3.out.gz").read_bytes()).decode() == text


def test_workers_compress_when_told_to(cli: Cli, spool_dir: Path) -> None:
    """Logs are compressed only if the setting says so."""
    spool = Spool(spool_dir)
    spool.enqueue("seq 5000", id="job1")
    drain(spool_dir)
    log = spool_dir / "logs" / "job1.1.out"
    os.utime(log, (1e9, 1e9))
    drain(spool_dir)
    assert log.exists()

    cli("config", "set", "compress_logs", "7d", expect=0)
    drain(spool_dir)

    assert not log.exists()
    assert cli("logs", "job1", expect=0).stdout.splitlines()[-1] == "5000"
    assert where_is(spool_dir, "job1") == ["done"]
