"""Without --repair the doctor changes nothing, byte for byte, and reports all that it would change."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.doctor import doctor
from queuectl.layout import Layout

from support import content, drain, drop, drop_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

HELD = """
import os, sys
from queuectl import Spool
spool = Spool(sys.argv[1])
spool.enqueue("true", id="held")
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spool(spool_dir: Path) -> Path:
    (spool_dir).mkdir(mode=0o700)
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    (spool_dir / "config.yaml").chmod(0o600)
    made = Spool(spool_dir)
    made.enqueue("true", id="fine")
    drain(spool_dir)
    made.enqueue("true", id="ok", delay="1h")
    made._index.close()
    return spool_dir


def second_copy(spool: Path) -> str:
    shutil.copy(spool / "pending" / "ok.json", spool / "pending" / "copy of ok.json")
    return "job ok is in pending/ok.json and in pending/copy of ok.json"


def bad_priority(spool: Path) -> str:
    drop(spool, "p99", command="true", priority=99)
    return "pending/p99.json is not a valid job, so nothing will run it: invalid job: priority: "


def finished_again(spool: Path) -> str:
    shutil.copy(spool / "done" / "fine.json", spool / "pending" / "fine.json")
    return "job fine is in done/fine.json and in pending/fine.json"


def bytes_of_no_job(spool: Path) -> str:
    drop_bytes(spool, "odd.json", b"\0\0\0")
    return "pending/odd.json is not a valid job"


def link_in_pending(spool: Path) -> str:
    (spool / "pending" / "link.json").symlink_to(spool / "done" / "fine.json")
    return "pending/link.json is not a valid job, so nothing will run it: a symbolic link, not a file"


def damaged_index(spool: Path) -> str:
    with (spool / "data" / "queuectl.db").open("r+b") as file:
        file.seek(0)
        file.write(b"not a database at all")
    return "data/queuectl.db is damaged"


def index_is_a_link(spool: Path) -> str:
    (spool / "data" / "queuectl.db").rename(spool / "elsewhere.db")
    (spool / "data" / "queuectl.db").symlink_to(spool / "elsewhere.db")
    return "data/queuectl.db is damaged: the file is a link"


FAULTS = [
    second_copy, bad_priority, finished_again, bytes_of_no_job, link_in_pending, damaged_index, index_is_a_link,
]  # fmt: skip


@pytest.mark.parametrize("damage", FAULTS)
def test_an_examination_reports_and_changes_nothing(spool: Path, damage: Callable[[Path], str]) -> None:
    """It moved files to dead/, and rewrote the index, before it looked. A repair then leaves nothing to report."""
    fact = damage(spool)
    before = content(spool)
    found = doctor.examine(Layout(spool))
    assert content(spool) == before
    assert any(fact in one.fact and not one.harmless for one in found), found
    done: list[str] = []
    assert [one for one in doctor.repair(Layout(spool), say=done.append) if not one.harmless] == []
    assert done
    assert not any("cannot" in line for line in done)


def test_the_command_says_so_too(cli: Cli, spool: Path) -> None:
    """Exit code 1, and both files named."""
    second_copy(spool)
    bad_priority(spool)
    before = content(spool)
    told = cli("doctor", expect=1).stdout
    assert content(spool) == before
    assert "pending/copy of ok.json" in told
    assert "pending/p99.json" in told
    assert "nothing is wrong" not in told


@pytest.mark.skipif(sys.platform == "win32", reason="kills as a Unix does")
def test_the_journal_of_a_killed_process_is_read_and_left(spool: Path) -> None:
    """SQLite would write the journal into the index, and delete it. In it is a row that the index must have."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD, spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert (spool / "data" / "queuectl.db-wal").stat().st_size
    before = content(spool)
    assert doctor.examine(Layout(spool)) == []
    assert content(spool) == before


def test_a_file_that_is_being_written_is_no_fault(spool: Path) -> None:
    """Nor is an incomplete one from a moment ago moved by a repair."""
    with (spool / "pending" / "half.json").open("w") as file:
        file.write('{"command": ')
        file.flush()
        assert doctor.examine(Layout(spool)) == []
    (spool / "config.yaml").write_text("settle_time: 600\n")
    [found] = doctor.repair(Layout(spool))
    assert found.where == "pending/half.json"
    assert not found.repairable
    assert (spool / "pending" / "half.json").exists()


@pytest.mark.parametrize("place", ["pending", "dead"])
@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_name_too_long_for_its_reason_is_shortened(spool: Path, place: str, letter: str) -> None:
    """The doctor promised a reason beside it, again after each repair, and no disk can hold that name."""
    name = letter * (250 // len(letter.encode())) + ".json"
    (spool / place / name).write_bytes(b"no job")
    assert doctor.repair(Layout(spool)) == []
    [reason] = (spool / "dead").glob("*.reason")
    rejected = reason.with_suffix("")
    assert rejected.read_bytes() == b"no job"
    assert rejected.name.startswith(letter * 90)
    assert len(os.fsencode(reason.name)) <= 255


def test_a_second_name_of_the_index_is_not_written(spool: Path, tmp_path: Path) -> None:
    """As `cp -al` makes one: the index of the copy would be changed with it, while its folders stay as they were."""
    os.link(spool / "data" / "queuectl.db", tmp_path / "copy.db")
    before = (tmp_path / "copy.db").read_bytes()
    made = Spool(spool)
    made.enqueue("true", id="later", delay="1h")
    assert made.counts()["pending"] == 2
    made.close()  # only now is the write-ahead log copied into the file
    assert (tmp_path / "copy.db").read_bytes() == before
    with closing(sqlite3.connect(spool / "data" / "queuectl.db")) as db:
        assert db.execute("SELECT count(*) FROM jobs WHERE id = 'later'").fetchone() == (1,)
    wait_until(lambda: doctor.examine(Layout(spool)) == [])
