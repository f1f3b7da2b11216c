"""Unusual and wrong calls, from the command line and from Python, give a one-line answer, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Spool, Worker
from queuectl.errors import InvalidJob, SpoolError
from queuectl.job.template import Template

from support import drop_bytes, load, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """Two completed jobs and a waiting one."""
    made = Spool(spool_dir)
    for name in ("a", "b"):
        made.enqueue("true", id=name, tags=["t"])
    Worker(spool_dir, drain=True).run()
    made.enqueue("true", id="waits", tags=["t"])
    return made


@pytest.mark.parametrize(
    "wanted", [{}, {"keep": -1}, {"logs_only": True}, {"older_than": None, "keep": None}]
)
def test_purge_deletes_nothing_unless_it_is_said_what(spool: Spool, wanted: dict[str, object]) -> None:
    """An empty setting must not delete the history of all jobs."""
    with pytest.raises(ValueError, match="keep"):
        spool.purge(**wanted)  # type: ignore[arg-type]
    assert spool.counts()["completed"] == 2


def test_done_is_completed_from_python_too(spool: Spool) -> None:
    """The folder is called done, so that name is accepted as a state."""
    assert [row.id for row in spool.list("done")] == ["a", "b"]
    assert spool.clear("done") == (2, 0)
    assert [row.id for row in spool.list()] == ["waits"]


def test_a_state_that_does_not_exist_is_refused(spool: Spool) -> None:
    """An unknown state is an error; an empty list would look like an answer."""
    for ask in (spool.list, spool.clear):
        with pytest.raises(ValueError, match="no state is called 'finished'"):
            ask("finished")


def test_state_and_number_narrow_a_filter(spool: Spool) -> None:
    """All given filters apply."""
    tagged = Filter(tags=("t",))

    assert [row.id for row in spool.list("pending", where=tagged)] == ["waits"]
    assert [row.id for row in spool.list(limit=1, where=tagged)] == ["a"]
    assert spool.clear("pending", where=tagged) == (1, 0)
    assert spool.counts()["completed"] == 2


def test_a_worker_can_run_twice(spool: Spool, spool_dir: Path) -> None:
    """A program may run the same Worker again."""
    worker = Worker(spool_dir, drain=True)

    assert worker.run() == 1
    spool.enqueue("true", id="more")
    assert worker.run() == 2
    assert spool.workers() == []


def test_a_spool_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is refused; otherwise an empty variable would create a spool in the current directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpoolError, match="names no folder"):
        Spool("")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the current folder cannot be deleted")
def test_a_relative_spool_needs_a_folder_to_start_at(tmp_path: Path) -> None:
    """A relative path in a deleted directory is reported as that, and not as an error of the output."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.rmdir({str(gone)!r}); from queuectl.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "--spool", "box", "list"]
    done = subprocess.run(words, cwd=gone, capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert done.stderr.startswith("error: the current directory is gone\nhint: ")


def test_a_relative_folder_is_the_callers(spool: Spool, cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """As with enqueue, a relative cwd is relative to the caller: a worker starts in its home directory."""
    cli("set", "waits", "cwd=sub", expect=0, cwd=tmp_path)
    assert load(spool_dir / "pending" / "waits.json")["cwd"] == str(tmp_path / "sub")
    assert spool.set("waits", cwd="~").cwd == os.path.expanduser("~")


def test_a_job_is_not_set_to_start_when_it_has_expired(spool: Spool) -> None:
    """As with enqueue, a job that can never start is refused."""
    spool.set("waits", expires_at=2_000_000_000)
    with pytest.raises(InvalidJob, match="could never start"):
        spool.set("waits", run_at=2_000_000_001)
    assert spool.get("waits").run_at is None


def test_what_has_expired_can_be_sent_back_for_later(spool: Spool, spool_dir: Path) -> None:
    """Retrying an expired job removes its `expires_at`, whatever else is changed."""
    drop_bytes(spool_dir, "late.json", b'{"command": "true", "expires_at": 1700000000}\n')
    wait_until(lambda: "late" in [row.id for row in spool.list()])
    Worker(spool_dir, drain=True).run()
    assert spool.get("late").state == "dead"
    later = time.time() + 3600

    assert spool.retry("late", run_at=later).expires_at is None
    with pytest.raises(InvalidJob, match="could never start"):
        spool.set("late", expires_at=later - 60)


def test_an_editor_with_half_a_quote_is_told(spool: Spool, cli: Cli) -> None:
    """An error in the text in $EDITOR is reported as the user's error, not as a bug."""
    assert spool.hold("waits")
    done = cli("edit", "waits", env={"EDITOR": 'vi "', "VISUAL": ""}, expect=1)

    assert done.stderr.startswith("error: $EDITOR is not a valid command")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_a_fifo_for_settings_holds_nobody_up(spool_dir: Path, cli: Cli) -> None:
    """A FIFO in place of the settings file is refused: opening it would block every command and worker."""
    Spool(spool_dir).refresh()
    os.mkfifo(spool_dir / "config.yaml")

    assert "a FIFO" in cli("status", expect=0).stderr
    assert "a FIFO" in cli("enqueue", "true", expect=1).stderr


def test_settings_may_lie_elsewhere(spool_dir: Path, tmp_path: Path) -> None:
    """A link to a settings file that several spools share is read."""
    (tmp_path / "shared.yaml").write_text("timeout: 77\n")
    spool = Spool(spool_dir)
    spool.refresh()
    (spool_dir / "config.yaml").symlink_to(tmp_path / "shared.yaml")

    assert spool.settings().timeout == 77


def test_a_skipped_job_that_was_to_be_waited_for_leaves_stdout_alone(cli: Cli) -> None:
    """With --wait it is reported on stderr: on stdout it would look like the job's output."""
    cli("enqueue", "--unique", "key", "--id", "first", "true", expect=0)
    done = cli("enqueue", "--wait", "--unique", "key", "true", expect=0)

    assert done.stdout == ""
    assert done.stderr.startswith("skipped: job first")


@pytest.mark.parametrize("more", [(), ("--all-or-nothing",)], ids=["in batches", "all or nothing"])
def test_each_job_of_a_file_names_those_whose_place_it_takes(
    cli: Cli, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """The replaced job is reported, for each way to enqueue the newer one."""
    job = {"command": "true", "unique": "key", "if_exists": "replace"}
    path = tmp_path / "job.json"

    def queue(job_id: str, *options: str) -> str:
        path.write_text(json.dumps({**job, "id": job_id}))
        return cli("enqueue", "--file", path, *more, *options, expect=0).stdout

    queue("first")
    assert queue("second") == "enqueued job second\nreplaced job first\n"
    assert json.loads(queue("third", "--json"))[0]["replaced"] == ["second"]


def test_letters_of_another_kind_are_no_empty_queue(spool: Spool, spool_dir: Path, cli: Cli) -> None:
    """A mistyped tag prints a note, not the text for an empty queue."""
    empty = "Dead letter queue is empty\n"
    assert cli("dlq", "clear", "--tag", "nope", "--yes", expect=0).stdout == empty
    (spool_dir / "pending" / "waits.json").rename(spool_dir / "dead" / "waits.json")

    assert cli("dlq", "clear", "--tag", "nope", "--yes", expect=0).stdout == "No jobs match\n"
    assert spool.counts()["dead"] == 1


def test_each_refusal_names_its_job(spool_dir: Path, cli: Cli) -> None:
    """Each of several rejected files has its own error."""
    spool = Spool(spool_dir)
    spool.refresh()
    for name in ("one", "two"):
        drop_bytes(spool_dir, f"{name}.json", b'{"command": "true", "priority": "high"}')
    wait_until(lambda: len(spool.list("dead")) == 2)
    names = [row.id for row in spool.list("dead")]
    lines = cli("dlq", "retry", *names, expect=1).stderr.splitlines()

    assert [line.split(":")[1].strip() for line in lines] == names


def test_json_of_a_list_has_the_unique_key(cli: Cli) -> None:
    """The JSON of a list has the unique key, as the columns do."""
    cli("enqueue", "--unique", "key", "true", expect=0)
    [told] = json.loads(cli("list", "--json", expect=0).stdout)
    assert told["unique"] == "key"


def test_json_is_json_on_a_stream_that_is_not_utf8(spool: Spool, cli: Cli) -> None:
    """For programs, the JSON text is valid on streams that are not UTF-8."""
    spool.enqueue("echo é 日本", id="far")
    told = json.loads(cli("show", "far", "--json", env={"PYTHONIOENCODING": "ascii"}, expect=0).stdout)

    assert told["command"] == "echo é 日本"


def test_a_missing_word_is_asked_for_in_one_line(cli: Cli) -> None:
    """The choices are on one line, without the line ends of the library."""
    first = cli("completion", expect=2).stderr.splitlines()[0]
    assert "bash, zsh, fish" in first
    assert "\\" not in first


def test_an_id_that_ends_in_a_dot_is_told_why(cli: Cli) -> None:
    """The message names the rule; all other rules for ids have theirs."""
    assert "no dot at the end" in cli("enqueue", "--id", "x.", "true", expect=2).stderr


def test_a_template_in_bashs_old_arithmetic_is_refused() -> None:
    """Where /bin/sh is bash, $[…] would run code from a file name."""
    with pytest.raises(ValueError, match="cannot be quoted safely"):
        Template("echo $[{}]")
