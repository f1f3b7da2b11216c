"""A list in pages: together they are the list, whatever comes meanwhile, and a late page is no slower than the first."""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Filter, Spool
from queuectl.index import paging, sorting
from queuectl.job import times

from support import drain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from queuectl.api.row import Row

ORDERS = ("arrived", "-arrived", "finished", "-finished", "next", "-next")


@pytest.fixture
def many(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """Sixty jobs, some of them done and dead, some of which ended in one moment; read as in a large spool, in small steps."""
    monkeypatch.setattr(sorting, "LARGE", 5)
    monkeypatch.setattr(paging, "STEP", 7)
    dice = random.Random(3)
    for folder in ("done", "dead"):
        (spool_dir / folder).mkdir(parents=True, mode=0o700, exist_ok=True)
    for number in range(30):
        folder = dice.choice(["done", "dead"])
        ended = times.iso(1.8e9 + dice.choice([0, 1, 2, number]))
        job = {
            "id": f"old-{number}",
            "command": "true",
            "finished_at": ended if number % 5 else None,
            "tags": ["x"] * (number % 9 == 0),
        }
        (spool_dir / folder / f"old-{number}.json").write_text(json.dumps(job))
    spool = Spool(spool_dir)
    for number in range(30):
        spool.enqueue(
            "true", id=f"new-{number}", priority=dice.randint(1, 9), tags=["x"] if number % 9 == 0 else []
        )
    return spool


def walk(spool: Spool, where: Filter, limit: int, *, backwards: bool = False) -> Iterator[list[Row]]:
    """All pages."""
    page = spool.page(where, limit=limit)
    if backwards:
        while page.more:
            page = spool.page(where, after=page.last, limit=limit)
        yield page.rows
        while page.rows:
            page = spool.page(where, before=page.first, limit=limit)
            yield page.rows
        return
    yield page.rows
    while page.more:
        page = spool.page(where, after=page.last, limit=limit)
        yield page.rows


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize(
    "fields", [{}, {"states": "dead"}, {"tags": "x"}, {"command": "RUE"}, {"tags": "nobody"}]
)
def test_pages_make_up_the_list(many: Spool, sort: str, fields: dict[str, Any]) -> None:
    """Forwards and backwards, none twice and none left out, also of those that ended in one moment."""
    where = Filter(**fields, sort=sort)
    whole = [row for row in many.list(where=where) if _is_in(row, sort)]

    for limit in (1, 4, 100):
        pages = [*walk(many, where, limit)]
        ids = [row.id for page in pages for row in page]
        assert sorted(ids) == sorted(row.id for row in whole)
        assert all(len(page) == limit for page in pages[:-1])
        # Those without a time, as of a job that was cancelled before it ran, are at the end where the oldest are.
        keys = [row.finished_at or 0.0 for row in itertools.chain(*pages) if "finished" in sort]
        assert keys == sorted(keys, reverse=sort.startswith("-"))
        back = [*walk(many, where, limit, backwards=True)]
        assert [row.id for page in reversed(back) for row in page] == ids
        assert "finished" in sort or ids == [row.id for row in whole]


def _is_in(row: Row, sort: str) -> bool:
    return "next" not in sort or row.state == "pending"


@pytest.mark.parametrize("sort", ["next", "-next"])
def test_equal_jobs_are_in_pages_as_in_the_list(many: Spool, sort: str) -> None:
    many._index.db.execute("UPDATE jobs SET ready_key = 7 WHERE ready_key IS NOT NULL")
    where = Filter(states="pending", sort=sort)

    pages = [row.id for page in walk(many, where, 4) for row in page]
    assert pages == [row.id for row in many.list(where=where)]
    other = Filter(states="pending", sort="next" if sort == "-next" else "-next")
    assert pages == [row.id for row in many.list(where=other)][::-1]


def test_what_comes_meanwhile_moves_no_page(many: Spool) -> None:
    newest = Filter(sort="-arrived")
    first = many.page(newest, limit=10)
    for number in range(5):
        many.enqueue("true", id=f"late-{number}")

    second = many.page(newest, after=first.last, limit=10)
    newer = many.page(newest, before=first.first, limit=10)

    assert [row.id for row in second.rows] == [f"new-{number}" for number in range(19, 9, -1)]
    assert [row.id for row in newer.rows] == [f"late-{number}" for number in range(4, -1, -1)]
    assert not newer.more


def test_a_search_that_finds_nothing_ends_when_the_patience_does_and_goes_on(many: Spool) -> None:
    """And is at the end in the end: each page says how far it has come."""
    where = Filter(tags="nobody", sort="-arrived")
    page = many.page(where, patience=0.0)
    looks = 1
    while page.more:
        assert (page.rows, page.is_searched) == ([], False)
        page = many.page(where, after=page.last, patience=0.0)
        looks += 1

    assert (page.rows, page.is_searched, looks) == ([], True, -(-60 // 7))


@pytest.mark.parametrize("state", ["completed", "dead"])
def test_the_jobs_of_one_state_are_found_at_once_behind_all_others(many: Spool, state: str) -> None:
    """The thirty jobs that arrived last wait: nobody has to go on with the search until they have been looked through."""
    ids = [row.id for row in many.list(where=Filter(states=state, sort="-arrived"))]

    page = many.page(Filter(states=state, sort="-arrived"), limit=5, patience=0.0)
    next_page = many.page(Filter(states=state, sort="-arrived"), after=page.last, limit=50, patience=9.0)

    assert page.is_searched
    assert [row.id for row in (*page.rows, *next_page.rows)] == ids


def test_the_text_of_a_long_command_is_found_in_its_file(many: Spool) -> None:
    for number in range(4):
        many.enqueue(f"true {'x' * 300} end-{number % 2}", id=f"long-{number}")

    found = many.page(Filter(command="END-1", sort="-arrived"), limit=2)

    assert [row.id for row in found.rows] == ["long-3", "long-1"]
    assert not found.more


def test_a_late_page_costs_no_more_than_the_first(many: Spool) -> None:
    """Counted in steps of SQLite's machine. Rows that were skipped by number would all be stepped over."""
    where = Filter(sort="-arrived")

    def steps(after: str | None) -> int:
        count = itertools.count()
        many._index.db.set_progress_handler(lambda: next(count) and 0, 10)
        try:
            many.page(where, after=after, limit=5)
        finally:
            many._index.db.set_progress_handler(None, 0)
        return next(count)

    first = many.page(where, limit=5)
    late = many.page(where, limit=50)
    assert steps(late.last) <= steps(first.last) * 1.5 + 5


def test_a_running_job_is_no_end_of_a_page(spool_dir: Path, many: Spool) -> None:
    """It shows the start of its present run, and nothing of the last end by which it is sorted."""
    drain(spool_dir)

    assert many.page(Filter(sort="-finished"), limit=1).last is not None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"after": "x"}, "is not a place in a list that is sorted by arrived"),
        ({"after": "1.2"}, "is not a place"),
        ({"before": "١"}, "is not a place"),
        ({"after": "9" * 30}, "is not a place"),
        ({"after": "1", "before": "2"}, "not both"),
        ({"limit": 0}, "must be 1 or more"),
        ({"where": Filter(sort="command")}, "cannot be sorted by command"),
    ],
)
def test_wrong_places_are_refused_in_plain_words(many: Spool, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        many.page(**given)
