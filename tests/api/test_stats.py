"""How jobs have gone is counted from what is in the spool, exactly, whatever happened to the index."""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Filter, Spool
from queuectl.api import stats
from queuectl.cli.commands.stats import _percent
from queuectl.job import times

from support import drain, drop, drop_bytes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NOON = 1_795_003_200.0
"""A moment in the past of the tests' clock? It does not matter: 2026-11-18T12:00:00Z."""


def ended(
    spool: Path,
    job_id: str,
    *,
    waited: float = 1,
    ran: float = 2,
    at: float = NOON,
    dead: bool = False,
    **more: Any,
) -> None:
    """A job that ended at this moment."""
    record = {
        "id": job_id,
        "command": "true",
        "attempts": 1,
        "created_at": times.iso(at - ran - waited),
        "started_at": times.iso(at - ran),
        "finished_at": times.iso(at),
        "updated_at": times.iso(at),
        "duration": ran,
        "exit_code": 1 if dead else 0,
        **more,
    }
    drop_bytes(spool, f"{job_id}.json", json.dumps(record).encode(), "dead" if dead else "done")


def test_numbers_of_a_known_hundred(spool_dir: Path) -> None:
    """Counts, rate, and percentiles by the nearest rank, for waiting and running."""
    numbers = list(range(1, 101))
    random.Random(5).shuffle(numbers)
    for place, number in enumerate(numbers):
        ended(
            spool_dir,
            f"j{place}",
            waited=number / 10,
            ran=number,
            dead=number % 10 == 0,
            at=NOON + 36 * place,
        )

    found = Spool(spool_dir).stats(Filter(since=NOON, until=NOON + 3600))

    assert (found.all.completed, found.all.dead, found.all.ended, found.all.success) == (90, 10, 100, 0.9)
    assert (found.since, found.until) == (NOON, NOON + 3600)
    assert (found.first_start, found.last_end) == (
        min(NOON + 36 * place - number for place, number in enumerate(numbers)),
        NOON + 36 * 99,
    )
    assert found.first_start is not None
    assert found.per_hour == 100 / (NOON + 3564 - found.first_start) * 3600
    running = found.all.running
    assert (running.p50, running.p90, running.p99, running.longest, running.mean) == (50, 90, 99, 100, 50.5)
    waiting = found.all.waiting
    assert (waiting.p50, waiting.p90, waiting.p99, waiting.longest) == (5, 9, 9.9, 10)
    assert sum(running.steps) == running.count == 100
    assert dict(zip(stats.BOUNDS, running.steps, strict=False))[10.0] == 7  # 3 to 9


def test_only_what_has_ended_counts(cli: Cli, spool_dir: Path) -> None:
    """Waiting jobs, files that are none, and jobs given up before they ran have not gone in any way."""
    drop(spool_dir, "waits", command="true")
    drop_bytes(spool_dir, "bad.json", b"{", "dead")
    cli("enqueue", "--id", "away", "true", expect=0)
    cli("cancel", "away", expect=0)

    assert Spool(spool_dir).stats().all.ended == 0
    assert cli("stats", expect=0).stderr == "no jobs have ended\n"
    assert json.loads(cli("stats", "--json", expect=0).stdout)["success"] is None


def test_waiting_counts_from_when_it_could_run(spool_dir: Path) -> None:
    """A scheduled job has not waited for its own moment, and one that was retried says nothing about waiting."""
    ended(spool_dir, "later", waited=1000, ran=1, run_at=times.iso(NOON - 1 - 3))
    ended(spool_dir, "again", waited=500, attempts=3)

    found = Spool(spool_dir).stats().all

    assert (found.waiting.count, found.waiting.longest) == (1, 3)
    assert (found.attempts, found.retried, found.running.count) == (4, 1, 2)


def test_groups(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tag a job with two counts for both; by day and hour the reader's own clock decides."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # half an hour beside the others
    time.tzset()
    try:
        ended(spool_dir, "a", tags=["x", "y"], command="rsync -a b c")
        ended(spool_dir, "b", tags=["x"], dead=True, command="rsync", at=NOON + 86400)
        ended(spool_dir, "c", worker="worker-3", at=NOON + 6.5 * 3600 + 1)
        spool = Spool(spool_dir)

        def groups(by: str) -> dict[str | None, tuple[int, int]]:
            return {key: (one.completed, one.dead) for key, one in spool.stats(by=by).groups.items()}

        assert groups("tag") == {"x": (1, 1), "y": (1, 0), None: (1, 0)}
        assert groups("day") == {"2026-11-18": (1, 0), "2026-11-19": (1, 1)}
        assert groups("hour") == {
            "2026-11-18 17:00": (1, 0),
            "2026-11-19 00:00": (1, 0),
            "2026-11-19 17:00": (0, 1),
        }
        assert groups("command") == {"rsync": (1, 1), "true": (1, 0)}
        assert groups("worker") == {"worker-3": (1, 0), None: (1, 1)}
        assert groups("exit-code") == {"0": (2, 0), "1": (0, 1)}
        assert groups("reason") == {"Given up by hand": (0, 1), None: (2, 0)}
        with pytest.raises(ValueError, match="not one of tag"):
            spool.stats(by="colour")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_filters_describe_what_counts(spool_dir: Path) -> None:
    """Since and until are about the end; the others as in a list."""
    ended(spool_dir, "old", at=NOON - 3600, tags=["x"])
    ended(spool_dir, "new", at=NOON, tags=["x"], command="rsync")
    ended(spool_dir, "bad", at=NOON, dead=True)
    spool = Spool(spool_dir)

    assert spool.stats(Filter(since=NOON)).all.ended == 2
    assert spool.stats(Filter(until=NOON)).all.ended == 1
    assert spool.stats(Filter(tags=("x",), command="rsync")).all.ended == 1
    assert spool.stats(Filter(states=("dead",))).all.success == 0
    assert spool.stats(Filter(command="x" * 300)).all.ended == 0


def test_index_made_anew_says_the_same(cli: Cli, spool_dir: Path) -> None:
    """Every number comes from the files; nothing is remembered that is not in them."""
    spool = Spool(spool_dir)
    for number in range(8):
        spool.enqueue(f"exit {number % 2}", max_retries=1, tags=["x"])
    drain(spool_dir)

    before = spool.stats(by="tag", where=Filter(until=time.time() + 1))
    spool.reindex()
    after = spool.stats(by="tag", where=Filter(until=time.time() + 1))

    assert before.all.ended == 8
    assert (before.all.to_dict(), before.groups["x"].to_dict(), before.steps) == (
        after.all.to_dict(),
        after.groups["x"].to_dict(),
        after.steps,
    )


def test_sample_of_many_is_close(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more jobs than SAMPLE the counts stay exact and the percentiles near."""
    for number in range(1000):
        ended(spool_dir, f"j{number}", ran=1 + number)
    monkeypatch.setattr(stats, "SAMPLE", 300)

    found = Spool(spool_dir).stats()

    assert (found.sampled, found.all.ended, found.all.running.longest) == (True, 1000, 1000)
    assert 40 < found.all.running.count < 90
    assert 400 < (found.all.running.p50 or 0) < 600


def test_throughput_is_measured_while_jobs_ran(spool_dir: Path) -> None:
    """Neither the beginning of a quarter of an hour nor the present has anything to do with it."""
    for number in range(60):
        ended(spool_dir, f"j{number}", at=NOON + 400 + number / 4, ran=0.25)

    found = Spool(spool_dir).stats()

    assert (found.first_start, found.last_end) == (NOON + 399.75, NOON + 414.75)
    assert found.per_hour == 60 / 15 * 3600


def test_shares_are_rounded_but_nearly_all_is_not_all() -> None:
    """Two of three are 66.7 % and were 66.6. One failure in 100,000 must not look like none."""
    shares = [_percent(2, 3), _percent(1, 3), _percent(99_999, 100_000), _percent(1, 100_000)]
    assert shares == ["66.7", "33.3", "99.9", "0.1"]
    assert [_percent(3, 3), _percent(0, 3), _percent(1, 2)] == ["100.0", "0.0", "50.0"]


def test_plain_lines_and_groups(cli: Cli, spool_dir: Path) -> None:
    """In a pipe: a fact a line, then a line a group."""
    for number in range(999):
        ended(spool_dir, f"j{number}", tags=["x"])
    ended(spool_dir, "bad", dead=True)

    lines = cli(
        "stats", "--since", "2026-11-18T11:00Z", "--until", "2026-11-18T13:00Z", "--by", "tag"
    ).stdout.splitlines()

    assert re.fullmatch(r"Completed +999 \(99\.9%\)", lines[2])
    assert re.fullmatch(r"Throughput +500\.0 a second, from .* to .*", lines[4])
    assert re.fullmatch(r"Running +p50 2\.0s, p90 2\.0s, p99 2\.0s, max 2\.0s", lines[7])
    assert lines[-2:] == [
        "x - 999 ended - 100.0% - 0 dead - waited 1.0s - ran 2.0s",
        "- - 1 ended - 0.0% - 1 dead - waited 1.0s - ran 2.0s",
    ]


def test_json_has_all_of_it(cli: Cli, spool_dir: Path) -> None:
    """Programs get numbers, seconds and UTC."""
    ended(spool_dir, "a", tags=["x"], ran=0.5)
    ended(spool_dir, "b", dead=True, at=NOON + 1000)

    told = json.loads(cli("stats", "--by", "tag", "--json", expect=0).stdout)

    assert (told["ended"], told["dead"], told["success"], told["by"]) == (2, 1, 0.5, "tag")
    assert told["running"]["max"] == 2.0
    assert told["running"]["steps"] == [{"below": 1.0, "jobs": 1}, {"below": 3.0, "jobs": 1}]
    assert told["over_time"] == [
        {"since": "2026-11-18T12:00:00.000000Z", "completed": 1, "dead": 0},
        {"since": "2026-11-18T12:15:00.000000Z", "completed": 0, "dead": 1},
    ]
    assert {group["tag"]: group["ended"] for group in told["groups"]} == {"x": 1, None: 1}


def test_plots_on_a_terminal(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars over time and by length, in 80 columns; the longest bar is the most."""
    monkeypatch.setenv("TZ", "UTC")
    for number in range(40):
        ended(spool_dir, f"j{number}", ran=0.2 if number < 30 else 40, at=NOON + 7200 * (number % 4 == 0))

    seen = on_terminal("stats", "--by", "day", width=80)

    assert max(map(len, seen.text.splitlines())) <= 80
    assert re.search(r"^  11-18 12:00 █{40} 30$", seen.text, flags=re.MULTILINE)
    assert re.search(r"^  11-18 13:00 +$", seen.text, flags=re.MULTILINE)
    assert re.search(r"^  11-18 14:00 █{13}▎ 10$", seen.text, flags=re.MULTILINE)
    assert re.search(r"^ +< 300ms █{40} 75\.0%$", seen.text, flags=re.MULTILINE)
    assert re.search(r"^ +< 1m █{13}▎ 25\.0%$", seen.text, flags=re.MULTILINE)
    assert "2026-11-18   40" in seen.text


def test_wrong_group_is_a_usage_error(cli: Cli, spool_dir: Path) -> None:
    """The names are told."""
    assert "is not one of tag, day, hour, command" in cli("stats", "--by", "color", expect=2).stderr
