"""The output that is shown of a run is the run's own, although all runs of a worker write into the same files."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.cli.log_stream import LogReader, Sink
from queuectl.control import run_lock
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.storage import job_logs

from support import drain, drop_bytes, processes_of, wait_until

if TYPE_CHECKING:
    from pathlib import Path

CREATED = "2026-01-01T00:00:00.000000Z"
MARK = "1.1767225600000000"


def claimed(spool_dir: Path, job_id: str) -> None:
    record = {"id": job_id, "command": "x", "created_at": CREATED}
    drop_bytes(spool_dir, f"{job_id}.json", json.dumps(record).encode(), "processing/worker-0")


def started(spool: Spool, job_id: str, *ended: str) -> None:
    lines = [f"{one} {MARK} 1.0 2.0 1.0\n" for one in ended]
    run_lock.acquire(spool.layout, "worker-0", job_id, MARK, "boot", lines, started_at=5.0).release()


@pytest.fixture
def three(spool_dir: Path) -> Spool:
    """A worker with three claimed jobs: one has ended and is not settled, one runs, one has not begun."""
    spool = Spool(spool_dir)
    spool.layout.create()
    for job_id in ("ended", "runs", "waits"):
        claimed(spool_dir, job_id)
    started(spool, "runs", "ended")
    drop_bytes(spool_dir, "ended.1.out", b"of ended\n", "logs")
    drop_bytes(spool_dir, "worker-0.out", b"of runs\n", "data/workers")
    return spool


def test_a_claimed_job_is_not_shown_the_output_of_the_job_that_runs(three: Spool) -> None:
    """The worker's file belongs to the run that was started last."""
    assert three.last_output("ended", 9) == "of ended\n"
    assert three.last_output("runs", 9) == "of runs\n"
    assert three.last_output("waits", 9) == ""


def reader_of(spool: Spool, job_id: str) -> tuple[LogReader, io.BytesIO]:
    seen = io.BytesIO()
    return LogReader(spool, job_id, 1, "out", Sink(io.TextIOWrapper(seen), raw=False)), seen


def test_what_is_read_as_the_next_job_starts_is_left_out(
    three: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at whose file it is and the read, the file may pass to the next job."""
    reader, seen = reader_of(three, "runs")
    real_output, calls = three.output, []

    def output(*words: object, **named: object) -> str | None:
        found = real_output(*words, **named)  # type: ignore[arg-type]
        calls.append(found)
        if len(calls) == 1:
            os.rename(spool_dir / "data/workers/worker-0.out", spool_dir / "logs/runs.1.out")
            started(three, "waits", "ended", "runs")
            (spool_dir / "data/workers/worker-0.out").write_bytes(b"of waits\n")
        return found

    monkeypatch.setattr(three, "output", output)
    reader.copy_new()
    reader.copy_new()
    reader.close()

    assert seen.getvalue() == b"of runs\n"


def test_a_run_that_starts_again_after_a_crash_is_shown_from_its_beginning(
    three: Spool, spool_dir: Path
) -> None:
    """It writes into another file under the same name; the follower does not skip as many bytes as it had read."""
    live = spool_dir / "data/workers/worker-0.out"
    reader, seen = reader_of(three, "runs")
    reader.copy_new()
    os.rename(live, spool_dir / "logs/runs.1.out")
    live.write_bytes(b"again, of runs\n")
    reader.copy_new()
    reader.close()

    assert seen.getvalue() == b"of runs\nagain, of runs\n"


def test_a_reader_says_that_a_log_was_cut(
    three: Spool, spool_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker cuts a log that has become too long; what the follower has not read by then is lost."""
    live = spool_dir / "data/workers/worker-0.out"
    live.write_bytes(b"x" * 100)
    reader, seen = reader_of(three, "runs")
    reader.copy_new()
    os.truncate(live, 50)
    reader.copy_new()
    with live.open("ab") as file:
        file.write(b"end")
    reader.copy_new()
    reader.close()

    assert seen.getvalue() == b"x" * 100 + b"end"
    assert "output of runs is missing here: its log was cut at log_limit" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")
@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("true", ""),
        ("echo second", "second\n"),
        ("echo second; exit 3", "second\n"),
        ("echo second; sleep 9", "second\n"),
        (["no-such-program"], ""),
    ],
)
def test_a_job_with_the_id_of_a_forgotten_one_does_not_show_its_output(
    spool_dir: Path, command: str | list[str], out: str
) -> None:
    """Whoever deletes done/a.json by hand leaves logs/a.1.err behind, and the next run 1 may write nothing there."""
    spool = Spool(spool_dir)
    spool.enqueue("echo first; echo trouble >&2", id="a")
    drain(spool_dir)
    assert spool.read_output("a", stream="err") == "trouble\n"

    (spool_dir / "done" / "a.json").unlink()
    spool.enqueue(command, id="a", timeout=0.3, max_retries=1)
    assert [spool.read_output("a", run=1, stream=stream) for stream in ("out", "err")] == ["", ""]

    drain(spool_dir)
    assert [spool.read_output("a", stream=stream) for stream in ("out", "err")] == [out, ""]


def test_the_history_says_how_much_a_run_wrote(spool_dir: Path) -> None:
    """Nothing is said where it is not known: a process that was left behind may go on writing."""
    spool = Spool(spool_dir)
    spool.enqueue("echo four; echo trouble >&2", id="a")
    spool.enqueue("sleep 0.3 & echo x", id="b")
    drain(spool_dir)

    (entry,) = spool.get("a").history
    assert (entry["stdout_bytes"], entry["stderr_bytes"]) == (5, 8)
    assert "stdout_bytes" not in spool.get("b").history[0]
    wait_until(lambda: not processes_of(spool_dir))


@pytest.mark.parametrize("kind", ["file", "empty", "missing", "link", "fifo", "folder"])
def test_output_of_another_machine_is_copied_if_it_is_a_file(spool_dir: Path, kind: str) -> None:
    """It is a stranger's word: a FIFO would be waited for, a link leads elsewhere. What is large comes whole."""
    Spool(spool_dir).enqueue("true", id="a")
    layout, job = Layout(spool_dir), Job(id="a", command="true")
    source, other = spool_dir.parent / "0.out", spool_dir.parent / "0.err"
    data = b"x" * (job_logs.CHUNK + 5) + b"end"
    other.write_bytes(data)
    if kind == "file":
        source.write_bytes(data)
    elif kind == "empty":
        source.touch()
    elif kind == "link":
        source.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(source)
    elif kind == "folder":
        source.mkdir()
    sizes = job_logs.copy_output(layout, job, [str(source), str(other)], limit=10)
    assert sizes == (len(data) if kind == "file" else 0, len(data))
    assert (spool_dir / "logs" / "a.1.err").read_bytes() == data
    assert (spool_dir / "logs" / "a.1.out").exists() == (kind == "file")
    assert (job.output or "").endswith("end")
    assert list((spool_dir / "tmp").glob(".*")) == []
