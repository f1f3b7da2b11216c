"""What is written is a file of the spool's own: through no link, under no second name; a repair stays inside, too."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.doctor import doctor
from queuectl.layout import Layout

from support import drain, drop, load, run_cli, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and modes are a Unix's")

MINE = "$QUEUECTL_SPOOL/processing/$QUEUECTL_WORKER/$QUEUECTL_JOB_ID.json"
REPLACES = {
    "link": f"ln -sf $HOME/outside {MINE}",
    "second name": f"ln -f $HOME/outside {MINE}",
    "folder": f"rm {MINE}; mkdir {MINE}",
    "pipe": f"rm {MINE}; mkfifo {MINE}",
}


@pytest.mark.parametrize("how", REPLACES)
def test_a_job_that_replaces_its_own_file_is_recorded_as_a_file(spool_dir: Path, how: str) -> None:
    """Later outcomes were written through the link into the file outside, and done/ held links that nothing lists."""
    outside = spool_dir.parent / "home" / "outside"
    outside.write_text("precious")
    spool = Spool(spool_dir)
    spool.enqueue(REPLACES[how], id="first")
    ids = list(spool.enqueue_many({"command": "true"} for _ in range(40)))
    drain(spool_dir)
    drain(spool_dir)
    assert outside.read_text() == "precious"
    assert spool.counts() == {"pending": 0, "processing": 0, "completed": 41, "failed": 0, "dead": 0}
    for job_id in ("first", *ids):
        assert stat.S_ISREG((spool_dir / "done" / f"{job_id}.json").lstat().st_mode)
        assert where_is(spool_dir, job_id) == ["done"]
    assert doctor.examine(Layout(spool_dir)) == []
    if how in ("folder", "pipe", "link"):
        notes = (spool_dir / "data" / "aside").glob("*.note")
        assert "while that job ran" in next(iter(notes)).read_text()


@pytest.mark.parametrize("name", ["out", "err"])
def test_output_is_written_through_no_link(spool_dir: Path, name: str) -> None:
    """The next job's output went into the file to which a link in place of the worker's own leads."""
    outside = spool_dir.parent / "home" / "outside"
    outside.write_text("precious")
    spool = Spool(spool_dir)
    link = f"ln -sf $HOME/outside $QUEUECTL_SPOOL/data/workers/$QUEUECTL_WORKER.{name}"
    spool.enqueue(f"echo 1; echo 1 >&2; {link}", id="first", priority=9)
    spool.enqueue("echo hello; echo hello >&2", id="next")
    drain(spool_dir)
    assert outside.read_text() == "precious"
    assert "hello" in load(spool_dir / "done" / "next.json")["output"]


@pytest.mark.parametrize("how", [os.symlink, os.link])
def test_a_second_name_in_place_of_the_output_is_deleted_first(
    spool_dir: Path, how: Callable[[Path, Path], None]
) -> None:
    """It lies there before the worker starts: the job runs, its output is kept, and the other name's content too."""
    outside = spool_dir.parent / "home" / "outside"
    outside.write_text("precious")
    spool = Spool(spool_dir)
    spool.enqueue("echo hello; echo hello >&2", id="next")
    how(outside, spool_dir / "data" / "workers" / "worker-0.out")
    drain(spool_dir)
    assert outside.read_text() == "precious"
    assert "hello" in load(spool_dir / "done" / "next.json")["output"]


@pytest.mark.parametrize("then", ["true", 'mkfifo "$f"', 'ln -s $HOME/outside "$f"', 'echo other > "$f"'])
def test_output_is_kept_after_somebody_has_moved_the_file_away(spool_dir: Path, then: str) -> None:
    """A rotation of logs, or a job. The output of all later jobs was lost, or the worker waited at a FIFO for ever."""
    outside = spool_dir.parent / "home" / "outside"
    outside.write_text("precious")
    spool = Spool(spool_dir)
    moved = f'f=$QUEUECTL_SPOOL/data/workers/$QUEUECTL_WORKER.out; sleep 0.05; mv "$f" $HOME/moved; {then}'
    spool.enqueue(moved, id="moves", priority=9)
    for word in ("hello", "world"):
        spool.enqueue(f"echo {word}", id=word)
    run_cli("--spool", spool_dir, "worker", "start", "--foreground", "--drain", expect=0, timeout=30)
    assert [load(spool_dir / "done" / f"{word}.json")["output"] for word in ("hello", "world")] == [
        "hello\n",
        "world\n",
    ]
    assert outside.read_text() == "precious"


def test_output_is_cut_through_no_link(spool_dir: Path) -> None:
    """The file outside was cut to the limit of the job's output."""
    outside = spool_dir.parent / "home" / "outside"
    outside.write_bytes(b"precious" * 2000)
    spool = Spool(spool_dir)
    spool.enqueue("ln -sf $HOME/outside $QUEUECTL_SPOOL/data/workers/$QUEUECTL_WORKER.out; sleep 0.2")
    (spool_dir / "config.yaml").write_text("log_limit: 8000\n")
    drain(spool_dir)
    assert outside.read_bytes() == b"precious" * 2000


@pytest.mark.parametrize("mode", ["666", "400"])
def test_a_job_that_opens_its_own_file_opens_that_of_no_other(spool_dir: Path, mode: str) -> None:
    """Recycled, it gave its mode to the outcomes of others, which did not run again: others may write them."""
    spool = Spool(spool_dir)
    list(spool.enqueue_many({"command": f"chmod {mode} {MINE}"} for _ in range(20)))
    list(spool.enqueue_many({"command": "true"} for _ in range(40)))
    said = drain(spool_dir)
    outcomes = list((spool_dir / "done").iterdir())
    assert len(outcomes) == 60
    assert {stat.S_IMODE(path.stat().st_mode) for path in outcomes} == {0o600}
    assert [line for line in said if line.startswith("cannot ")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="`cp -al` is GNU's")
def test_a_snapshot_of_links_stays_as_it_was(spool_dir: Path, tmp_path: Path) -> None:
    """`cp -al` in the middle of the work; recycled files were overwritten in the copy as well."""
    spool = Spool(spool_dir)
    snapshot = tmp_path / "snapshot"
    list(spool.enqueue_many({"command": "true"} for _ in range(30)))
    # It fails if a file is moved while it looks: as any copy of a folder in use.
    spool.enqueue(f"cp -al {spool_dir} {snapshot} || true", id="backup")
    list(spool.enqueue_many({"command": "true"} for _ in range(60)))
    drop(spool_dir, "check", command="true")
    copies: dict[Path, bytes] = {}

    def remember(line: str) -> None:
        if not copies and snapshot.exists() and "completed backup" in line:
            for place in ("pending", "done", "data/workers"):
                copies.update({p: p.read_bytes() for p in (snapshot / place).rglob("*.json") if p.is_file()})

    from queuectl import Worker

    Worker(spool_dir, drain=True, say=remember).run()
    assert len(copies) > 60
    assert {path: path.read_bytes() for path in copies} == copies
    assert spool.counts()["completed"] == 92


@pytest.mark.parametrize("place", ["done", "dead"])
def test_a_copy_of_an_ended_job_in_a_dead_workers_folder_is_void(spool_dir: Path, place: str) -> None:
    """It was put back to pending/, and ran again. The later state wins, in a repair as in recovery."""
    spool = Spool(spool_dir)
    spool.enqueue(f"echo ran >> {spool_dir}.runs; exit {int(place == 'dead')}", id="a", max_retries=1)
    drain(spool_dir)
    for how in ("doctor", "worker"):
        (spool_dir / "processing" / "worker-9").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(spool_dir / place / "a.json", spool_dir / "processing" / "worker-9" / "a.json")
        if how == "doctor":
            assert doctor.repair(Layout(spool_dir)) == []
        drain(spool_dir)
        assert where_is(spool_dir, "a") == [place]
    assert (spool_dir.parent / f"{spool_dir.name}.runs").read_text() == "ran\n"


def linked_settings(spool: Path, theirs: Path) -> Path:
    (theirs / "team.yaml").write_text("timeout: 30\n")
    (theirs / "team.yaml").chmod(0o664)
    (spool / "config.yaml").symlink_to(theirs / "team.yaml")
    return theirs / "team.yaml"


def second_name_of_settings(spool: Path, theirs: Path) -> Path:
    (theirs / "team.yaml").write_text("timeout: 30\n")
    (theirs / "team.yaml").chmod(0o664)
    os.link(theirs / "team.yaml", spool / "config.yaml")
    return theirs / "team.yaml"


def linked_folder(spool: Path, theirs: Path) -> Path:
    (theirs / "logs").mkdir()
    (theirs / "logs" / "unknown.1.out").write_text("theirs")
    (theirs / "logs").chmod(0o775)
    (spool / "logs").rmdir()
    (spool / "logs").symlink_to(theirs / "logs")
    return theirs / "logs"


def linked_pool(spool: Path, theirs: Path) -> Path:
    (theirs / "documents").mkdir()
    (theirs / "documents" / "thesis").write_text("theirs")
    (spool / "data" / "workers" / "worker-3.spare.1").symlink_to(theirs / "documents")
    return theirs / "documents"


@pytest.mark.parametrize(
    "link",
    [linked_settings, second_name_of_settings, linked_folder, linked_pool],
    ids=lambda one: one.__name__,
)
def test_a_repair_reaches_nothing_outside_the_spool(
    spool_dir: Path, tmp_path: Path, link: Callable[[Path, Path], Path]
) -> None:
    """It changed the mode of a team's file through a link, and emptied a folder through another."""
    Spool(spool_dir).enqueue("true", id="a", delay="1h")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    reached = link(spool_dir, theirs)
    before = [(path, path.stat().st_mode) for path in [reached, *reached.rglob("*")]]
    doctor.repair(Layout(spool_dir))
    assert [(path, path.stat().st_mode) for path in [reached, *reached.rglob("*")]] == before


def test_a_repair_says_when_the_disk_keeps_no_modes(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On FAT each chmod succeeds and changes nothing; the doctor said four times that it was repaired."""
    Spool(spool_dir).enqueue("true", id="a", delay="1h")
    (spool_dir / "pending").chmod(0o777)
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    said: list[str] = []
    left = doctor.repair(Layout(spool_dir), say=said.append)
    assert [one.kind for one in left] == ["rights"]
    assert said
    assert all(
        line.startswith(f"cannot fix {spool_dir}/pending: this filesystem keeps no modes") for line in said
    )
