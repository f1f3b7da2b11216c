"""What is kept and what goes: by age, by number, never what has changed, and whole records at every moment."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Settings, Spool, Worker
from queuectl.config import settings as config
from queuectl.index.index import Index
from queuectl.job import times
from queuectl.layout import Layout
from queuectl.storage import dead_letters, growth, retention
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id
from queuectl.worker import maintenance

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.index.row import Row

    Cli = Callable[..., subprocess.CompletedProcess[str]]

DAY = 86400.0


@pytest.fixture
def filled(spool_dir: Path) -> Spool:
    """Jobs that ended well, the oldest first: done0 10 days ago, done1 9 days ago … done9 yesterday; dead likewise."""
    spool = Spool(spool_dir)
    for number in range(10):
        moment = time.time() - (10 - number) * DAY
        spool.enqueue(f"echo {number}", id=f"done{number}")
        spool.enqueue(f"echo {number} >&2; exit 1", id=f"dead{number}", max_retries=1)
        support.drain(spool_dir, now=lambda moment=moment: moment)  # type: ignore[misc]
        age(spool_dir, f"done{number}", moment)
        age(spool_dir, f"dead{number}", moment)
    spool.enqueue("true", id="waits", hold=True)
    spool.refresh()
    assert spool.counts() == {"pending": 1, "processing": 0, "completed": 10, "failed": 0, "dead": 10}
    return spool


def age(spool_dir: Path, job_id: str, moment: float) -> None:
    """Have the index and the logs say that a job ended then: a file's change time cannot be set."""
    for log in (spool_dir / "logs").glob(f"{job_id}.*"):
        os.utime(log, (moment, moment))
    index = Index(Layout(spool_dir).index, str(spool_dir), boot_id())
    index.open()
    values = (round(moment * 1e6), round(moment * 1e6), job_id)
    index.db.execute("UPDATE jobs SET updated_at = ?, arrived = ? WHERE id = ?", values)
    index.close()


def left(spool: Spool, state: str) -> str:
    """The numbers of the jobs of a state that are left."""
    return "".join(sorted(row.id[-1] for row in spool.list(state)))


def logs_of(spool_dir: Path) -> str:
    """The jobs that have a file in logs/, done ones by digits, dead ones by letters."""
    names = {path.name.partition(".")[0] for path in (spool_dir / "logs").iterdir()}
    digits = (name[-1] if name.startswith("done") else "abcdefghij"[int(name[-1])] for name in names)
    return "".join(sorted(digits))


@pytest.fixture
def kept(spool_dir: Path) -> Callable[..., list[str]]:
    """Apply settings as a worker does, to the end; returns what it said."""

    def apply(**settings: int | str) -> list[str]:
        layout = Layout(spool_dir)
        index = Index(layout.index, layout.root, boot_id())
        index.open()
        said: list[str] = []
        try:
            worker = retention.Retention(Storage(layout, index), said.append)
            while not worker.look(Settings(**settings)):  # type: ignore[arg-type]
                pass
        finally:
            index.close()
        return said

    return apply


# -- what a worker deletes by itself ---------------------------------------------------------------------------------


def test_nothing_goes_unless_somebody_says_so(filled: Spool, kept: Callable[..., list[str]]) -> None:
    """The built-in settings keep everything."""
    assert kept() == []

    assert (left(filled, "completed"), left(filled, "dead")) == ("0123456789", "0123456789")


def test_what_is_older_than_an_age_goes_with_its_output(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """keep_done is about done jobs alone; a waiting job of any age stays."""
    age(spool_dir, "waits", time.time() - 1000 * DAY)

    said = kept(keep_done="3.5d")

    assert left(filled, "completed") == "789"
    assert left(filled, "dead") == "0123456789"
    assert logs_of(spool_dir) == "789abcdefghij"
    assert filled.get("waits").state == "pending"
    assert said[0].startswith("deleted what is not to be kept: 7 done jobs and 7 log files (")


def test_of_more_than_a_number_the_oldest_go(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """By the moment at which they ended, not by that of their arrival."""
    age(spool_dir, "done0", time.time())

    kept(keep_done=3, keep_dead=0)

    assert left(filled, "completed") == "089"
    assert left(filled, "dead") == ""
    assert logs_of(spool_dir) == "089"


@pytest.mark.parametrize(
    ("keep", "logs"), [("3.5d", "789hij"), (6, "789hij"), (0, ""), (100, "0123456789abcdefghij")]
)
def test_output_goes_and_the_records_stay(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]], cli: Cli, keep: int | str, logs: str
) -> None:
    """keep_logs is about files in logs/; who asks for output that is gone is told."""
    kept(keep_logs=keep)

    assert logs_of(spool_dir) == logs
    assert len(filled.list()) == 21
    if keep == 0:
        told = cli("logs", "done3", expect=None)
        assert "the logs of job done3 were deleted" in told.stderr


def test_what_has_just_ended_stays_for_a_moment(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """Even if nothing is to be kept: a worker that dies now finds by the outcome that the job has run."""
    age(spool_dir, "done9", time.time() - retention.KEPT_AT_LEAST / 2)

    kept(keep_done=0)

    assert left(filled, "completed") == "9"


def test_what_has_changed_meanwhile_stays(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """A dead job that somebody is mending, or has moved away and back, is not the file that the index saw."""
    path = spool_dir / "dead" / "dead1.json"
    path.write_text(path.read_text().replace("exit 1", "exit 0"))

    kept(keep_dead=0)

    assert left(filled, "dead") == "1"
    assert "b" in logs_of(spool_dir)


def test_what_changes_at_the_last_moment_stays(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the file and its end: it is looked at again where no storage of ours can come between."""
    path = spool_dir / "dead" / "dead1.json"
    looked = retention._runs

    def look(layout: Layout, row: Row) -> int | None:
        found = looked(layout, row)
        if row.id == "dead1":
            path.write_text(path.read_text() + "\n")
        return found

    monkeypatch.setattr(retention, "_runs", look)
    kept(keep_dead=0)

    assert path.exists()


def test_what_cannot_be_read_as_a_job_stays(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """Nothing that cannot be parsed is deleted, and it does not keep those behind it from going."""
    for number in range(250):
        support.drop_bytes(spool_dir, f"odd{number}.json", b"{", folder="dead")
    filled.refresh()
    for number in range(250):
        age(spool_dir, f"odd{number}", 1000.0)

    kept(keep_dead="1h")

    assert {row.id[:3] for row in filled.list("dead")} == {"odd"}
    assert len(filled.list("dead")) == 250


def test_a_job_given_up_by_hand_counts_from_then(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]]
) -> None:
    """It may have waited for a year: what counts is when it came to dead/."""
    path = spool_dir / "pending" / "waits.json"
    long_ago = times.iso(time.time() - 400 * DAY)
    path.write_text(json.dumps({**support.load(path), "created_at": long_ago, "updated_at": long_ago}))
    path.rename(spool_dir / "dead" / "waits.json")
    filled.refresh()

    kept(keep_dead="30d")

    assert filled.get("waits").state == "dead"


def test_a_worker_keeps_to_the_settings_beside_its_work(
    filled: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """`config set` is enough; a running worker sees it, and goes on with its jobs."""
    monkeypatch.setattr(maintenance, "EVERY", 0.1)
    monkeypatch.setattr(retention, "SLICE", 0.001)
    worker = Worker(spool_dir)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        cli("config", "set", "keep_done", "2", expect=0)
        support.wait_until(lambda: left(filled, "completed") == "89")
        filled.enqueue("true", id="new")
        support.wait_until(lambda: support.finished(spool_dir, "new"))
    finally:
        worker.stop()
        thread.join()


def test_dying_in_the_middle_leaves_whole_records(
    filled: Spool, spool_dir: Path, kept: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logs go before the record, so none is left that belongs to nobody; the next time goes on from there."""

    def die(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dead_letters, "forget", die)
        with pytest.raises(KeyboardInterrupt):
            kept(keep_done=5)
    assert left(filled, "completed") == "0123456789"
    assert logs_of(spool_dir) == "123456789abcdefghij"

    kept(keep_done=5)

    assert left(filled, "completed") == "56789"


def test_a_slice_is_short_and_the_next_one_goes_on(filled: Spool, spool_dir: Path) -> None:
    """A worker has jobs to run: after its slice it stops, in the middle of anything."""
    layout = Layout(spool_dir)
    index = Index(layout.index, layout.root, boot_id())
    index.open()
    worker = retention.Retention(Storage(layout, index), lambda _: None)
    looks = 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retention, "SLICE", 0.0)
        while not worker.look(Settings(keep_done=2, keep_logs=4)):
            looks += 1
    index.close()

    assert looks > 8
    assert left(filled, "completed") == "89"
    assert len(logs_of(spool_dir)) == 4


# -- what a person deletes -------------------------------------------------------------------------------------------


def test_purge_says_what_would_go_and_asks(filled: Spool, spool_dir: Path, cli: Cli) -> None:
    """Count and bytes come first, with --dry-run alone; without a terminal nothing goes unless --yes was given."""
    would = cli("purge", "--older-than", "4.5d", "--dry-run", expect=0).stdout
    assert would.startswith("Would delete 6 done jobs and 6 dead jobs and 12 log files (")

    refused = cli("purge", "--older-than", "4.5d", expect=1)
    assert "to be deleted: 6 done jobs and 6 dead jobs and 12 log files (" in refused.stderr
    assert len(filled.list()) == 21

    done = cli("purge", "--older-than", "4.5d", "--yes", expect=0)
    assert done.stdout == would.replace("Would delete", "Deleted")
    assert (left(filled, "completed"), left(filled, "dead")) == ("6789", "6789")
    assert logs_of(spool_dir) == "6789ghij"
    assert cli("purge", "--older-than", "4.5d", expect=0).stdout == "Nothing to delete\n"


def test_purge_takes_state_number_tag_and_logs(filled: Spool, spool_dir: Path, cli: Cli) -> None:
    """Each narrows down what goes; --json tells the numbers."""
    told = json.loads(cli("purge", "--keep", "8", "--state", "dead", "--yes", "--json", expect=0).stdout)
    assert (told["done"], told["dead"], told["logs"], told["dry_run"]) == (0, 2, 2, False)
    assert (left(filled, "completed"), left(filled, "dead")) == ("0123456789", "23456789")

    told = json.loads(
        cli("purge", "--keep", "0", "--command", "echo 7", "--dry-run", "--json", expect=0).stdout
    )
    assert (told["done"], told["dead"], told["bytes"] > 100) == (1, 1, True)

    cli("purge", "--older-than", "1h", "--logs-only", "--yes", expect=0)
    assert logs_of(spool_dir) == ""
    assert len(filled.list()) == 19
    assert (
        cli("purge", "--older-than", "1h", "--logs-only", "--yes", expect=0).stdout == "Nothing to delete\n"
    )


def test_purge_from_python_counts_as_well(filled: Spool) -> None:
    """The same with numbers; both limits must allow it."""
    would = filled.purge(older_than="4.5d", keep=5, dry_run=True)
    gone = filled.purge(older_than="4.5d", keep=5)

    assert gone == would
    assert (gone.completed, gone.dead, gone.jobs, gone.logs) == (5, 5, 10, 10)
    assert left(filled, "completed") == "56789"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give --older-than TIME"),
        (["--older-than", "soon"], "--older-than"),
        (["--keep", "-1"], "--keep"),
        (["--keep", "1", "--state", "pending"], "have not ended"),
    ],
)
def test_purge_refuses_what_makes_no_sense(cli: Cli, args: list[str], said: str) -> None:
    """One line, exit code 2, nothing deleted."""
    assert said in cli("purge", *args, expect=2).stderr


@pytest.mark.parametrize("value", ["forever", "-3", "1.5", "", "30x", "true"])
@pytest.mark.parametrize("key", ["keep_done", "keep_logs"])
def test_a_setting_that_is_neither_age_nor_number_is_refused(cli: Cli, key: str, value: str) -> None:
    """A slip here would delete things."""
    assert (
        "must be an age" in (told := cli("config", "set", key, "--", value, expect=2).stderr)
        or "duration" in told
    )


@pytest.mark.parametrize(("value", "shown"), [("30d", "30d"), ("1000", "1000"), ("0", "0"), ("12h", "12h")])
def test_a_setting_says_what_was_set(cli: Cli, spool_dir: Path, value: str, shown: str) -> None:
    """An age stays an age and a number a number, in the file and in what is read from it."""
    assert cli("config", "set", "keep_dead", value, expect=0).stdout == f"keep_dead = {shown}\n"

    keep = config.load(Layout(spool_dir))[0].keep_dead
    assert str(keep) == value
    assert isinstance(keep, int) == value.isdigit()


def test_status_says_what_has_grown_large(filled: Spool, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what nothing deletes, and how to have it deleted; by number or by bytes."""
    assert not [note for note in filled.notes() if "holds" in note]

    monkeypatch.setattr(growth, "LARGE", 9)
    # An object goes on to say for a while what it has counted.
    notes = [note for note in Spool(filled.layout.root).notes() if "holds" in note]
    assert [note.split("/")[0] for note in notes] == ["done", "dead", "logs"]
    assert notes[0].startswith("done/ holds 10 jobs, about ")
    assert notes[0].endswith("nothing is ever deleted there: queuectl config set keep_done 30d")
    cli("config", "set", "keep_done", "30d", expect=0)
    assert len([note for note in filled.notes() if "holds" in note]) == 2
    monkeypatch.setattr(growth, "LARGE", 10**6)
    monkeypatch.setattr(growth, "LARGE_BYTES", 30)
    assert [note.split("/")[0] for note in filled.notes() if "holds" in note] == ["dead", "logs"]


def test_a_number_to_keep_is_counted_among_the_jobs_that_are_described(cli: Cli, spool_dir: Path) -> None:
    """Two of three backups stay, however many other jobs have ended since."""
    spool = Spool(spool_dir)
    for number in range(3):
        spool.enqueue("true", id=f"backup{number}", tags=["backup"])
    for number in range(3):
        spool.enqueue("true", id=f"other{number}")
    support.drain(spool_dir)

    would = cli("purge", "--keep", "2", "--tag", "backup", "--dry-run", expect=0).stdout
    cli("purge", "--keep", "2", "--tag", "backup", "--yes", expect=0)

    assert would.startswith("Would delete 1 done job (")
    assert sorted(path.stem for path in (spool_dir / "done").iterdir()) == [
        "backup1",
        "backup2",
        *(f"other{number}" for number in range(3)),
    ]


def test_a_job_of_which_a_worker_has_a_file_is_not_purged(spool_dir: Path) -> None:
    """After a crash in the middle of a settle the job would run again, once its outcome is gone."""
    spool = Spool(spool_dir)
    for name in ("a", "b"):
        spool.enqueue("true", id=name)
    support.drain(spool_dir)
    support.drop_bytes(spool_dir, "a.json", b'{"command": "true"}', "processing/worker-7")

    assert spool.purge(keep=0).completed == 1
    assert [path.stem for path in (spool_dir / "done").iterdir()] == ["a"]
