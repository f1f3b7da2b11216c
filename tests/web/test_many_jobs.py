"""A page of a spool with very many jobs costs what one of few costs: counted in statements and steps of SQLite, not in time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from asgi import Browser

from queuectl import Spool
from queuectl.index import batches, paging, queue_counts, sorting
from queuectl.index.row import Row, values_of
from queuectl.web.site import NOTES

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ["/", "/?plot=day", "/jobs", "/jobs?sort=arrived", "/jobs?sort=-finished", "/jobs?sort=next", "/jobs?state=completed",
         "/jobs?state=dead", "/dead", "/dead?reason=Exit+code+1", "/line", "/queues", "/batches", "/workers", "/rules",
         "/job/wait", "/job/last", "/job/last/log"]  # fmt: skip


def ended(number: int) -> Row:
    """A job that ended at its own second, long ago."""
    state, place = ("dead", "dead") if number % 10 == 3 else ("completed", "done")
    moment = (1_000_000 + number) * 1_000_000
    return Row(
        id=f"job{number}", state=state, place=place, name=f"job{number}.json", arrived=moment, created_at=moment, attempts=1,
        started_at=moment, finished_at=moment, duration=5, command="true", seq=number + 1, size=100, inode=1, mtime=1,
        lane="mail" if number % 4 == 1 else None, batch=f"batch{number % 7}" if number % 5 == 2 else None,
        last_error="Exit code 1" if state == "dead" else None,
    )  # fmt: skip


def costs(folder: Path, number: int) -> dict[str, tuple[int, int]]:
    """How many statements and steps each page takes while so many jobs have ended and a hundred wait."""
    spool = Spool(folder)
    spool.enqueue_many([{"command": "true", "id": f"w{one}"} for one in range(100)])
    spool.enqueue("true", id="wait", hold=True)
    (folder / "dead" / "last.json").write_text(
        '{"command": "x", "attempts": 1, "last_error": "Exit code 1"}', encoding="utf-8"
    )
    spool.refresh()
    with spool._index.write():
        first = spool._index.next_seq()
        rows = (ended(one) for one in range(first, first + number))
        while part := list(itertools.islice(rows, 20_000)):
            assert spool._index.insert_new([values_of(row) for row in part]) == len(part)
    spool.close()
    browser = Browser(folder).login()
    found = {}
    for path in PAGES:
        browser.site._counted.pop(NOTES, None)
        assert browser.get(path).status == 200  # the first one of its kind makes an index
        [lent] = browser.site._free
        steps = itertools.count()
        asked: list[str] = []
        lent._index.db.set_progress_handler(lambda steps=steps: next(steps) and 0, 10)  # type: ignore[misc]  # bound at once
        lent._index.db.set_trace_callback(asked.append)
        assert browser.get(path).status == 200
        lent._index.db.set_progress_handler(None, 0)
        lent._index.db.set_trace_callback(None)
        found[path] = (len(asked), next(steps) * 10)
    browser.site.close()
    return found


@pytest.mark.parametrize(("few", "many"), [(600, 3000), pytest.param(2000, 200_000, marks=pytest.mark.slow)])
def test_no_page_costs_more_when_there_are_very_many_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, many: int
) -> None:
    """The first one that was measured, of 60,000 jobs, took five times as long as one of a thousand.

    What is counted once for all tabs is left out: it is of the newest thousand jobs.
    """
    monkeypatch.setattr(paging, "STEP", 100)
    for module, name in ((sorting, "LARGE"), (queue_counts, "COUNT_ABOVE"), (batches, "COUNT_ABOVE")):
        monkeypatch.setattr(module, name, 500)
    least, most = (costs(tmp_path / f"{number}", number) for number in (few, many))

    grown = {path: (least[path], most[path]) for path in PAGES
             if most[path][0] > least[path][0] + 2 or most[path][1] > least[path][1] * 1.3 + 1000}  # fmt: skip
    assert grown == {}
