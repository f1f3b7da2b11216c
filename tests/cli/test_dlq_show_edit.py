"""A dead job can be inspected, fixed and retried with commands, and an edited text is never lost."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import DuplicateId, InvalidJob, MoveError, Spool

from support import drain, drop_bytes, load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

BROKEN = '{\n  "command": "echo hi"\n  "priority": 9\n}\n'


@pytest.fixture
def failed(cli: Cli, spool_dir: Path) -> Path:
    """A spool with a job that failed once, with thirty lines of output."""
    cli(
        *("enqueue", "--id", "job1", "--max-retries", "1"),
        "for i in $(seq 30); do echo line $i; done; echo oops >&2; exit 7",
        expect=0,
    )
    drain(spool_dir)
    return spool_dir


def bury(spool: Path, name: str, text: str) -> Path:
    return drop_bytes(spool, f"{name}.json", text.encode(), "dead")


def replacing(old: str, new: str) -> str:
    """Set $EDITOR to a command that replaces one text with another."""
    return shlex.join(["sed", "-i", f"s/{old}/{new}/"])


def test_show_tells_why_and_what_was_written(cli: Cli, failed: Path) -> None:
    """Shows the reason, each run, the last lines of both streams, and the next command to type."""
    done = cli("dlq", "show", "job1", "--lines", "2", expect=0)

    assert re.search(r"^Reason +Exit code 7$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^Run 1 +failed, attempt 1, exit code 7, ", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^Output +line 29\n +line 30\nErrors +oops$", done.stdout, flags=re.MULTILINE)
    assert "line 28" not in done.stdout
    assert "queuectl dlq retry job1" in done.stderr


def test_show_as_json(cli: Cli, failed: Path) -> None:
    """--json has the job's fields, its age, its file and the ends of its output."""
    told = json.loads(cli("dlq", "show", "job1", "--lines", "1", "--json", expect=0).stdout)

    assert (told["id"], told["last_error"], told["fault"]) == ("job1", "Exit code 7", None)
    assert told["ends"] == {"out": "line 30\n", "err": "oops\n"}
    assert told["file"] == str(failed / "dead" / "job1.json")
    assert 0 <= told["age"] < 60
    assert len(told["history"]) == 1


def test_show_without_logs_takes_what_the_file_keeps(cli: Cli, failed: Path) -> None:
    """If the logs were deleted, the end of the output comes from the job's file."""
    for path in (failed / "logs").iterdir():
        path.unlink()

    assert "line 30" in cli("dlq", "show", "job1", expect=0).stdout


def test_show_says_where_a_file_is_wrong(cli: Cli, failed: Path) -> None:
    """Shows the line and column, the text of the line, and a mark under the error: for broken JSON, a wrong field, a wrong byte."""
    bury(failed, "comma", BROKEN)
    bury(failed, "field", '{"command": "echo hi",\n "priority": 99}')
    drop_bytes(failed, "bytes.json", b'{"command":\n "\xff"}', "dead")

    comma, field, wrong = (cli("dlq", "show", name, expect=0).stdout for name in ("comma", "field", "bytes"))

    assert "expecting ',' delimiter (line 3, column 3)\n" in comma
    assert re.search(r'3 \|   "priority": 9\n +\|   \^\n', comma)
    assert re.search(r'99 \(line 2, column 14\)\n +2 \|  "priority": 99}\n +\| {14}\^\n', field)
    assert "(line 2, column 3)" in wrong


def test_only_dead_ones_are_shown_and_edited(cli: Cli, failed: Path) -> None:
    """Jobs that are not dead are refused with a hint."""
    cli("enqueue", "--id", "waits", "true", expect=0)

    for verb in ("show", "edit"):
        refused = cli("dlq", verb, "waits", expect=1)
        assert refused.stderr == ("error: job 'waits' is pending, not dead\nhint: queuectl show waits\n")
        cli("dlq", verb, "nobody", expect=1)


def test_mended_file_can_be_retried(cli: Cli, failed: Path) -> None:
    """Edit the file so that it is a valid job, retry it, and it runs."""
    bury(failed, "broken", BROKEN)
    (failed / "dead" / "broken.json.reason").write_text("somebody's reason\n")

    cli("dlq", "retry", "broken", expect=1)
    edited = cli("dlq", "edit", "broken", env={"EDITOR": replacing('hi"', 'hi",')}, expect=0)
    listed = cli("dlq", "list", expect=0).stdout
    cli("dlq", "retry", "broken", expect=0)
    drain(failed)

    assert edited.stdout == "broken: changed\n"
    assert "broken - echo hi - 0 - Edited; it was: somebody's reason" in listed
    assert where_is(failed, "broken") == ["done"]
    assert list((failed / "dead").glob("*.reason")) == []


def test_edit_and_retry_in_one(cli: Cli, failed: Path) -> None:
    """--retry sends the saved job back, with its history."""
    done = cli(
        "dlq", "edit", "job1", "--retry", "--json", env={"EDITOR": replacing("exit 7", "exit 0")}, expect=0
    )

    job = load(failed / "pending" / "job1.json")
    assert json.loads(done.stdout) == {"id": "job1", "changed": True, "state": "pending"}
    assert (job["attempts"], len(job["history"])) == (0, 1)
    assert job["command"].endswith("exit 0")


def test_edit_without_a_change_changes_nothing(cli: Cli, failed: Path) -> None:
    """An edit without a change leaves the file byte for byte, and no copy in /tmp."""
    before = (failed / "dead" / "job1.json").read_bytes()
    done = cli("dlq", "edit", "job1", env={"EDITOR": "true", "TMPDIR": str(failed / "tmp")}, expect=0)

    assert done.stdout == "job1: nothing changed\n"
    assert (failed / "dead" / "job1.json").read_bytes() == before
    assert list((failed / "tmp").iterdir()) == []


def test_refused_edit_keeps_what_was_typed(cli: Cli, failed: Path) -> None:
    """A text that is not a valid job is not saved; the hint says where it is."""
    before = (failed / "dead" / "job1.json").read_bytes()
    refused = cli(
        "dlq", "edit", "job1", env={"EDITOR": replacing('"priority": 5', '"priority": 50')}, expect=1
    )

    assert refused.stderr.startswith(
        "error: invalid job: priority: must be 1 to 10, not 50\nhint: nothing was changed"
    )
    kept = Path(refused.stderr.split()[-1])
    assert '"priority": 50' in kept.read_text()
    assert (failed / "dead" / "job1.json").read_bytes() == before
    kept.unlink()


def test_person_is_asked_to_edit_on(failed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a terminal the error is shown, and the editor opens again with the same text."""
    monkeypatch.setenv("EDITOR", replacing('"priority": [0-9]*', '"priority": 50'))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    seen = on_terminal("dlq", "edit", "job1", typed="y\nn\n")

    assert seen.text.count("Edit again? [Y/n]") == 2
    assert re.search(r'"priority": 50,\n +\| +\^\n', seen.text)
    assert seen.code == 1
    assert [path.suffix for path in tmp_path.glob("job1-*")] == [".json"]


def test_file_that_changed_meanwhile_is_not_overwritten(failed: Path) -> None:
    """If two people edit the same file, the second one is refused."""
    spool = Spool(failed)
    path = failed / "dead" / "job1.json"
    before = path.read_bytes()
    spool.amend("job1", before, before.replace(b"exit 7", b"exit 8"))

    with pytest.raises(MoveError):
        spool.amend("job1", before, before.replace(b"exit 7", b"exit 9"))
    assert load(path)["command"].endswith("exit 8")


def test_id_of_a_job_cannot_be_edited(failed: Path) -> None:
    """The id cannot change, because it names the logs; only a file that was not a job may get an unused id."""
    spool = Spool(failed)
    before = (failed / "dead" / "job1.json").read_bytes()
    twin = bury(failed, "twin", '{"id": "job1", "command": "echo twin"}')

    with pytest.raises(InvalidJob):
        spool.amend("job1", before, before.replace(b'"job1"', b'"job2"'))
    with pytest.raises(DuplicateId):
        spool.amend("twin", twin.read_bytes(), twin.read_bytes() + b"\n")
    spool.amend("twin", twin.read_bytes(), b'{"id": "job2", "command": "echo twin"}')
    spool.retry("job2")
    drain(failed)

    assert where_is(failed, "job2") + where_is(failed, "twin") + where_is(failed, "job1") == ["done", "dead"]


def test_twin_is_not_retried_over_the_job_that_has_its_id(cli: Cli, failed: Path) -> None:
    """A rejected duplicate cannot be retried under the same id: it would hide the other job."""
    bury(failed, "twin", '{"id": "job1", "command": "echo twin"}')

    refused = cli("dlq", "retry", "twin", expect=1)

    assert refused.stderr.startswith("error: job id 'job1' is taken: that job is dead")
    assert sorted(row.id for row in Spool(failed).list("dead")) == ["job1", "twin"]


def test_retry_sets_fields(cli: Cli, failed: Path) -> None:
    """--set may be repeated, with the syntax of each field; an empty value removes the field."""
    cli(
        *(
            "dlq",
            "retry",
            "job1",
            "--set",
            "priority=9",
            "--set",
            "tags=a,b",
            "--set",
            "command=[ 1 ] && echo yes",
        ),
        *("--set", "timeout=10m", "--set", 'env={"A": "1"}', "--set", "cwd=", "--set", "run-at=+1h"),
        expect=0,
    )

    job = load(failed / "pending" / "job1.json")
    assert (job["priority"], job["tags"], job["timeout"], job["env"]) == (9, ["a", "b"], 600, {"A": "1"})
    assert job["command"] == "[ 1 ] && echo yes"
    assert "cwd" not in job
    assert Spool(failed).list("pending")[0].due_at is not None


def test_field_that_is_taken_away_is_the_settings_to_decide(cli: Cli, failed: Path) -> None:
    """`--set timeout=` gives the job the timeout of new jobs."""
    cli("config", "set", "timeout", "77", expect=0)
    cli("dlq", "retry", "job1", "--set", "timeout=", expect=0)

    assert Spool(failed).get("job1").timeout == 77


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("priority", "'priority' is not FIELD=VALUE"),
        ("prority=3", "no field 'prority'; did you mean priority?"),
        ("id=other", "the id of a job cannot be changed"),
        ("attempts=0", "attempts is written by queuectl"),
        ("priority=11", "priority: must be 1 to 10, not 11"),
        ("priority=high", "priority: 'high' is not a whole number"),
        ("hold=maybe", "hold: must be true or false"),
        ("env=A", "env: not JSON"),
        ("tags=a b!", "tags: 'b!' cannot be a tag"),
    ],
)
def test_change_that_cannot_be_is_refused(cli: Cli, failed: Path, change: str, told: str) -> None:
    """A wrong --set retries nothing, and one line says why."""
    refused = cli("dlq", "retry", "job1", "--set", change, expect=2)

    assert told in refused.stderr
    assert where_is(failed, "job1") == ["dead"]


def test_wrong_field_of_a_rejected_file_is_set_right(cli: Cli, failed: Path) -> None:
    """--set fixes a single wrong field without an editor."""
    bury(failed, "field", '{"command": "echo hi", "priority": 99}')

    cli("dlq", "retry", "field", "--set", "priority=9", expect=0)

    assert load(failed / "pending" / "field.json")["priority"] == 9


def test_python_retry_refuses_what_a_person_may_not_change(failed: Path) -> None:
    """The Python API has the same rules."""
    spool = Spool(failed)
    wrong: list[dict[str, Any]] = [{"id": "x"}, {"attempts": 0}, {"priority": 11}, {"nonsense": 1}]
    for change in wrong:
        with pytest.raises(InvalidJob):
            spool.retry("job1", **change)

    assert where_is(failed, "job1") == ["dead"]


def test_dlq_takes_the_filters(cli: Cli, failed: Path) -> None:
    """The filters of list, retry and clear select exactly the described dead jobs."""
    bury(failed, "old", '{"command": "echo old", "tags": ["x"], "updated_at": "2020-01-01T00:00:00Z"}')
    bury(failed, "new", '{"command": "echo new", "tags": ["x", "y"]}')
    cli("enqueue", "--id", "waits", "true", expect=0)

    listed = cli("dlq", "list", "--tag", "x", "--sort", "-id", "--limit", "1", expect=0).stdout
    would = cli("dlq", "clear", "--until", "30d", "--dry-run", expect=0).stdout
    none = cli("dlq", "list", "--tag", "z", expect=0)
    wrong = cli("dlq", "list", "--state", "pending", expect=2)
    cli("dlq", "clear", "--until", "30d", "--yes", expect=0)

    assert listed == "old - echo old - 0 - Given up by hand\n"
    assert would == "would delete old - dead - echo old\n"
    assert (none.stdout, none.stderr) == ("", "no dead jobs match\n")
    assert wrong.stderr.startswith("error: the dead letter queue has dead jobs only")
    assert sorted(row.id for row in Spool(failed).list()) == ["job1", "new", "waits"]


def test_clear_takes_the_filters(cli: Cli, failed: Path) -> None:
    """`clear` deletes exactly the described jobs, and the question has their number."""
    bury(failed, "new", '{"command": "echo new", "tags": ["x"]}')
    cli("enqueue", "--id", "waits", "true", expect=0)

    asked = on_terminal("clear", "--tag", "x", typed="y\n")
    two = cli("clear", "--state", "dead", "--state", "pending", "--command", "true", "--yes", expect=0)

    assert "Delete 1 job permanently? [y/N]" in asked.text
    assert two.stdout == "Deleted 1 job(s)\n"
    assert [row.id for row in Spool(failed).list()] == ["job1"]


def test_end_of_a_large_log_is_found_from_behind(failed: Path) -> None:
    """last_lines works across block borders, with and without a final line end, with empty lines, and for more lines than there are."""
    spool = Spool(failed)
    log = failed / "logs" / "job1.1.out"
    lines = [f"{n} " + "x" * (n % 300) for n in range(5000)]
    for text in ("\n".join(lines), "\n".join(lines) + "\n", "\n\n\n", "", "one", "one\n"):
        log.write_text(text)
        whole = text.splitlines(keepends=True)
        for count in (0, 1, 2, 3, 700, 6000):
            assert spool.last_output("job1", count) == "".join(whole[-count:] if count else []), count
