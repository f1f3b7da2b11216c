"""A table of jobs is never wider than the terminal, and stays a table however many jobs there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.api import listing

from support import drain

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


def lines_at(width: int, *words: str) -> list[str]:
    lines = on_terminal(*words, width=width).text.splitlines()
    assert max(map(len, lines)) <= width
    return lines


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """Jobs with ids that queuectl has made, long commands, tags, errors, and an id of 64 characters."""
    made = Spool(spool_dir)
    made.enqueue("exit 3; : " + "x" * 90, tags=["nightly", "films"], max_retries=1)
    made.enqueue("echo " + "ö" * 90, id="a" + "b" * 63)
    drain(spool_dir)
    for _ in range(3):
        made.enqueue("ffmpeg -i /srv/a/long/path/of/a/film.wav out.mp3", tags=["films"])
    return made


def test_list_fits_on_eighty_columns_and_fewer(spool: Spool) -> None:
    """It was 82 to 91 wide, with an empty line after each row. The ids that are shown are enough for `show`."""
    lines = lines_at(80, "list")
    assert len(lines) == 4 + 5 + 1
    shown = [found[1] for line in lines if (found := re.match(r"  (\d{8}T\S+) ", line))]
    assert len(shown) == 4
    ids = [row.id for row in spool.list() if row.id[0] == "2"]
    assert sorted(next(iter(spool.ids(one))) for one in shown) == sorted(ids)
    assert all(spool.ids(one) == [whole] for one, whole in zip(sorted(shown), sorted(ids), strict=True))
    for width in (60, 40, 20):
        assert len(lines_at(width, "list")) == len(lines)
    lines_at(50, "list", "--columns", "id,state,command,created,finished")
    lines_at(60, "dlq", "list")


def test_ids_are_whole_where_there_is_room(spool: Spool) -> None:
    """As before; and a short list of short ids is not changed at all."""
    text = "\n".join(lines_at(200, "list"))
    assert all(row.id in text for row in spool.list())


def test_long_list_is_a_table_too(spool_dir: Path) -> None:
    """Beyond 1,000 jobs it fell apart into plain lines. What is drawn quickly looks as what rich draws."""
    spool = Spool(spool_dir)
    spool.enqueue_many({"command": f"echo job number {n} " + "ü" * 60, "id": f"j{n:04}"} for n in range(1200))
    lines = lines_at(80, "list")
    assert len(lines) == 4 + 1200 + 1
    rows = [line for line in lines if re.match(r"  j\d{4} ", line)]
    assert len(rows) == 1200
    assert {line.index("pending") for line in rows} == {rows[0].index("pending")}
    assert {line.index("…") for line in rows} == {rows[0].index("…")}
    assert {len(line) for line in rows} == {len(rows[0])}


def test_newest_jobs_come_first_for_a_person_and_with_a_limit(
    spool_dir: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """`list --limit 2` showed the two oldest. A script that reads all jobs gets them in the order of arrival."""
    spool = Spool(spool_dir)
    for job_id in "abc":
        spool.enqueue("true", id=job_id)
    assert [line[0] for line in cli("list", "--limit", "2", expect=0).stdout.splitlines()] == ["c", "b"]
    oldest = cli("list", "--limit", "2", "--sort", "arrived", expect=0).stdout.splitlines()
    assert [line[0] for line in oldest] == ["a", "b"]
    assert [line[0] for line in cli("list", expect=0).stdout.splitlines()] == ["a", "b", "c"]
    assert re.findall(r"^  ([abc]) ", on_terminal("list").text, flags=re.MULTILINE) == ["c", "b", "a"]


def test_unique_length_knows_all_jobs_of_the_spool(spool_dir: Path) -> None:
    """Also those that are not in the list, and ids of which one is the beginning of the other."""
    spool = Spool(spool_dir)
    for job_id in ("abc1", "abc2", "abd", "x", "xy"):
        spool.enqueue("true", id=job_id)
    spool.counts()
    for job_id, length in (("abc1", 4), ("abd", 3), ("x", 1), ("xy", 2)):
        assert listing.unique_length(spool, [job_id]) == length
    assert listing.unique_length(spool, ["abd", "x"]) == 3
    assert listing.unique_length(spool, []) == 0
