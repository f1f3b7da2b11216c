"""`list --columns` prints the chosen columns in a format that `cut` and `sort` can use."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.cli.commands.list import COLUMNS
from queuectl.index.row import READY_KEY

from support import drain, drop, drop_bytes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def aged(spool_dir: Path) -> Path:
    """One job that has waited three and a half minutes according to its file, and a new one."""
    spool = Spool(spool_dir)
    now = time.time()
    spool.enqueue("echo old", id="old", priority=5, tags=["a", "b"], run_at=now + 0.01)
    spool.enqueue("echo new", id="new", priority=8)
    drop(spool_dir, "later", command="echo later", priority=9, run_at=now + 5000)
    return spool_dir


def backdate(spool: Path, job_id: str, seconds: float) -> None:
    """Make a waiting job look older, by changing its place in the order."""
    import sqlite3

    Spool(spool).refresh()
    with sqlite3.connect(spool / "data" / "queuectl.db") as db:
        statement = (
            f"UPDATE jobs SET ready_key = coalesce(ready_key, {READY_KEY}) - ?, due = NULL WHERE id = ?"  # noqa: S608 (ours)
        )
        db.execute(statement, (int(seconds * 1e6), job_id))
    db.close()


def test_lines_have_a_tab_between_two_values(cli: Cli, spool_dir: Path) -> None:
    """Columns in the requested order, empty if there is no value; tabs and line ends are written as escapes."""
    drop_bytes(spool_dir, "j.json", b'{"command": "echo \\"a\\tb\\nc\\"", "priority": 3, "tags": ["x", "y"]}')

    lines = cli("list", "--columns", "tags,id,exit_code,Priority,command", expect=0).stdout.splitlines()

    assert lines == ['x y\tj\t\t3\techo "a\\tb\\nc"']


def test_lengths_and_moments_can_be_sorted(cli: Cli, spool_dir: Path) -> None:
    """In a pipe, times are full UTC times and lengths of time are seconds."""
    Spool(spool_dir).enqueue("true", id="j")
    drain(spool_dir)

    [line] = cli(
        "list", "--columns", "created,finished,duration,age,exit-code,attempts", expect=0
    ).stdout.splitlines()

    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(rf"{stamp}\t{stamp}\t0\.\d{{3}}\t\d+\t0\t1", line)


def test_effective_priority_grows_by_waiting(cli: Cli, aged: Path) -> None:
    """One point for each minute since the job could first run; a job that cannot run yet has not waited."""
    backdate(aged, "old", 210)

    lines = cli(
        "list", "--columns", "id,effective,waited,priority", "--sort", "next", expect=0
    ).stdout.splitlines()
    told = {row["id"]: row["effective_priority"] for row in json.loads(cli("list", "--json").stdout)}

    assert [line.split("\t")[0] for line in lines] == ["old", "new", "later"]
    assert re.fullmatch(r"old\t8\.[5-9]\t2\d\d\t5", lines[0])
    assert lines[2] == "later\t9.0\t\t9"
    assert 8.5 <= told["old"] < 9.5
    assert told["later"] == 9


def test_jobs_that_do_not_wait_have_no_effective_priority(cli: Cli, spool_dir: Path) -> None:
    """Jobs that have ended have no effective priority."""
    Spool(spool_dir).enqueue("true", id="j")
    drain(spool_dir)

    assert cli("list", "--columns", "id,effective,waited", expect=0).stdout == "j\t\t\n"


def test_table_shows_what_waiting_has_added(aged: Path) -> None:
    """On a terminal: 5 +3.5, tags if any job has some, and headings with --columns."""
    backdate(aged, "old", 210)

    plain = on_terminal("list").text
    words = ["--columns", "id,exit-code,tags,age", "--sort", "arrived"]
    asked = on_terminal("list", *words).text.splitlines()

    assert re.search(r"^  old +pending +5 \+3\.\d +0/3 +a b +echo old", plain, flags=re.MULTILINE)
    assert re.search(r"^  new +pending +8 +0/3 +echo new", plain, flags=re.MULTILINE)
    assert asked[2].split() == ["ID", "Exit", "Code", "Tags", "Age"]
    assert re.search(r"^  old +a b +\d+s", asked[4])


def test_show_has_the_effective_priority(cli: Cli, aged: Path) -> None:
    """`show` has the effective priority and the waiting time."""
    backdate(aged, "old", 210)

    page = cli("show", "old", expect=0).stdout

    assert re.search(r"^Priority +5, 8\.\d by waiting for 3m \d+s$", page, flags=re.MULTILINE)
    assert re.search(r"^Priority +9$", cli("show", "later", expect=0).stdout, flags=re.MULTILINE)


def test_every_column_can_be_shown(cli: Cli, aged: Path) -> None:
    """Every column works for waiting, dead and rejected jobs."""
    drop_bytes(aged, "bad.json", b"{", "dead")
    Spool(aged).cancel("new")

    lines = cli("list", "--columns", ",".join(COLUMNS), expect=0).stdout.splitlines()

    assert {len(line.split("\t")) for line in lines} == {len(COLUMNS)}
    assert len(lines) == 4


@pytest.mark.parametrize("names", ["colour", "", ",", "id,,nonsense"])
def test_unknown_column_is_refused(cli: Cli, aged: Path, names: str) -> None:
    """The error lists the valid names."""
    assert "id, state, priority, effective" in cli("list", "--columns", names, expect=2).stderr


def test_python_door_has_the_row(aged: Path) -> None:
    """`Spool.row` returns the row of one job."""
    row = Spool(aged).row("new")

    assert row.effective_priority is not None
    assert row.waited is not None
    assert row.id == "new"
    assert row.effective_priority == pytest.approx(8 + row.waited / 60)
