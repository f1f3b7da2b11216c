"""The thread of a dispatcher for the shared folder: nobody waits for it, and nothing of it goes on after its end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from queuectl.engine.handed import Back
from queuectl.engine.summary import Summary, in_words
from queuectl.worker.share import (
    FIRST_PAUSE,
    IDLE_PAUSE,
    LONGEST_PAUSE,
    SHORTEST_PAUSE,
    Share,
    is_fault_of_the_share,
)

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Packs:
    """A tracker that has nothing out, and can hang."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.hangs.set()
        self.looks: list[float] = []
        self.full = ""
        self.find: Callable[[], list[Back]] = list
        self.idle: int | None = 4
        self.packs, self.handed = 0, ()
        self.has_changed = False
        self.unreadable, self.doubtful = dict[str, str](), frozenset[tuple[str, str]]()

    def tick(self, now: float) -> list[Back]:
        """Look at everything; it takes as long as the folder hangs."""
        self.hangs.wait(60)
        self.looks.append(now)
        return self.find()

    def over(self) -> list[str]:
        """No pack is over."""
        return []


def share_of(
    packs: Packs, clock: Callable[[], float] = lambda: 0.0, check: Callable[[], str | None] = lambda: None
) -> Share:
    return Share(lambda: packs, check, lambda: None, clock)  # type: ignore[arg-type, return-value]


@pytest.fixture
def packs() -> Iterator[Packs]:
    made = Packs()
    yield made
    made.hangs.set()


def test_orders_are_carried_out_in_order_and_their_events_are_reported(packs: Packs) -> None:
    share, done = share_of(packs), list[str]()
    share.post(lambda *_: [Back(("a", "1"))], lambda: done.append("first"))
    share.post(lambda *_: [Back(("b", "1"))])
    assert not share.is_up_to_date
    share.turn()
    share.turn()
    assert share.is_up_to_date
    found = share.reports()
    assert [[event.key[0] for event in one.events] for one in found] == [["a"], ["b"]]
    assert [one.then() for one in found if one.then] == [None]
    assert (done, share.reports()) == (["first"], [])


def test_nothing_is_known_before_the_folder_was_opened(packs: Packs) -> None:
    share = share_of(packs)
    assert (share.summary, share.is_up_to_date) == (None, False)
    share.turn()
    assert share.summary == Summary(idle=4)


def test_the_first_answer_of_the_engine_ends_the_wait_of_the_main_thread(packs: Packs) -> None:
    """Nothing is handed over before it. A dispatcher was idle for two seconds after its start."""
    now, woken = 10.0, list[float]()
    share = Share(lambda: packs, lambda: None, lambda: woken.append(now), lambda: now)  # type: ignore[arg-type, return-value]
    packs.idle = None
    share.turn()
    packs.idle, packs.has_changed = 4, True
    assert woken == []
    now += FIRST_PAUSE * 1.01
    share.turn()
    assert (woken, share.summary) == ([now], Summary(idle=4))
    packs.has_changed = True
    now += 2
    share.turn()
    assert len(woken) == 1


def test_it_looks_seldom_while_nothing_is_out(packs: Packs) -> None:
    now = 10.0
    share = share_of(packs, lambda: now)
    for _ in range(3):
        share.turn()
    now += IDLE_PAUSE
    share.turn()
    assert packs.looks == [10.0, 10.0 + IDLE_PAUSE]


def test_what_is_handed_over_while_nothing_is_out_is_looked_at_soon(packs: Packs) -> None:
    """The end of the only job on the cluster was recorded up to a second late."""
    now = 10.0
    share = share_of(packs, lambda: now)
    share.turn()

    def hand(*_: object) -> list[Back]:
        packs.packs = 1
        return []

    share.post(hand)
    share.turn()
    now += SHORTEST_PAUSE * 1.01
    share.turn()
    assert packs.looks == [10.0, now]


@pytest.mark.parametrize(
    ("took", "found", "pause"),
    [
        (0.001, 0, SHORTEST_PAUSE),
        (0.01, 0, 0.5),
        (3.0, 0, LONGEST_PAUSE),
        (1.5, 1, 1.5),
        (0.001, 1, SHORTEST_PAUSE),
    ],
)
def test_a_look_that_took_long_does_not_keep_the_next_ends_waiting(
    packs: Packs, took: float, found: int, pause: float
) -> None:
    """On a busy machine the last ends of 600 jobs were seen 40 s late, as the look before had taken two."""
    now = 10.0
    packs.packs = 1
    share = share_of(packs, lambda: now)

    def spend() -> list[Back]:
        nonlocal now
        now += took
        return [Back(("a", "1"))] * found

    packs.find = spend
    share.turn()
    for step in (pause * 0.99, pause * 0.02):
        now += step
        share.turn()
    assert packs.looks == [10.0, pytest.approx(10.0 + took + pause * 1.01)]


def test_a_fault_ends_it_and_is_told(packs: Packs) -> None:
    """The share may be back later; any other fault is one of queuectl."""
    share = share_of(packs)

    def refuse(*_: object) -> list[Back]:
        raise OSError(5, "input/output error")

    share.post(refuse)
    share.start()
    assert share.end(10)
    assert share.fault is not None
    assert is_fault_of_the_share(share.fault)
    assert not is_fault_of_the_share(KeyError("a bug"))


def test_its_end_wakes_the_main_thread_when_another_one_may_follow(packs: Packs) -> None:
    """Another shared folder counted seconds late."""
    seen: list[bool] = []
    share = Share(lambda: packs, lambda: None, lambda: seen.append(share.has_ended))  # type: ignore[arg-type, return-value]
    share.start()
    assert share.end(10)
    assert seen[-1]


def test_a_call_that_hangs_keeps_nobody_waiting_and_nothing_follows_it(packs: Packs) -> None:
    """It was closed meanwhile: what it had still to do would meet what the next one does."""
    share = share_of(packs)
    packs.hangs.clear()
    share.start()
    wait_until(lambda: share.busy_since is not None)
    share.post(lambda *_: [Back(("late", "1"))])
    assert not share.end(0.05)
    packs.hangs.set()
    wait_until(lambda: share.has_ended)
    assert share.reports() == []


def test_others_that_can_write_there_are_seen_while_it_runs(packs: Packs) -> None:
    now, found = 0.0, [None, "others can write to it"]
    share = share_of(packs, lambda: now, lambda: found.pop(0))
    share.turn()
    assert share.danger is None
    now += 2
    share.turn()
    assert share.danger == "others can write to it"


@pytest.mark.parametrize(
    ("jobs", "running", "reasons", "text"),
    [
        (0, 0, {}, "0 run, 0 wait there"),
        (136, 96, {"Priority": 4, "Resources": 36}, "96 run, 40 wait there (Resources 36, Priority 4)"),
        (12000, 2000, {"a": 1, "b": 1, "c": 2, "d": 1}, "2,000 run, 10,000 wait there (c 2, a 1, b 1)"),
    ],
)
def test_what_is_out_is_told_in_a_line(jobs: int, running: int, reasons: dict[str, int], text: str) -> None:
    assert in_words(jobs, running, reasons) == text
