"""The beginning of an id is enough where it can mean one job only, and never lets a command change another job."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.job.fields import new_id

from support import drain

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ONE, TWO = "20260102T030405-aaaaaaaa", "20260102T030405-abbbbbbb"
COMMON = ONE[:17]


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """Two ids as queuectl makes them, two of one's own of which one begins with the other, and one more."""
    made = Spool(spool_dir)
    for job_id in (ONE, TWO, "job1", "job10", "nightly-1"):
        made.enqueue(f"echo {job_id}", id=job_id)
    return made


def test_the_beginning_of_an_id_is_enough_to_look(spool: Spool, cli: Cli, spool_dir: Path) -> None:
    """In a table an id may be cut. A whole id always wins; several candidates are named."""
    assert json.loads(cli("show", ONE[:18], "--json", expect=0).stdout)["id"] == ONE
    assert json.loads(cli("show", "job1", "--json", expect=0).stdout)["id"] == "job1"
    shown = cli("show", "nig", expect=0)
    assert "nightly-1" in shown.stdout
    assert shown.stderr == "note: nig is the beginning of nightly-1\n"
    refused = cli("show", COMMON, expect=1)
    assert refused.stderr.splitlines()[0] == f"error: several ids begin with {COMMON!r}: {ONE}, {TWO}"
    assert "no job 'x'" in cli("show", "x", expect=1).stderr
    drain(spool_dir)
    assert cli("logs", ONE[:18], expect=0).stdout == f"{ONE}\n"


def test_a_command_that_changes_takes_a_beginning_that_cannot_be_a_whole_id(spool: Spool, cli: Cli) -> None:
    """It has a part of the random end. All commands for ids take it."""
    short = ONE[:18]
    cli("set", short, "priority=9", expect=0)
    assert spool.get(ONE).priority == 9
    assert cli("hold", short, TWO, expect=0).stdout == f"{ONE}: held\n{TWO}: held\n"
    cli("release", short, expect=0)
    assert cli("cancel", short, ONE, expect=0).stdout == f"{ONE}: cancelled\n"
    assert "Cancelled" in cli("dlq", "show", short, expect=0).stdout
    cli("dlq", "retry", short, expect=0)
    cli("cancel", short, expect=0)
    assert cli("wait", short, expect=1).stdout.startswith(f"{ONE} - dead")
    cli("edit", short, expect=1)
    assert cli("remove", short, expect=0).stdout == f"{ONE}: removed\n"
    assert spool.get(TWO).hold


@pytest.mark.parametrize(
    "verb", [["remove"], ["cancel"], ["set", "priority=9"], ["wait", "--timeout", "1"], ["edit"]]
)
def test_a_script_whose_job_is_gone_changes_no_other(spool: Spool, cli: Cli, verb: list[str]) -> None:
    """`job1` is gone, `job10` is there: nobody means that one. An ambiguous beginning changes nothing either."""
    spool.forget("job1")
    before = {row.id: row.updated_at for row in spool.list()}
    for text, said in (
        ("job1", "no job 'job1' in this spool; job10 begins with that"),
        (COMMON, "several ids begin with"),
        (ONE[:15], "several ids begin with"),
    ):
        assert said in cli(*verb, text, expect=1).stderr
    spool.forget(TWO)
    before.pop(TWO)
    assert f"{ONE} begins with that" in cli(*verb, ONE[:15], expect=1).stderr
    assert {row.id: row.updated_at for row in spool.list()} == before


def test_a_person_is_asked(spool: Spool, spool_dir: Path) -> None:
    """On a terminal the beginning of an id of one's own is enough, after a look at the whole one."""
    no = on_terminal("cancel", "nig", typed="n\n")
    assert "No job has the id nig. Cancel nightly-1? [y/N]" in no.text
    assert (no.code, spool.get("nightly-1").state) == (1, "pending")
    yes = on_terminal("cancel", "nig", typed="y\n")
    assert (yes.code, spool.get("nightly-1").state) == (0, "dead")


def test_ids_of_queuectl_have_the_form_that_is_recognized() -> None:
    """Else no beginning would be enough."""
    from queuectl.cli import typed_ids

    assert typed_ids._is_certain(new_id(1e9)[:17], new_id(1e9))
    assert re.fullmatch(r"\d{8}T\d{6}-\w", new_id(1e9)[: typed_ids.CERTAIN])


def test_a_beginning_is_found_by_the_index_of_the_ids(spool: Spool, spool_dir: Path) -> None:
    """With a million jobs, reading all of them takes a second."""
    asked: list[str] = []
    spool.counts()
    spool._index.db.set_trace_callback(asked.append)
    assert spool.ids(COMMON, limit=6) == [ONE, TWO]
    [query] = [text for text in asked if "ORDER BY id" in text]
    spool._index.db.set_trace_callback(None)
    with closing(sqlite3.connect(spool.layout.index)) as db:
        plan = " ".join(str(step[-1]) for step in db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH" in plan
    assert "id>? AND id<?" in plan
    assert "TEMP B-TREE" not in plan
