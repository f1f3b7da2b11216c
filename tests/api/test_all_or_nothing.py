"""All or nothing: whoever asks for it never finds half of the jobs queued, whatever was wrong with the other half."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api import enqueue_many
from queuectl.errors import DuplicateId, InvalidJob, SpoolError, SpoolFull
from queuectl.storage import enqueue_batch
from queuectl.system import files

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

THREE: list[dict[str, Any]] = [{"id": name, "command": "true"} for name in "abc"]


def left(spool: Path) -> list[str]:
    """Every file that a refused batch might leave in the spool."""
    return sorted(path.name for folder in ("pending", "tmp") for path in (spool / folder).iterdir())


def test_all_are_queued_in_order(spool_dir: Path) -> None:
    """Without trouble it is as without the promise: all ids, all files, and the index knows them."""
    spool = Spool(spool_dir)

    assert spool.enqueue_many(THREE, all_or_nothing=True) == ["a", "b", "c"]
    assert left(spool_dir) == ["a.json", "b.json", "c.json"]
    assert [row.id for row in spool.list()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ({"command": "true", "priority": 99}, InvalidJob),
        ({"id": "a", "command": "true"}, DuplicateId),
        ({"id": "old", "command": "true"}, DuplicateId),
    ],
)
def test_one_bad_job_keeps_all_out(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, last: dict[str, Any], error: type[Exception]
) -> None:
    """A wrong field, an id that stands twice, an id that is taken in any state: found before the first is queued."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="old")
    spool.cancel("old")

    published: list[str] = []
    monkeypatch.setattr(files, "publish", lambda scratch, _target: published.append(scratch))
    with pytest.raises(error):
        spool.enqueue_many([*THREE, last], all_or_nothing=True)
    assert published == []
    assert left(spool_dir) == []
    assert [row.id for row in spool.list()] == ["old"]


def failing_at(call: int, number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """The real thing, but for one call that the disk refuses."""
    calls = iter(range(1, 1000))

    def do(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise OSError(number, os.strerror(number)) if number else KeyboardInterrupt
        return real(*args, **options)

    return do


@pytest.mark.parametrize(
    ("name", "call", "number", "error"),
    [
        ("write_new", 2, errno.ENOSPC, SpoolFull),
        ("sync_files", 1, errno.EIO, SpoolError),
        ("publish", 3, errno.ENOSPC, SpoolFull),
        ("publish", 2, errno.EEXIST, DuplicateId),
        ("sync_folder", 1, errno.EIO, SpoolError),
        ("publish", 3, 0, KeyboardInterrupt),
        ("sync_folder", 1, 0, KeyboardInterrupt),
    ],
)
def test_what_was_queued_is_taken_back_half_way(
    spool_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
    number: int,
    error: type[Exception],
) -> None:
    """Whichever step fails or is interrupted half way, no job stays behind, and the same jobs can be handed in again."""
    spool = Spool(spool_dir)
    spool.refresh()
    with monkeypatch.context() as patched:
        patched.setattr(files, name, failing_at(call, number, getattr(files, name)))
        with pytest.raises(error):
            spool.enqueue_many(THREE, all_or_nothing=True)

    assert left(spool_dir) == []
    assert sum(spool.counts().values()) == 0
    assert spool.enqueue_many(THREE, all_or_nothing=True) == ["a", "b", "c"]


def test_no_worker_starts_one_before_all_are_safe(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, workers: Callable[..., Any]
) -> None:
    """A job that ran could not be taken back: idle workers, woken by the first, must wait for the disk, too."""
    workers(2)
    spool = Spool(spool_dir)
    spool.refresh()
    real, seen = files.sync_folder, []

    def slowly(folder: str) -> None:
        with pytest.raises(AssertionError):
            support.wait_until(lambda: support.where_is(spool_dir, "a") != ["pending"], timeout=0.5)
        seen.append(sorted(os.listdir(folder)))
        real(folder)

    monkeypatch.setattr(files, "sync_folder", slowly)
    spool.enqueue_many(THREE, all_or_nothing=True)

    assert seen == [["a.json", "b.json", "c.json"]]
    support.wait_until(lambda: support.finished(spool_dir, "a", "b", "c"))


def test_more_than_fit_are_refused_before_anything(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without an end must not fill the memory: the limit is told."""
    monkeypatch.setattr(enqueue_many, "MOST_AT_ONCE", 10)

    with pytest.raises(InvalidJob, match="more than 10 jobs"):
        Spool(spool_dir).enqueue_many(({"command": "true"} for _ in range(10**9)), all_or_nothing=True)
    assert left(spool_dir) == []


def test_bad_line_of_a_file_keeps_all_of_it_out(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """On the command line the error has its place as ever, and says that nothing was queued."""
    jobs = '{"id":"a","command":"true"}\n{"id":"b","command":"true","timeout":"soon"}\n'
    (tmp_path / "jobs.ndjson").write_text(jobs)
    (tmp_path / "half.ndjson").write_text('{"id":"a","command":"true"}\n{"id":')

    bad = cli("enqueue", "--file", tmp_path / "jobs.ndjson", "--all-or-nothing", expect=1)
    half = cli("enqueue", "--file", tmp_path / "half.ndjson", "--all-or-nothing", expect=1)

    assert "jobs.ndjson line 2: invalid job: timeout: 'soon' is not a duration" in bad.stderr
    assert bad.stderr.splitlines()[0].endswith("; none was queued")
    assert half.stderr.splitlines()[0].endswith("(line 2, where the file ends); none was queued")
    assert bad.stdout + half.stdout == ""
    assert left(spool_dir) == []
    cli("enqueue", "--file", "-", "--all-or-nothing", stdin=jobs.replace("soon", "9"), expect=0)
    assert left(spool_dir) == ["a.json", "b.json"]


def test_taken_id_is_told_with_its_place(cli: Cli, spool_dir: Path) -> None:
    """Of a thousand jobs, the reader learns which one stands in the way of all."""
    cli("enqueue", "--id", "b", "true", expect=0)
    lines = '{"id":"a","command":"true"}\n{"id":"b","command":"true"}\n{"id":"c","command":"true"}\n'

    done = cli("enqueue", "--file", "-", "--all-or-nothing", stdin=lines, expect=1)

    told = "error: stdin line 2: job id 'b' is taken: that job is pending; none was queued"
    assert done.stderr.splitlines()[0] == told
    assert left(spool_dir) == ["b.json"]


def test_it_needs_many_jobs(cli: Cli) -> None:
    """For one job the flag says nothing, so it is a slip."""
    assert "works only with --file or --each" in cli("enqueue", "--all-or-nothing", "true", expect=2).stderr


def test_an_id_that_stands_twice_is_not_said_to_be_queued(cli: Cli, spool_dir: Path) -> None:
    """None of the jobs is there, so nobody can look at one."""
    jobs = spool_dir.parent / "jobs.json"
    jobs.write_text('[{"id": "a", "command": "true"}, {"id": "a", "command": "true"}]')

    refused = cli("enqueue", "--file", jobs, "--all-or-nothing", expect=1).stderr

    assert "job id 'a' is taken: that job is earlier in the same list; none was queued" in refused
    assert "hint" not in refused


def test_nobody_waits_while_the_files_are_written(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That may take long, and may be suspended; whoever is suspended with a lock keeps all others waiting."""
    spool = Spool(spool_dir)
    locked: list[tuple[str, bool, bool]] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **how: Any) -> Any:
            blocked = signal.SIGTSTP in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            locked.append((name, spool._index.in_transaction or spool._storage.holds_key_lock, blocked))
            return real(*args, **how)

        return call

    monkeypatch.setattr(enqueue_batch.Batch, "_write", watched("write", enqueue_batch.Batch._write))
    monkeypatch.setattr(files, "publish", watched("publish", files.publish))
    list(spool.enqueue_many([{"command": "true", "unique": "k"}], all_or_nothing=True))

    assert locked == [("write", False, False), ("publish", True, True)]
    assert signal.SIGTSTP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
