"""`logs` of several jobs, and both streams of a run on one terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.cli.log_printer import Output, RunPrinter

from support import drain, drop_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def ran(spool: Path, job_id: str, ago: float, out: bytes, err: bytes = b"", **fields: Any) -> None:
    """Put a job into done/ that ran so many seconds ago; its stderr was written to 10 s after its stdout."""
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))
    history = [{"run": 1, "attempt": 1, "outcome": "succeeded", "started_at": began}]
    record = {"id": job_id, "command": "x", "history": history, "updated_at": began, **fields}
    drop_bytes(spool, f"{job_id}.json", json.dumps(record).encode(), "done")
    for name, data, late in (("1.out", out, 0), ("1.err", err, 10)):
        if data:
            log = drop_bytes(spool, f"{job_id}.{name}", data, "logs")
            os.utime(log, (time.time() - ago + late,) * 2)


@pytest.fixture
def night(spool_dir: Path) -> Path:
    """Two nightly jobs, one of them old, and another job."""
    ran(spool_dir, "old", 5 * 86400, b"old\n", tags=["nightly"])
    ran(spool_dir, "new", 3600, b"new", b"oops\n", tags=["nightly"])
    ran(spool_dir, "other", 3600, b"other\n")
    return spool_dir


def test_several_jobs_have_a_heading_each(cli: Cli, night: Path) -> None:
    """`logs` took one id, and `for` in the shell left no way to tell the jobs apart."""
    done = cli("logs", "old", "new", expect=0)
    head, text, *rest = done.stdout.splitlines()
    assert (head[:13], text) == ("==> old run 1", "old")
    assert (rest[0][:13], rest[1:]) == ("==> new run 1", ["new"])
    assert done.stderr == "oops\n"
    assert cli("logs", "new", "new", "--stdout", expect=0).stdout == "new"


def test_a_job_that_has_ended_is_read_once(
    night: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Its output moves no more. It was read nine times, so that the logs of two thousand jobs took ten seconds."""
    spool = Spool(night)
    job = spool.get("new")
    monkeypatch.delattr("queuectl.api.job_files.current")
    output = Output(None, raw=True)
    printer = RunPrinter(spool, job, output, None, headings=True)
    printer.print_runs([1])
    printer.close()
    output.finish()
    out, err = capfdbinary.readouterr()
    assert (out.splitlines()[1:], err) == ([b"new"], b"oops\n")


def test_filters_select_jobs_and_since_their_runs(cli: Cli, night: Path) -> None:
    """What the nightly jobs wrote in the last twelve hours."""
    done = cli("logs", "--since", "12h", "--tag", "nightly", "--stdout", expect=0)
    assert [line for line in done.stdout.splitlines() if not line.startswith("==>")] == ["new"]
    assert done.stdout.startswith("==> new run 1")
    assert cli("logs", "--tag", "nobody", expect=0).stderr == "no jobs match\n"
    assert cli("logs", "old", "other", "--since", "2h", "--stdout", expect=0).stdout.endswith("other\n")


def test_one_missing_job_does_not_hide_the_others(cli: Cli, night: Path) -> None:
    """The exit code is that of the job that was refused."""
    done = cli("logs", "gone", "other", expect=1)
    assert "other\n" in done.stdout
    assert done.stderr == "error: no job 'gone' in this spool\n"
    assert "no run 2" in cli("logs", "old", "other", "--attempt", "2", expect=1).stderr


@pytest.mark.parametrize(
    "words", [[], ["a", "--tag", "x"], ["a", "--since", "1h", "--state", "dead"]], ids=str
)
def test_ids_and_filters_do_not_mix(cli: Cli, spool_dir: Path, words: list[str]) -> None:
    """Whoever mistypes a filter must not wait for megabytes."""
    cli("logs", *words, expect=2)


def test_terminal_shows_both_streams_in_one(night: Path) -> None:
    """In the order in which they were last written to, through the pager: stderr stood before it, or was lost."""
    ran(night, "late", 60, b"a\nb\n", b"c")
    assert on_terminal("logs", "late").text == "out | a\nout | b\nerr | c"
    os.utime(night / "logs" / "late.1.err", (1, 1))
    assert on_terminal("logs", "late", env={"PAGER": "sed s/^/P/"}).text == "Perr | c\nPout | a\nPout | b\n"
    assert on_terminal("logs", "other").text == "other\n"
    assert on_terminal("logs", "late", "--stdout").text == "a\nb\n"


def test_several_jobs_are_followed_to_their_ends(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """Both at once; each change of the job has a heading, and the command ends with the last job."""
    gate = tmp_path / "gate"
    spool = Spool(spool_dir)
    spool.enqueue(f'echo a1; while [ ! -e "{gate}" ]; do sleep 0.02; done; echo a2', id="a")
    spool.enqueue("echo b1", id="b")
    words = [sys.executable, "-m", "queuectl", "logs", "-f", "a", "b", "--stdout"]
    told = tmp_path / "told"
    with told.open("wb") as file, subprocess.Popen(words, stdout=file) as follower:
        workers = [
            subprocess.Popen([sys.executable, "-m", "queuectl", "worker", "start", "--foreground", "--drain"])
            for _ in range(2)
        ]
        try:
            wait_until(lambda: b"b1" in told.read_bytes() and b"a1" in told.read_bytes())
            gate.touch()
            assert follower.wait(30) == 0
        finally:
            gate.touch()
            for worker in workers:
                worker.wait(30)
            follower.kill()
    lines = [line.split(":")[0] for line in told.read_text().splitlines()]
    assert [line for line in lines if not line.startswith("==>")] in (
        ["a1", "b1", "a2"],
        ["b1", "a1", "a2"],
    )
    assert lines[lines.index("b1") - 1].startswith("==> b run 1")
    before = lines[: lines.index("a2")]
    assert [line for line in before if line.startswith("==>")][-1].startswith("==> a run 1")


def test_marks_begin_with_the_first_stderr(spool_dir: Path) -> None:
    """Followed, a run of stdout alone needs no marks; a line that stderr breaks is ended first."""
    spool = Spool(spool_dir)
    spool.enqueue("echo one; printf two; echo three >&2", id="a")
    drain(spool_dir)
    seen = on_terminal("logs", "-f", "a").text
    assert sorted(seen.split("\n")) in (
        sorted(["out | one", "out | two", "err | three", ""]),
        sorted(["out | one", "out | two", "err | three"]),
    )
