"""The queue operated with mv, rm, cp and an editor alone, and the command line that tells the truth afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.system import files

from support import drain, drop, drop_bytes, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

FAR = "2100-01-01T00:00:00Z"
NOBODY = {"pending": 0, "processing": 0, "completed": 0, "failed": 0, "dead": 0}


@pytest.fixture(params=["idle workers", "no workers"])
def settle(request: pytest.FixtureRequest, spool_dir: Path) -> Callable[[], None]:
    """Let what is due run: by workers that wait all the time, or by one that comes when it is called."""
    Spool(spool_dir).refresh()
    if request.param == "idle workers":
        request.getfixturevalue("workers")(2)

        def wait() -> None:
            spool = Spool(spool_dir)
            wait_until(lambda: not any(is_due(path) for path in (spool_dir / "pending").glob("*.json")))
            wait_until(lambda: spool.counts()["processing"] == 0)

        return wait

    def run() -> None:
        drain(spool_dir)

    return run


def is_due(path: Path) -> bool:
    try:
        record = load(path)
    except (FileNotFoundError, ValueError):
        return True
    due = record.get("next_retry_at") or record.get("run_at") or 0
    return isinstance(due, int) and due <= time.time()


def ask(*commands: list[str]) -> list[Any]:
    """What these commands print as JSON; in one process, as starting one each is what takes the time."""
    code = (
        "import json, sys\nfrom queuectl.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n    print(main([*words, '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    found, rest = [], done.stdout
    for _ in commands:
        value, end = json.JSONDecoder().raw_decode(rest)
        assert rest[end:].startswith("\n0\n"), done
        found.append(value)
        rest = rest[end + 3 :]
    return found


def tells(**states: str) -> None:
    """Status, list, show and dlq list must say of each of these jobs, and of no others, that it is in that state."""
    counts = dict(NOBODY)
    for state in states.values():
        counts[state] += 1
    shows = [["show", name] for name in states]
    status, listed, dead, *shown = ask(["status"], ["list"], ["dlq", "list"], *shows)
    assert status["jobs"] == counts
    assert {row["id"]: row["state"] for row in listed} == states
    assert {row["id"] for row in dead} == {name for name, state in states.items() if state == "dead"}
    assert {job["id"]: job["state"] for job in shown} == states


def later(spool: Path, name: str, **fields: Any) -> Path:
    """A job that waits for its moment, so that workers leave it alone."""
    return drop(spool, name, run_at=FAR, **{"command": f"echo {name}", **fields})


def hand(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def test_drop_is_enqueue_and_delete_is_forget(spool_dir: Path, cli: Cli, settle: Callable[[], None]) -> None:
    """From pending/, done/ and dead/, one after the other."""
    drop(spool_dir, "good", command="true")
    drop(spool_dir, "bad", command="false", max_retries=1)
    later(spool_dir, "late")
    settle()
    tells(good="completed", bad="dead", late="pending")

    hand("rm", spool_dir / "pending" / "late.json")
    tells(good="completed", bad="dead")
    hand("rm", spool_dir / "done" / "good.json")
    tells(bad="dead")
    hand("rm", spool_dir / "dead" / "bad.json")
    tells()
    assert cli("show", "bad").returncode == 1

    drop(spool_dir, "good", command="echo again")  # the name is free
    settle()
    tells(good="completed")
    assert len(load(spool_dir / "done" / "good.json")["history"]) == 1


@pytest.mark.parametrize("folder", ["dead", "done"])
def test_back_to_pending_is_run_again(
    spool_dir: Path, cli: Cli, settle: Callable[[], None], folder: str
) -> None:
    """With fresh attempts, and the history kept."""
    command = 'test -e "$HOME/go" && echo "attempt $QUEUECTL_ATTEMPT"'
    if folder == "done":
        (spool_dir.parent / "home" / "go").touch()
    drop(spool_dir, "job", command=command, max_retries=1, note="mine")
    settle()
    tells(job="dead" if folder == "dead" else "completed")
    (spool_dir.parent / "home" / "go").touch()

    hand("mv", spool_dir / folder / "job.json", spool_dir / "pending/")
    settle()

    tells(job="completed")
    record = load(spool_dir / "done" / "job.json")
    assert [entry["run"] for entry in record["history"]] == [1, 2]
    assert [entry["attempt"] for entry in record["history"]] == [1, 1]
    assert (record["attempts"], record["output"], record["note"]) == (1, "attempt 1\n", "mine")
    assert "last_error" not in record


def test_back_to_pending_waits_again_without_workers(spool_dir: Path, cli: Cli) -> None:
    """As pending and fresh, not as what it was."""
    drop(spool_dir, "job", command="false", max_retries=1)
    drain(spool_dir)
    tells(job="dead")
    hand("mv", spool_dir / "dead" / "job.json", spool_dir / "pending/")
    tells(job="pending")
    shown = json.loads(cli("show", "job", "--json", expect=0).stdout)
    assert (shown["attempts"], shown.get("last_error"), len(shown["history"])) == (0, None, 1)
    assert json.loads(cli("list", "--json", expect=0).stdout)[0]["attempts"] == 0


def test_pending_to_dead_is_give_up(spool_dir: Path, cli: Cli, settle: Callable[[], None]) -> None:
    """It does not run, is dead, and comes back by command or by hand."""
    later(spool_dir, "one")
    later(spool_dir, "two")
    settle()
    tells(one="pending", two="pending")
    hand("mv", spool_dir / "pending" / "one.json", spool_dir / "pending" / "two.json", spool_dir / "dead/")
    tells(one="dead", two="dead")
    cli("dlq", "retry", "one", expect=0)
    hand("mv", spool_dir / "dead" / "two.json", spool_dir / "pending/")
    tells(one="pending", two="pending")


def test_an_outcome_moved_to_dead_or_back_is_where_it_lies(spool_dir: Path, cli: Cli) -> None:
    """The folder decides, whatever the file says of itself."""
    drop(spool_dir, "job", command="true")
    drain(spool_dir)
    hand("mv", spool_dir / "done" / "job.json", spool_dir / "dead/")
    tells(job="dead")
    hand("mv", spool_dir / "dead" / "job.json", spool_dir / "done/")
    tells(job="completed")


def test_a_copied_outcome_under_the_same_name_is_refused(spool_dir: Path, cli: Cli) -> None:
    """Copied back instead of moved, its id is taken: the copy goes to dead/ with that reason, and the outcome stays."""
    drop(spool_dir, "job", command="true")
    drain(spool_dir)
    hand("cp", spool_dir / "done" / "job.json", spool_dir / "pending/")
    drain(spool_dir)
    wait_until(lambda: not (spool_dir / "pending" / "job.json").exists())
    assert load(spool_dir / "done" / "job.json")["state"] == "completed"
    assert "duplicate id: 'job'" in (spool_dir / "dead" / "job.json.reason").read_text()
    assert json.loads(cli("status", "--json", expect=0).stdout)["jobs"] == {
        **NOBODY,
        "completed": 1,
        "dead": 1,
    }


# -- editing -------------------------------------------------------------------------------------------------------


def in_place(path: Path, text: str) -> None:
    """As nano, VS Code and a shell do: the same inode."""
    with path.open("r+") as file:
        file.write(text)
        file.truncate()


def by_rename(path: Path, text: str) -> None:
    """As most editors do: a new file under the old name."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.rename(path)


def by_backup(path: Path, text: str) -> None:
    """As vim and emacs do: the old file moved away, a new one written in its place."""
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text)


def by_delete(path: Path, text: str) -> None:
    """The old file gone, and a new one that may get its inode."""
    path.unlink()
    path.write_text(text)


EDITORS = {edit.__name__: edit for edit in (in_place, by_rename, by_backup, by_delete)}


@pytest.mark.parametrize("edit", EDITORS)
def test_edit_in_pending_changes_the_job(
    spool_dir: Path, cli: Cli, settle: Callable[[], None], edit: str
) -> None:
    """Command, priority, and the moment: from far away to now, while idle workers wait."""
    path = later(spool_dir, "job", command="echo before")
    settle()
    assert cli("list", expect=0).stdout == "job - pending - echo before\n"

    EDITORS[edit](path, json.dumps({"command": "echo between", "priority": 9, "run_at": FAR}))
    assert cli("list", expect=0).stdout == "job - pending - echo between\n"
    row = json.loads(cli("list", "--json", expect=0).stdout)[0]
    assert (row["priority"], row["state"], row["attempts"]) == (9, "pending", 0)
    shown = json.loads(cli("show", "job", "--json", expect=0).stdout)
    assert (shown["command"], shown["priority"]) == ("echo between", 9)

    EDITORS[edit](path, json.dumps({"command": "echo after", "run_at": 0}))
    settle()
    tells(job="completed")
    assert load(spool_dir / "done" / "job.json")["output"] == "after\n"


@pytest.mark.parametrize("edit", EDITORS)
def test_edits_that_nobody_saw_count_when_a_worker_comes(spool_dir: Path, edit: str) -> None:
    """Known to the index, edited with nobody there, not looked at since: what is in the file is the job."""
    early = later(spool_dir, "early")
    late = drop(spool_dir, "late", command="echo late")
    other = drop(spool_dir, "other", command="echo other")
    renamed = drop(spool_dir, "renamed", command="echo renamed")
    assert Spool(spool_dir).counts()["pending"] == 4
    EDITORS[edit](early, json.dumps({"command": "echo early"}))
    EDITORS[edit](late, json.dumps({"command": "echo late", "run_at": FAR}))
    EDITORS[edit](other, json.dumps({"command": "echo changed"}))
    EDITORS[edit](renamed, json.dumps({"id": "new-id", "command": "echo renamed"}))

    drain(spool_dir)

    assert where_is(spool_dir, "early") == ["done"]
    assert where_is(spool_dir, "late") == ["pending"]
    assert load(spool_dir / "done" / "other.json")["output"] == "changed\n"
    assert where_is(spool_dir, "new-id") == ["done"]
    spool = Spool(spool_dir)
    assert {row.id: row.state for row in spool.list()} == {
        "early": "completed", "late": "pending", "other": "completed", "new-id": "completed"
    }  # fmt: skip
    assert spool.counts() == {**NOBODY, "completed": 3, "pending": 1}


def test_an_edit_put_off_is_listed_while_it_waits(
    spool_dir: Path, cli: Cli, workers: Callable[..., Any]
) -> None:
    """A worker reaches for the job, finds another moment in it, and puts it back where everybody still sees it."""
    for number in range(3):
        drop(spool_dir, f"job{number}", command="true")
    tells(job0="pending", job1="pending", job2="pending")
    for number in range(3):
        in_place(spool_dir / "pending" / f"job{number}.json", json.dumps({"command": "true", "run_at": FAR}))
    workers(2)
    drop(spool_dir, "beside", command="true")
    wait_until(lambda: finished(spool_dir, "beside"))
    tells(job0="pending", job1="pending", job2="pending", beside="completed")
    assert len(os.listdir(spool_dir / "pending")) == 3
    in_place(spool_dir / "pending" / "job1.json", json.dumps({"command": "true"}))
    wait_until(lambda: finished(spool_dir, "job1"))
    tells(job0="pending", job1="completed", job2="pending", beside="completed")


def test_an_edit_in_place_is_seen_by_a_worker_that_gets_no_events(spool_dir: Path) -> None:
    """It polls; it may be slower to notice, and does within the time in which it tries to watch again."""
    code = (
        "import sys\nfrom queuectl.system import watcher as wake\nfrom queuectl import Worker\n"
        "def start(w): raise OSError(24, 'no instances left')\n"
        "wake._start = start\nwake.RETRY_AFTER = 1.0\nWorker(sys.argv[1]).run()"
    )
    path = later(spool_dir, "job")
    drop(spool_dir, "first", command="true")
    with subprocess.Popen([sys.executable, "-c", code, str(spool_dir)]) as process:
        try:
            wait_until(lambda: finished(spool_dir, "first"))
            in_place(path, json.dumps({"command": "true"}))
            wait_until(lambda: finished(spool_dir, "job"))
        finally:
            process.kill()


def test_an_edit_that_breaks_a_job_is_told(spool_dir: Path, cli: Cli, settle: Callable[[], None]) -> None:
    """A slip of the pen: it goes to dead/ with the reason, and is not run as it was."""
    (spool_dir / "config.yaml").write_text("settle_time: 0.3\n")
    path = later(spool_dir, "job")
    settle()
    tells(job="pending")
    in_place(path, '{"command": "true", "priority": "high"}')

    def is_dead() -> bool:
        cli("list", expect=0)
        return where_is(spool_dir, "job") == ["dead"]

    wait_until(is_dead)
    assert "priority: must be a whole number" in (spool_dir / "dead" / "job.json.reason").read_text()
    tells(job="dead")


def test_a_renamed_file_is_a_renamed_job(spool_dir: Path, cli: Cli) -> None:
    """In pending/ an id that was the file's name follows the file; one that stands in the file stays."""
    later(spool_dir, "old")
    later(spool_dir, "file", id="fixed")
    tells(old="pending", fixed="pending")
    hand("mv", spool_dir / "pending" / "old.json", spool_dir / "pending" / "new.json")
    hand("mv", spool_dir / "pending" / "file.json", spool_dir / "pending" / "elsewhere.json")
    tells(new="pending", fixed="pending")


def test_two_files_that_swap_names_swap_jobs(spool_dir: Path, cli: Cli) -> None:
    """Neither is lost, neither is doubled."""
    a, b = later(spool_dir, "a", command="echo was a"), later(spool_dir, "b", command="echo was b")
    tells(a="pending", b="pending")
    a.rename(spool_dir / "x")
    b.rename(a)
    (spool_dir / "x").rename(b)
    assert sorted(cli("list", expect=0).stdout.splitlines()) == [
        "a - pending - echo was b",
        "b - pending - echo was a",
    ]


def test_a_whole_folder_moved_at_once(spool_dir: Path, cli: Cli, settle: Callable[[], None]) -> None:
    """A hundred dead letters back by one mv, as a person would after mending the cause."""
    for number in range(100):
        drop(spool_dir, f"job{number:02}", command='test -e "$HOME/mended"', max_retries=1)
    settle()
    assert Spool(spool_dir).counts() == {**NOBODY, "dead": 100}
    (spool_dir.parent / "home" / "mended").touch()
    # mv looks back at each file once it is there, and grumbles where a worker was faster.
    subprocess.run(f"mv {spool_dir}/dead/*.json {spool_dir}/pending/", shell=True, check=False)
    settle()
    wait_until(
        lambda: Spool(spool_dir).counts() == {**NOBODY, "completed": 100},
        message=lambda: Spool(spool_dir).counts(),
    )
    assert cli("status", expect=0).stdout.startswith(f"jobs: { {**NOBODY, 'completed': 100} }\n")


def test_everything_deleted_is_an_empty_spool(spool_dir: Path, cli: Cli, settle: Callable[[], None]) -> None:
    """The state folders themselves are made again, and work."""
    drop(spool_dir, "a", command="true")
    later(spool_dir, "b")
    settle()
    for folder in ("pending", "done", "dead", "logs", "tmp"):
        hand("rm", "-rf", spool_dir / folder)
    tells()
    drop_bytes(spool_dir, "c.json", b'{"command": "true"}')
    settle()
    wait_until(lambda: finished(spool_dir, "c"))
    tells(c="completed")


def test_a_waiting_job_deleted_under_a_worker_is_not_run(
    spool_dir: Path, cli: Cli, workers: Callable[..., Any]
) -> None:
    """The index suggests it, the file is gone: the next one is taken."""
    drop(spool_dir, "busy", command="sleep 1", priority=10)
    for number in range(20):
        drop(spool_dir, f"job{number:02}", command=f"echo {number} >> {spool_dir.parent}/ran")
    cli("status", expect=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "busy") == ["processing/worker-0"])
    for number in range(0, 20, 2):
        (spool_dir / "pending" / f"job{number:02}.json").unlink()
    wait_until(lambda: not os.listdir(spool_dir / "pending"))
    wait_until(lambda: len(os.listdir(spool_dir / "done")) == 11)
    assert (spool_dir.parent / "ran").read_text().split() == [str(number) for number in range(1, 20, 2)]
    assert Spool(spool_dir).counts() == {**NOBODY, "completed": 11}


def test_a_running_job_whose_file_is_deleted_is_forgotten(
    spool_dir: Path, cli: Cli, workers: Callable[..., Any]
) -> None:
    """processing/ is not for hands, but nothing breaks: the worker says so and lives on, the command line agrees."""
    workers(1)
    drop(spool_dir, "job", command="touch $QUEUECTL_SPOOL/tmp/.began; sleep 0.7")
    wait_until((spool_dir / "tmp" / ".began").exists)  # after the claim comes a moment in which it is read
    (spool_dir / "processing" / "worker-0" / "job.json").unlink()
    drop(spool_dir, "next", command="true")
    wait_until(lambda: finished(spool_dir, "next"))
    assert "job was taken away while it ran" in cli("worker", "logs", expect=0).stdout
    tells(next="completed")


def test_a_failed_job_given_up_and_put_back_is_fresh(spool_dir: Path, cli: Cli) -> None:
    """Its attempts were of its first life."""
    drop(spool_dir, "job", command="false", max_retries=3, backoff_base=1000)
    drain(spool_dir)
    tells(job="failed")
    hand("mv", spool_dir / "pending" / "job.json", spool_dir / "dead/")
    tells(job="dead")
    hand("mv", spool_dir / "dead" / "job.json", spool_dir / "pending/")
    tells(job="pending")
    drain(spool_dir)
    tells(job="failed")
    record = load(spool_dir / "pending" / "job.json")
    assert (record["attempts"], len(record["history"])) == (1, 2)


def test_what_was_given_up_by_hand_says_so(cli: Cli, spool_dir: Path) -> None:
    """In `dlq list`, in `show`, with and without an index: no dead letter is without a reason."""
    drop(spool_dir, "job", command="true")
    cli("list", expect=0)
    (spool_dir / "pending" / "job.json").rename(spool_dir / "dead" / "job.json")
    for _ in range(2):
        assert cli("dlq", "list", expect=0).stdout == "job - true - 0 - Given up by hand\n"
        assert "Given up by hand" in cli("show", "job", expect=0).stdout
        assert '"last_error": "Given up by hand"' in cli("dlq", "list", "--json", expect=0).stdout
        (spool_dir / "data" / "queuectl.db").unlink()
    cli("dlq", "retry", "job", expect=0)
    assert "Given up" not in cli("show", "job", expect=0).stdout
    drain(spool_dir)
    assert load(spool_dir / "done" / "job.json").get("last_error") is None


def test_a_cancel_cut_short_leaves_a_reason(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies between the move to dead/ and the arrival of its reason."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job")
    with monkeypatch.context() as patch:
        put = files.rename_over

        def die(source: str, target: str) -> None:
            if os.path.dirname(target) == str(spool_dir / "dead"):
                os._exit(9)
            put(source, target)  # on a slow machine, the times that its disk writes are tried out before

        patch.setattr(files, "rename_over", die)
        child = os.fork()
        if not child:
            Spool(spool_dir).cancel("job")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert where_is(spool_dir, "job") == ["dead"]
    assert Spool(spool_dir).list("dead")[0].last_error == "Given up by hand"
    assert Spool(spool_dir).get("job").last_error == "Given up by hand"


def test_what_was_edited_just_before_it_began_is_shown_as_it_runs(spool_dir: Path) -> None:
    """In place, so that no folder tells of it: the list shows what runs."""
    drop(spool_dir, "job", command="until test -e $HOME/go; do sleep 0.02; done", max_retries=7)
    spool = Spool(spool_dir)
    assert spool.list()[0].priority == 5
    path = spool_dir / "pending" / "job.json"
    path.write_text(json.dumps({**load(path), "priority": 9, "max_retries": 4}))
    worker = threading.Thread(target=drain, args=(spool_dir,))
    worker.start()
    try:
        wait_until(lambda: where_is(spool_dir, "job") == ["processing/worker-0"])
        (row,) = spool.list()
        assert (row.state, row.worker, row.priority, row.max_retries) == ("processing", "worker-0", 9, 4)
    finally:
        (spool_dir.parent / "home" / "go").touch()
        worker.join()
