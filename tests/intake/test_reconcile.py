"""However a file gets into pending/, it becomes one complete job, or is left alone, or goes to dead/ with a reason."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.intake import reconcile
from queuectl.intake.dropped_file import read_dropped
from queuectl.layout import is_job_name
from queuectl.system import safe_open

import support
from support import drain, drop, drop_bytes, finished, load, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Place:
    """A spool, with the folder of a producer and a list of the jobs that have run."""

    def __init__(self, root: Path) -> None:
        self.spool = root / "spool"
        self.outside = root / "outside"
        self.ran = root / "ran"
        self.outside.mkdir()
        self.ran.touch()
        Spool(self.spool).refresh()
        (self.spool / "config.yaml").write_text("settle_time: 0.7\n")

    def text(self, name: str) -> str:
        """A job that records that it has run."""
        command = f"echo {name} >> {shlex.quote(str(self.ran))}; echo {name}"
        return json.dumps({"command": command, "note": "ä"}, indent=2, ensure_ascii=False) + "\n"

    def made(self, name: str) -> Path:
        """The job as a file outside of the spool."""
        path = self.outside / f"{name}.json"
        path.write_text(self.text(name), encoding="utf-8")
        return path

    def target(self, name: str) -> Path:
        """The path in pending/ of a file with this name."""
        return self.spool / "pending" / f"{name}.json"

    def runs_of(self, name: str) -> int:
        """How often its command ran."""
        return self.ran.read_text().split().count(name)

    def must_have_run(self, name: str) -> None:
        """It ran once, its outcome is in done/, and there is no other file of it."""
        wait_until(lambda: finished(self.spool, name), message=lambda: where_is(self.spool, name))
        record = load(self.spool / "done" / f"{name}.json")
        assert (record["output"], record["state"], record["note"]) == (f"{name}\n", "completed", "ä")
        assert self.runs_of(name) == 1
        assert not self.target(name).exists()


# -- every way to drop a file --------------------------------------------------------------------------------------


def copied(place: Place, name: str) -> None:
    subprocess.run(["cp", place.made(name), place.target(name)], check=True)


def copied_with_an_old_date(place: Place, name: str) -> None:
    os.utime(place.made(name), (1_000_000_000, 1_000_000_000))
    subprocess.run(["cp", "-p", place.outside / f"{name}.json", place.target(name)], check=True)


def moved(place: Place, name: str) -> None:
    subprocess.run(["mv", place.made(name), place.target(name)], check=True)


def linked(place: Place, name: str) -> None:
    subprocess.run(["ln", place.made(name), place.target(name)], check=True)


def installed(place: Place, name: str) -> None:
    # It sets the mode at the end, when a worker may have taken the file: then it says so, and all is well.
    made, target = place.made(name), place.target(name)
    done = subprocess.run(["install", "-m", "600", made, target], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or "permissions" in done.stderr


def redirected(place: Place, name: str) -> None:
    subprocess.run(
        f"cat {shlex.quote(str(place.made(name)))} > {shlex.quote(str(place.target(name)))}",
        shell=True,
        check=True,
    )


def appended_by_a_shell(place: Place, name: str) -> None:
    """Line by line; the file is closed in between."""
    for line in place.text(name).splitlines(keepends=True):
        subprocess.run(["sh", "-c", 'printf %s "$1" >> "$2"', "sh", line, place.target(name)], check=True)
        time.sleep(0.15)


def written_slowly(place: Place, name: str) -> None:
    """Half a file, a pause of three seconds, the other half: longer than the settle time, but open all the time."""
    data = place.text(name).encode()
    with place.target(name).open("wb", buffering=0) as file:
        file.write(data[:20])
        time.sleep(3.1)
        file.write(data[20:])


def dripped(place: Place, name: str) -> None:
    """Byte by byte."""
    with place.target(name).open("wb", buffering=0) as file:
        for byte in place.text(name).encode():
            file.write(bytes([byte]))
            time.sleep(0.003)


def preallocated(place: Place, name: str) -> None:
    """A download that starts as NUL bytes and stays open until it is complete."""
    data = place.text(name).encode()
    with place.target(name).open("wb", buffering=0) as file:
        file.write(b"\0" * len(data))
        time.sleep(1)
        file.seek(0)
        file.write(data)


def created_empty_first(place: Place, name: str) -> None:
    """Create an empty file, then fill it."""
    place.target(name).touch()
    time.sleep(0.3)
    place.target(name).write_text(place.text(name), encoding="utf-8")


def saved_by_an_editor(place: Place, name: str) -> None:
    """A swap file, a backup, a temporary, a rename, and the backup stays."""
    pending = place.spool / "pending"
    (pending / f".{name}.json.swp").write_bytes(b"b0VIM 9.0")
    (pending / f"{name}.json~").write_text(place.text(name), encoding="utf-8")
    (pending / f".goutputstream-{name}").write_text(place.text(name), encoding="utf-8")
    (pending / f".goutputstream-{name}").rename(place.target(name))
    (pending / f".{name}.json.swp").unlink()


def saved_by_vim(place: Place, name: str) -> None:
    if not shutil.which("vim"):
        pytest.skip("no vim here")
    edit = [
        "vim",
        "-u",
        "NONE",
        "-i",
        "NONE",
        "-N",
        "-es",
        "-c",
        f"w {place.target(name)}",
        "-c",
        "qa!",
        str(place.made(name)),
    ]
    subprocess.run(edit, check=True, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "dumb"}, timeout=20)


def rsynced(place: Place, name: str) -> None:
    if not shutil.which("rsync"):
        pytest.skip("no rsync here")
    subprocess.run(["rsync", "-a", place.made(name), place.target(name)], check=True)


def written_as_rsync_does(place: Place, name: str) -> None:
    """A hidden name with a random ending and the old date, then a rename."""
    scratch = place.spool / "pending" / f".{name}.json.Xy12Zq"
    scratch.write_text(place.text(name), encoding="utf-8")
    time.sleep(0.1)
    os.utime(scratch, (1_000_000_000, 1_000_000_000))
    scratch.rename(place.target(name))


def uploaded_by_sftp(place: Place, name: str) -> None:
    """A .filepart name; the server renames it by a link and an unlink."""
    part = place.target(name).with_suffix(".json.filepart")
    part.write_text(place.text(name), encoding="utf-8")
    os.link(part, place.target(name))
    time.sleep(0.05)
    part.unlink()


def downloaded_by_a_browser(place: Place, name: str) -> None:
    part = place.target(name).with_suffix(".json.crdownload")
    part.write_text(place.text(name), encoding="utf-8")
    part.rename(place.target(name))


def synced_by_syncthing(place: Place, name: str) -> None:
    part = place.spool / "pending" / f".syncthing.{name}.json.tmp"
    part.write_text(place.text(name), encoding="utf-8")
    part.rename(place.target(name))


def written_by_powershell(place: Place, name: str) -> None:
    """Out-File -Encoding utf8: a BOM, and CRLF."""
    place.target(name).write_bytes(b"\xef\xbb\xbf" + place.text(name).replace("\n", "\r\n").encode())


def written_in_tmp(place: Place, name: str) -> None:
    drop_bytes(place.spool, f"{name}.json", place.text(name).encode())


def replaced(place: Place, name: str) -> None:
    """A version that is not due yet is replaced by a rename onto it."""
    place.target(name).write_text(
        '{"command": "false", "run_at": "2100-01-01T00:00:00Z", "note": "ä"}', encoding="utf-8"
    )
    time.sleep(0.2)
    place.made(name).replace(place.target(name))


WAYS: dict[str, Callable[[Place, str], None]] = {
    way.__name__: way
    for way in (
        copied, copied_with_an_old_date, moved, linked, installed, redirected, appended_by_a_shell, written_slowly, dripped,
        preallocated, created_empty_first, saved_by_an_editor, saved_by_vim, rsynced, written_as_rsync_does, uploaded_by_sftp,
        downloaded_by_a_browser, synced_by_syncthing, written_by_powershell, written_in_tmp, replaced,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def attended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A spool with two idle workers, for all tests of this module."""
    place = Place(tmp_path_factory.mktemp("attended"))
    env = {"QUEUECTL_SPOOL": str(place.spool), "HOME": str(place.outside)}
    run_cli("worker", "start", "--count", "2", env=env, expect=0)
    yield place
    support.end_workers(place.spool)


@pytest.mark.parametrize("way", WAYS)
def test_a_drop_on_idle_workers_runs_once(attended: Place, way: str) -> None:
    """In whatever way it was dropped, it runs complete, and once."""
    WAYS[way](attended, way)
    attended.must_have_run(way)


def test_drops_without_workers_wait_and_run_once_later(tmp_path: Path) -> None:
    """The same ways without a worker: all are listed as pending, and run when a worker starts."""
    place = Place(tmp_path)
    spool = Spool(place.spool)
    skipped = []

    def deliver(way: str) -> None:
        try:
            WAYS[way](place, way)
        except pytest.skip.Exception:
            skipped.append(way)

    threads = [threading.Thread(target=deliver, args=(way,)) for way in WAYS]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counts = spool.counts()  # a person who looks on meanwhile makes no difference
        assert counts["dead"] == 0
        time.sleep(0.05)
    expected = sorted(set(WAYS) - set(skipped))
    assert sorted(row.id for row in spool.list("pending")) == expected

    drain(place.spool)

    for way in expected:
        place.must_have_run(way)
    assert spool.counts() == {
        "pending": 0,
        "processing": 0,
        "completed": len(expected),
        "failed": 0,
        "dead": 0,
    }


def test_a_hundred_drops_at_once_run_once_each(attended: Place) -> None:
    """At once, with every kind of name."""
    names = [f"burst{number}" for number in range(100)]
    for name in names:
        written_in_tmp(attended, name)
    for name in names:
        attended.must_have_run(name)


def test_files_that_were_there_before_the_worker_are_seen(tmp_path: Path) -> None:
    """There are no events for them."""
    place = Place(tmp_path)
    copied(place, "early")
    drain(place.spool)
    place.must_have_run("early")


# -- everybody calls it job.json -----------------------------------------------------------------------------------


def check_ten(spool: Path) -> None:
    records = [load(path) for path in (spool / "done").iterdir()]
    assert sorted(record["output"] for record in records) == sorted(
        f"number {number}\n" for number in range(10)
    )
    assert len({record["id"] for record in records}) == 10
    assert all((spool / "done" / f"{record['id']}.json").exists() for record in records)


def test_job_json_ten_times_is_ten_jobs(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """The name is free again when the job has been claimed, and no outcome overwrites another."""
    for number in range(10):
        drop(spool_dir, "job", command=f"echo number {number}")
        drain(spool_dir)
    check_ten(spool_dir)
    assert cli("list", expect=0).stdout.count(" - completed - ") == 10


def test_job_json_ten_times_on_idle_workers_is_ten_jobs(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """The same with a producer that waits only until the name is free."""
    workers(2)
    for number in range(10):
        wait_until(lambda: not (spool_dir / "pending" / "job.json").exists())
        drop(spool_dir, "job", command=f"echo number {number}")
    wait_until(lambda: len(list((spool_dir / "done").iterdir())) == 10)
    check_ten(spool_dir)


@pytest.mark.parametrize("how", ["reindex", "deleted", "none"])
def test_a_file_with_the_id_of_a_running_job_is_refused_also_without_an_index(
    spool_dir: Path, how: str
) -> None:
    """A new index took it for the job: a worker ran both, and one was written over the file of the other."""
    drop(spool_dir, "first", id="same", command="echo first")
    spool = Spool(spool_dir)
    spool.refresh()
    row = spool._index.get("same")
    assert row is not None
    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700)
    assert support.claim_job(spool._storage, row, "worker-0") is not None
    drop(spool_dir, "second", id="same", command="echo second")

    if how == "reindex":
        spool.reindex()
    elif how == "deleted":
        (spool_dir / "data" / "queuectl.db").unlink()

    told = {(row.id, row.state, row.command) for row in Spool(spool_dir).list()}
    assert told == {("same", "processing", "echo first"), ("second", "dead", "")}
    assert "duplicate id: 'same'" in (spool_dir / "dead" / "second.json.reason").read_text()


def test_the_same_id_ten_times_is_one_job_and_nine_refusals(spool_dir: Path) -> None:
    """An id chosen by the producer is unique; the other files go to dead/ unchanged, with the reason."""
    for number in range(10):
        drop(spool_dir, f"file{number}", id="same", command=f"echo number {number}")
    drain(spool_dir)
    assert load(spool_dir / "done" / "same.json")["output"].startswith("number ")
    reasons = [path.read_text() for path in (spool_dir / "dead").glob("*.reason")]
    assert len(reasons) == 9
    assert all("duplicate id: 'same'" in reason for reason in reasons)
    assert Spool(spool_dir).counts() == {
        "pending": 0,
        "processing": 0,
        "completed": 1,
        "failed": 0,
        "dead": 9,
    }


# -- what is left alone --------------------------------------------------------------------------------------------

IGNORED = [
    ".hidden.json", "._job.json", ".job.json.swp", ".job.json.swx", "4913", "job.json~", "~job.json", "~$job.json",
    "#job.json#", ".#job.json", "job.json.bak", "job.json.orig", "job.json.part", "job.json.partial", "job.json.filepart",
    "job.json.tmp", "job.json.temp", "job.json.crdownload", "job.json.download", "job.json.opdownload", "job.json.lock",
    ".job.json.Xy12Zq", "_rsync_job.json", ".~tmp~", ".DS_Store", "Thumbs.db", "desktop.ini", ".syncthing.job.json.tmp",
    "~syncthing~job.json.tmp", "job.sync-conflict-20261122-101500-ABCDEFG.json", "job (Ada's conflicted copy 2026-11-22).json",
    ".nfs000000000001", ".goutputstream-AB12C3", "job", "job.txt", "job.yaml", "job.json5", "job.json.gz", "sedAb12Cd",
    ".fuse_hidden000", "job.json.reason",
]  # fmt: skip


@pytest.mark.parametrize("name", IGNORED)
def test_a_temporary_name_is_not_a_job_name(name: str) -> None:
    """Names used by editors, browsers, rsync, sync tools and desktops."""
    assert not is_job_name(name)


@pytest.mark.parametrize(
    "name", ["job.json", "JOB.JSON", "a b.json", "ä.json", "job (1).json", "tmp.json", "part.json", "x~.json"]
)
def test_an_ordinary_name_is_a_job_name(name: str) -> None:
    """Names that a person may choose."""
    assert is_job_name(name)


def test_a_file_whose_name_is_no_id_keeps_its_id_when_the_index_is_lost(spool_dir: Path) -> None:
    """Whoever may only look has no index that lasts: the id that `list` had shown was unknown to `show`."""
    drop(spool_dir, "x", command="true")
    drop_bytes(spool_dir, "a b.json", b'{"command": "true"}')
    drop_bytes(spool_dir, "x.json", b'{"command": "true", "id": "x"}', "dead")
    drop_bytes(spool_dir, "c d.json", b"no job at all\n", "dead")

    def ids() -> list[str]:
        return sorted(job.id for job in Spool(spool_dir).list())

    before = ids()
    shutil.rmtree(spool_dir / "data")

    assert len(before) == 4
    assert ids() == before


def test_temporary_files_are_never_taken(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    """They stay as they are while other jobs run, and become jobs when they are renamed."""
    (spool_dir / "pending").mkdir(parents=True, mode=0o700)
    spool_dir.chmod(0o700)
    for name in IGNORED:
        (spool_dir / "pending" / name).write_text('{"command": "echo taken"}')
    workers(1)
    drop(spool_dir, "real", command="true")
    wait_until(lambda: finished(spool_dir, "real"))
    assert sorted(os.listdir(spool_dir / "pending")) == sorted(IGNORED)
    assert cli("status", expect=0).stdout == (
        "jobs: {'pending': 0, 'processing': 0, 'completed': 1, 'failed': 0, 'dead': 0}\nworkers: 1 (0 busy)\n"
    )
    (spool_dir / "pending" / "job.json.crdownload").rename(spool_dir / "pending" / "job.json")
    wait_until(lambda: finished(spool_dir, "job"))


# -- not complete yet ----------------------------------------------------------------------------------------------


def test_a_half_written_file_is_never_taken(attended: Place) -> None:
    """It is left alone while it is open; others run meanwhile, and `status` reports it."""
    name = "half"
    data = attended.text(name).encode()
    env = {"QUEUECTL_SPOOL": str(attended.spool)}
    with attended.target(name).open("wb", buffering=0) as file:
        file.write(data[:-10])
        written_in_tmp(attended, "beside_half")
        attended.must_have_run("beside_half")
        end = time.monotonic() + 1.5  # twice the settling time
        while time.monotonic() < end:
            assert where_is(attended.spool, name) == ["pending"]
            time.sleep(0.05)
        status = run_cli("status", env=env, expect=0)
        assert "1 file in pending/ not complete yet" in status.stderr
        assert not (attended.spool / "dead" / f"{name}.json").exists()
        file.write(data[-10:])
    attended.must_have_run(name)
    assert "not complete" not in run_cli("status", env=env, expect=0).stderr


def test_a_clock_set_back_makes_no_file_complete(tmp_path: Path) -> None:
    """A file with a time in the future counts as new, not as old."""
    place = Place(tmp_path)
    place.target("half").write_text('{"command": ')
    drain(place.spool, now=lambda: time.time() - 0.3)
    assert where_is(place.spool, "half") == ["pending"]


BROKEN = {
    "truncated": b'{"command": "echo hi',
    "empty": b"",
    "zeroed": b"\0" * 300,
    "utf16": '\ufeff{"command": "echo hi"}'.encode("utf-16-le"),
    "latin1": '{"command": "echo ä"}'.encode("latin-1"),
    "wrong_field": b'{"command": "echo hi", "priority": 99}',
    "no_command": b"{}",
    "duplicate_keys": b'{"command": "a", "command": "b"}',
    "a_shell_script": b"#!/bin/sh\necho hi\n",
}
SAID = {
    "truncated": "not JSON", "empty": "is empty", "zeroed": "NUL", "utf16": "UTF-16; save it as UTF-8", "latin1": "not UTF-8",
    "wrong_field": "priority: must be 1 to 10, not 99", "no_command": "command: missing", "duplicate_keys": "command: is given twice",
    "a_shell_script": "not JSON",
}  # fmt: skip


@pytest.mark.parametrize("attend", [True, False], ids=["idle workers", "no workers"])
def test_an_invalid_file_is_rejected_corrected_and_run(
    spool_dir: Path,
    workers: Callable[..., Any],
    cli: Callable[..., subprocess.CompletedProcess[str]],
    attend: bool,
) -> None:
    """It goes to dead/ unchanged with the reason beside it, is listed, and runs when it has been corrected and put back."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0.5\n")
    if attend:
        workers(2)
    for name, data in BROKEN.items():
        (spool_dir / "pending" / f"{name}.json").write_bytes(data)
    drop(spool_dir, "healthy", command="true")

    def look() -> bool:
        if not attend:
            Spool(spool_dir).refresh()
        return all(where_is(spool_dir, name) == ["dead"] for name in BROKEN)

    wait_until(look)
    listed = {row["id"]: row for row in json.loads(cli("dlq", "list", "--json", expect=0).stdout)}
    plain = cli("dlq", "list", expect=0).stdout
    for name, data in BROKEN.items():
        assert (spool_dir / "dead" / f"{name}.json").read_bytes() == data
        reason = (spool_dir / "dead" / f"{name}.json.reason").read_text().strip()
        assert SAID[name] in reason
        assert "\n" not in reason
        assert (listed[name]["last_error"], listed[name]["state"]) == (reason, "dead")
        assert f"{name} - " in plain
        assert Spool(spool_dir).get(name).last_error == reason
    assert set(listed) == set(BROKEN)
    assert SAID["utf16"] in cli("show", "utf16", expect=0).stdout

    for name in BROKEN:  # mended with an editor, moved back with mv
        path = spool_dir / "dead" / f"{name}.json"
        path.write_text(f'{{"command": "echo mended {name}"}}')
        subprocess.run(["mv", path, spool_dir / "pending" / path.name], check=True)
    if not attend:
        drain(spool_dir)
    wait_until(lambda: finished(spool_dir, "healthy", *BROKEN))
    for name in BROKEN:
        assert load(spool_dir / "done" / f"{name}.json")["output"] == f"mended {name}\n"
    counts = f"'completed': {len(BROKEN) + 1}, 'failed': 0, 'dead': 0"
    assert counts in cli("status", expect=0).stdout
    assert cli("dlq", "list", expect=0).stdout == ""
    assert os.listdir(spool_dir / "dead") == []


def test_a_reason_goes_when_its_file_is_deleted(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """It was deleted by hand; a reason alone would be confusing."""
    drop_bytes(spool_dir, "bad.json", b"{}")
    Spool(spool_dir).refresh()
    wait_until(lambda: cli("list", expect=0).stdout.startswith("bad - dead"))
    (spool_dir / "dead" / "bad.json").unlink()
    assert cli("list", expect=0).stdout == ""
    assert os.listdir(spool_dir / "dead") == []


def test_a_corrected_file_with_another_id_leaves_nothing_of_the_old_one(
    spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """It is moved back by mv and holds another id."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "bad.json", b"{}")
    assert cli("list", expect=0).stdout == "bad - dead - \n"
    path = spool_dir / "dead" / "bad.json"
    path.write_text('{"id": "good", "command": "true"}')
    path.rename(spool_dir / "pending" / "bad.json")
    drain(spool_dir)
    assert cli("list", expect=0).stdout == "good - completed - true\n"
    assert os.listdir(spool_dir / "dead") == []


def test_a_fault_of_the_disk_rejects_nothing_and_is_tried_again(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be read once is read the next time."""
    drop(spool_dir, "job", command="true")
    spool = Spool(spool_dir)
    real = safe_open.read_regular

    def fail(path: str, limit: int) -> Any:
        if path.endswith("job.json"):
            raise OSError(5, "Input/output error", path)
        return real(path, limit)

    monkeypatch.setattr(safe_open, "read_regular", fail)
    assert spool.counts()["dead"] == 0
    monkeypatch.undo()
    time.sleep(0.05)
    assert spool.counts()["pending"] == 1


def test_a_lost_file_beside_a_broken_one_is_not_listed(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """One job is deleted and one invalid file dropped: the number of files is the same, the files are not."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop(spool_dir, "gone", command="true")
    drop(spool_dir, "kept", command="true")
    assert cli("list", expect=0).stdout == "gone - pending - true\nkept - pending - true\n"
    (spool_dir / "pending" / "gone.json").unlink()
    drop_bytes(spool_dir, "bad.json", b"{}")
    assert sorted(cli("list", expect=0).stdout.splitlines()) == ["bad - dead - ", "kept - pending - true"]


def test_a_deleted_outcome_beside_a_copied_one_is_not_listed(
    spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """A copy of another outcome under a new name is not a second job, and does not hide the deletion."""
    for name in ("a", "b"):
        drop(spool_dir, name, command="true")
    drain(spool_dir)
    assert cli("status", expect=0).stdout.count("'completed': 2")
    shutil.copy(spool_dir / "done" / "a.json", spool_dir / "done" / "backup of a.json")
    (spool_dir / "done" / "b.json").unlink()
    assert cli("list", expect=0).stdout == "a - completed - true\n"


def test_a_chunk_boundary_loses_nothing(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan reads a folder in chunks."""
    monkeypatch.setattr(reconcile, "CHUNK", 7)
    monkeypatch.setattr(reconcile, "LARGE_CHUNK", 7)
    for number in range(50):
        drop(spool_dir, f"job{number}", command="true")
    spool = Spool(spool_dir)
    assert spool.counts()["pending"] == 50
    for number in range(0, 50, 3):
        (spool_dir / "pending" / f"job{number}.json").unlink()
    drop(spool_dir, "one more", command="true")
    assert spool.counts()["pending"] == 50 - 17 + 1


def test_a_drop_right_after_a_bad_file_is_not_overlooked(attended: Place) -> None:
    """The worker is about to move the invalid file away and could take the change of the folder's time for its own."""
    for number in range(30):
        (attended.spool / "pending" / f"bad{number}.json").mkdir()
        time.sleep(number % 10 * 0.0004)
        written_in_tmp(attended, f"behind{number}")
        wait_until(lambda number=number: finished(attended.spool, f"behind{number}"), timeout=8)  # type: ignore[misc]


# -- producers that die ----------------------------------------------------------------------------------------------

PRODUCER = """
import sys
from queuectl import Spool
spool = Spool(sys.argv[1])
for number in range(100_000):
    print(spool.enqueue({"command": "true", "note": "x" * 3000}).id, flush=True)
"""


def test_producers_killed_while_writing_leave_complete_files_only(spool_dir: Path) -> None:
    """SIGKILL at any time, several at once: every acknowledged job is there, and every file is a complete job."""
    told: list[str] = []
    for round_ in range(4):
        producers = [
            subprocess.Popen(
                [sys.executable, "-c", PRODUCER, str(spool_dir)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for producer in producers:
            assert producer.stdout
            told.append(producer.stdout.readline().strip())  # it is at it now
        time.sleep(0.02 + 0.013 * round_)
        for producer in producers:
            producer.kill()
            # Its last line may be cut short by the kill.
            told += [
                line.strip()
                for line in producer.communicate()[0].splitlines(keepends=True)
                if line.endswith("\n")
            ]
    found = {path.stem: load(path) for path in (spool_dir / "pending").iterdir()}
    assert len(told) >= 8
    assert set(told) <= set(found)
    assert all(record["note"] == "x" * 3000 for record in found.values())
    assert Spool(spool_dir).counts()["pending"] == len(found)


def test_a_job_claimed_during_a_scan_for_edits_ends_no_worker(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two queries about known files another worker may claim one of them."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.refresh()
    ask = spool._index.at

    def claimed_before(place: str, names: list[str]) -> dict[str, Any]:
        spool._index.drop("a")
        return ask(place, names)

    monkeypatch.setattr(spool._index, "at", claimed_before)

    list(spool._intake.edits())


def test_a_retry_that_comes_back_before_its_copy_is_rejected_stays(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was read just before its claim looks like a second copy of the running job, which may fail at once."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    (spool_dir / "pending" / "other.json").write_text('{"id": "a", "command": "true"}')
    move_to_dead = spool._intake.admission.move_to_dead

    def after_a_change(*arguments: Any) -> None:
        drop_bytes(spool_dir, "other.json", b'{"id": "b", "command": "true"}')
        move_to_dead(*arguments)

    monkeypatch.setattr(spool._intake.admission, "move_to_dead", after_a_change)
    spool.refresh()
    monkeypatch.undo()

    drain(spool_dir)
    assert where_is(spool_dir, "other") == []
    assert finished(spool_dir, "a", "b")
    assert not list((spool_dir / "dead").iterdir())


def test_an_incomplete_file_counts_as_complete_only_when_it_has_stood_still(tmp_path: Path) -> None:
    """Just after its last change, long after it, and with a clock that was set back by much or by little."""
    path = tmp_path / "a.json"
    path.write_text('{"command": "tr')
    changed = path.stat().st_ctime_ns // 1000
    moments = {
        "at once": 0,
        "too early": 1_900_000,
        "late": 2_100_000,
        "set back": -1_900_000,
        "far back": -9_000_000,
    }

    grows = {
        when: read_dropped(str(path), changed + later, settle_time=2).incomplete
        for when, later in moments.items()
    }

    assert grows == {"at once": True, "too early": True, "late": False, "set back": True, "far back": False}
