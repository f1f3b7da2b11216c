"""`queuectl edit` opens a waiting job in $EDITOR and validates the text before it is saved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Spool

from support import drain, drop, load, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Set $EDITOR to a script that runs the next of these lines each time, and keeps a copy of the text it was given."""

    def make(*scripts: str) -> Path:
        count = tmp_path / "count"
        count.write_text("0")
        lines = "\n".join(f"{number}) {script} ;;" for number, script in enumerate(scripts))
        path = tmp_path / "editor.sh"
        path.write_text(
            f'#!/bin/sh\nn=$(cat {count}); echo $((n+1)) > {count}\ncp "$1" {tmp_path}/given\n'
            f"case $n in\n{lines}\nesac\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(path))
        monkeypatch.delenv("VISUAL", raising=False)
        return tmp_path / "given"

    return make


def test_what_is_saved_lands(cli: Cli, spool_dir: Path, editor: Callable[..., Path]) -> None:
    """The job in pending/ is the edited one, and it runs that way."""
    Spool(spool_dir).enqueue("echo prod", id="a")
    editor('sed -i "s/prod/test/" "$1"')

    assert cli("edit", "a", expect=0).stdout == "a: changed\n"

    drain(spool_dir)
    assert load(spool_dir / "done" / "a.json")["output"] == "test\n"


def test_only_what_a_producer_may_write_is_shown(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path]
) -> None:
    """Attempts, history and output of a failed job are kept, and are not shown in the editor."""
    spool = Spool(spool_dir)
    drop(spool_dir, "a", command="echo no; exit 1", note="mine", backoff_base=1000)
    drain(spool_dir)
    before = load(spool_dir / "pending" / "a.json")
    given = editor('sed -i "s/exit 1/exit 0/" "$1"')

    cli("edit", "a", expect=0)

    shown = json.loads(given.read_text())
    assert shown["note"] == "mine"
    assert not {"state", "attempts", "history", "output"} & set(shown)
    after = load(spool_dir / "pending" / "a.json")
    assert after["command"] == "echo no; exit 0"
    assert (after["history"], after["attempts"], after["next_retry_at"]) == (
        before["history"],
        1,
        before["next_retry_at"],
    )
    assert spool.get("a").state == "failed"


def test_nothing_saved_is_nothing_changed(cli: Cli, spool_dir: Path, editor: Callable[..., Path]) -> None:
    """An edit without a change leaves the file unchanged."""
    Spool(spool_dir).enqueue("true", id="a")
    before = (spool_dir / "pending" / "a.json").stat()
    editor("true")

    assert cli("edit", "a", expect=0).stdout == "a: nothing changed\n"
    assert (spool_dir / "pending" / "a.json").stat() == before


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("sed -i 's/: 5,/: 99,/' \"$1\"", "priority: must be 1 to 10, not 99"),
        ('echo "{" > "$1"', "not JSON"),
        ('sed -i \'s/"a"/"b"/\' "$1"', "id: cannot be changed"),
        ('sed -i \'s/^{/{"state": "dead",/\' "$1"', "state: is written by queuectl"),
        ("sed -i '/command/d' \"$1\"", "command: missing"),
    ],
)
def test_what_is_no_job_does_not_land(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path], script: str, told: str
) -> None:
    """An invalid text is refused with the reason; the job is unchanged, and the hint says where the text is."""
    Spool(spool_dir).enqueue("true", id="a")
    before = (spool_dir / "pending" / "a.json").read_bytes()
    editor(script)

    refused = cli("edit", "a", expect=1)

    assert told in refused.stderr
    assert (spool_dir / "pending" / "a.json").read_bytes() == before
    kept = re.search(r"your text is in (\S+)", refused.stderr)
    assert kept
    Path(kept[1]).unlink()


def test_a_person_may_go_on_editing(spool_dir: Path, editor: Callable[..., Path]) -> None:
    """On a terminal the wrong line is shown, and the editor opens again with the same text."""
    Spool(spool_dir).enqueue("true", id="a")
    editor("sed -i 's/: 5,/: 99,/' \"$1\"", "sed -i 's/: 99,/: 9,/' \"$1\"")

    seen = on_terminal("edit", "a", typed="y\n")

    assert seen.code == 0
    assert "priority: must be 1 to 10, not 99" in seen.text
    assert "^" in seen.text
    assert seen.text.rstrip().endswith("a: changed")
    assert load(spool_dir / "pending" / "a.json")["priority"] == 9


def test_job_that_is_taken_while_it_is_edited_runs_as_it_was(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path]
) -> None:
    """If a worker took the job meanwhile, the edit is refused and the text is kept."""
    Spool(spool_dir).enqueue("echo prod", id="a")
    editor(
        'python3 -c "" ; sed -i "s/prod/test/" "$1"; queuectl worker start --foreground --drain > /dev/null'
    )

    refused = cli(
        "edit", "a", expect=1, env={"PATH": f"{Path(__import__('sys').executable).parent}:/usr/bin:/bin"}
    )

    assert where_is(spool_dir, "a") == ["done"]
    assert load(spool_dir / "done" / "a.json")["output"] == "prod\n"
    kept = re.search(r"your text is in (\S+)", refused.stderr)
    assert kept
    assert "echo test" in Path(kept[1]).read_text()
    Path(kept[1]).unlink()


def test_job_that_somebody_else_changes_meanwhile_keeps_that_change(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path]
) -> None:
    """If two people edit at once, the second one to save is refused."""
    Spool(spool_dir).enqueue("echo prod", id="a", hold=True)
    path = spool_dir / "pending" / "a.json"
    editor(f"sed -i 's/prod/mine/' \"$1\"; sed -i 's/prod/theirs/' {path}")

    refused = cli("edit", "a", expect=1)

    assert "changed by somebody else" in refused.stderr
    assert "theirs" in path.read_text()
    kept = re.search(r"your text is in (\S+)", refused.stderr)
    assert kept
    Path(kept[1]).unlink()


@pytest.mark.parametrize("state", ["dead", "completed", "processing"])
def test_only_waiting_jobs_are_edited(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path], workers: Callable[..., Any], state: str
) -> None:
    """A job that is not waiting is refused before an editor opens, with a hint."""
    spool = Spool(spool_dir)
    command = {"dead": "exit 1", "completed": "true", "processing": "sleep 30"}[state]
    spool.enqueue(command, id="a", max_retries=1, timeout=0)
    workers(1)
    wait_until(lambda: spool.get("a").state == state)
    given = editor("true")

    refused = cli("edit", "a", expect=1)

    hint = {"dead": "queuectl dlq edit a", "completed": "queuectl show a", "processing": "queuectl cancel a"}
    assert refused.stderr == f"error: job 'a' is {state} and cannot be edited\nhint: {hint[state]}\n"
    assert not given.exists()


def test_field_that_does_nothing_is_pointed_out(
    cli: Cli, spool_dir: Path, editor: Callable[..., Path]
) -> None:
    """A misspelt field is kept, as unknown fields are, and reported."""
    Spool(spool_dir).enqueue("true", id="a")
    editor("sed -i 's/priority/prioriti/' \"$1\"")

    done = cli("edit", "a", expect=0)

    assert "did you mean priority?" in done.stderr
    assert load(spool_dir / "pending" / "a.json")["prioriti"] == 5


def test_json_tells_whether_it_changed(cli: Cli, spool_dir: Path, editor: Callable[..., Path]) -> None:
    """--json says whether the job was changed."""
    Spool(spool_dir).enqueue("true", id="a")
    editor("true")

    assert json.loads(cli("edit", "a", "--json", expect=0).stdout) == {"id": "a", "changed": False}
