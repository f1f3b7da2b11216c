"""After an upgrade: an older worker is not joined by a new one, and an old spool becomes a new one by itself."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.control import registry
from queuectl.control.registration import Registration
from queuectl.doctor import doctor
from queuectl.errors import WorkerError
from queuectl.layout import Layout
from queuectl.system.host import boot_id
from queuectl.system.locks import is_locked

from support import drain, drop, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD_WORKER = """
import sys
from queuectl import Worker

worker = Worker(sys.argv[1])
worker.register()
print(flush=True)
sys.stdin.read()
"""
"""It holds the real locks of its name. What it wrote into its record is replaced by what another version writes."""


@pytest.fixture(params=[None, 7, "eight"])
def old_worker(spool_dir: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A living worker whose record has no number, or another one."""
    worker = subprocess.Popen(
        [sys.executable, "-c", OLD_WORKER, spool_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "\n"
    path = spool_dir / "data" / "workers" / "worker-0.json"
    record = json.loads(path.read_text())
    if request.param is None:
        del record[registry.SCHEMA]
    else:
        record[registry.SCHEMA] = request.param
    path.write_text(json.dumps(record))
    yield worker
    worker.kill()
    worker.communicate()


def test_a_worker_does_not_start_beside_one_of_another_version(
    old_worker: subprocess.Popen[str], spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """Both would make the index anew in turn, and the old one would start a job before its parents."""
    drop(spool_dir, "job", command="true")

    for words in ((), ("--foreground",), ("--foreground", "--count", "2")):
        refused = cli("worker", "start", "--drain", *words, expect=1)
        assert refused.stderr.splitlines() == [
            "error: cannot work beside worker-0, of another version of queuectl: both would make the index anew in turn",
            "hint: queuectl worker stop worker-0",
        ]
    [found] = [one for one in doctor.examine(Layout(spool_dir)) if one.kind == "other version"]
    assert "worker-0" in found.fact
    assert "queuectl worker stop worker-0" in found.cure
    assert registry.worker_names(Layout(spool_dir)) == ["worker-0"]

    old_worker.kill()
    old_worker.wait()
    drain(spool_dir)

    assert where_is(spool_dir, "job") == ["done"]
    assert [one for one in doctor.examine(Layout(spool_dir)) if one.kind == "other version"] == []


def test_of_two_versions_that_start_together_one_sees_the_other(spool_dir: Path) -> None:
    """The other one was not there when this one looked first. What this one has taken by then is given back."""
    layout = Layout(spool_dir)
    Spool(spool_dir).refresh()
    old = Registration.acquire(layout)
    old.announce("program")
    record = registry.read_record(layout, "worker-0")
    (spool_dir / "data" / "workers" / "worker-0.json").write_text(
        json.dumps({**record, registry.SCHEMA: 9999})
    )
    late = Registration.acquire(layout)

    with pytest.raises(WorkerError, match="worker-0, of another version"):
        late.announce("program")

    assert not is_locked(layout.worker_file("worker-1", "lock"))
    assert not os.path.exists(layout.worker_file("worker-1", "json"))
    old.release()


OLD_INDEX = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE folders(
    place TEXT PRIMARY KEY, mtime INTEGER, inode INTEGER, stamped INTEGER, scan TEXT, whole INTEGER) WITHOUT ROWID;
CREATE TABLE jobs(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL,
    ready_key INTEGER, due INTEGER, arrived INTEGER, priority INTEGER, attempts INTEGER, max_retries INTEGER,
    created_at INTEGER, updated_at INTEGER, run_at INTEGER, next_retry_at INTEGER,
    command TEXT, worker TEXT, exit_code INTEGER, last_error TEXT,
    inode INTEGER, mtime INTEGER, size INTEGER DEFAULT 0, settings TEXT, ours INTEGER,
    tags TEXT, unique_key TEXT, started_at INTEGER, finished_at INTEGER, duration INTEGER,
    behind INTEGER, expires INTEGER);
CREATE UNIQUE INDEX jobs_id ON jobs(id);
CREATE INDEX jobs_ready ON jobs(ready_key, seq) WHERE ready_key IS NOT NULL;
CREATE TRIGGER jobs_in AFTER INSERT ON jobs BEGIN SELECT 1; END;
"""
"""The tables of number 6, before there were lanes and conditions."""


def test_an_old_spool_is_upgraded_in_place(spool_dir: Path) -> None:
    """Its index says that a child can start at once, and that the folder is as it was. The files say otherwise."""
    Spool(spool_dir).refresh()
    path = spool_dir / "data" / "queuectl.db"
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()
    (spool_dir / "config.yaml").write_text("settle_time: 0\nresources: gpu=1\n")
    order = spool_dir.parent / "order"
    drop(spool_dir, "child", command=f"echo child >> {order}", after=["parent"], needs={"gpu": 1})
    drop(spool_dir, "parent", command=f"sleep 0.2; echo parent >> {order}", queue="mail")
    drop(spool_dir, "odd", command=f"echo odd >> {order}", queue="a b")
    pending = (spool_dir / "pending").stat()
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(OLD_INDEX)
    meta = {"schema": 6, "boot": boot_id(), "inode": path.stat().st_ino}
    old.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    folder = ("pending", pending.st_mtime_ns, pending.st_ino, pending.st_mtime_ns + 10**18, None, 2)
    old.execute("INSERT INTO folders VALUES (?, ?, ?, ?, ?, ?)", folder)
    old.executemany(
        "INSERT INTO jobs (id, state, place, name, ready_key, arrived) VALUES (?, 'pending', 'pending', ?, ?, ?)",
        [(name, f"{name}.json", key, key) for key, name in enumerate(("child", "odd", "parent"))],
    )
    old.close()

    drain(spool_dir)

    assert order.read_text().split() == ["parent", "child"]
    assert [where_is(spool_dir, name) for name in ("child", "parent", "odd")] == [
        ["done"],
        ["done"],
        ["dead"],
    ]
    assert "cannot be a queue" in (spool_dir / "dead" / "odd.json.reason").read_text()
    assert Spool(spool_dir).counts()["completed"] == 2
