"""What is decided about an attempt on a cluster: no rule lets a command run twice, whatever the engine claims."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.engine.verdict import (
    MARGIN,
    MOST_SENDS,
    SEND_AGAIN_AFTER,
    SILENT_BEATS,
    Claim,
    Limits,
    Rows,
    Seen,
    Silence,
    Verdict,
    judge,
)

LIMITS = Limits(beat=10, fence=600, grace=5)
SILENCES = (None, 0.0, 29.9, 30.1, 634.9, 635.1, 1e9)
EVERYTHING = [
    Seen(recorded, claim, silence, left, rows, since, sends)
    for recorded, claim, silence, left, rows, since, sends in itertools.product(
        (True, False), Claim, SILENCES, (True, False), Rows, (0.0, 29.9, 30.0, 1e9), (1, MOST_SENDS)
    )
]


def cases(verdict: Verdict) -> list[Seen]:
    return [seen for seen in EVERYTHING if judge(seen, LIMITS) is verdict]


def test_a_record_is_collected_whatever_else_is_said() -> None:
    """Row 1, and only it: nothing is collected that was not written down."""
    assert cases(Verdict.COLLECT) == [seen for seen in EVERYTHING if seen.recorded]


def test_a_begun_attempt_is_given_up_only_after_its_runner_has_ended_it() -> None:
    """Rows 2 and 3: the silence decides, and never what the engine says."""
    lost = cases(Verdict.LOST)
    assert lost
    for seen in lost:
        assert seen.claim is Claim.RUNNER
        assert seen.silence is not None
        assert seen.silence > LIMITS.fence + LIMITS.grace + MARGIN
    for seen in cases(Verdict.RUNNING):
        assert seen.claim is Claim.RUNNER
        assert (seen.silence or 0) <= LIMITS.give_up


def test_what_a_runner_has_begun_is_neither_sent_nor_taken_back() -> None:
    """Whoever has the claim of a runner before him waits, collects, or gives up after the fence."""
    for seen in EVERYTHING:
        if seen.claim is Claim.RUNNER:
            assert judge(seen, LIMITS) in (Verdict.COLLECT, Verdict.RUNNING, Verdict.LOST)


def test_a_job_goes_back_only_with_a_claim_of_ours() -> None:
    """Rows 4, 6 and 7: what is revoked has no claim of anybody yet, and the link decides who gets it."""
    assert {seen.claim for seen in cases(Verdict.PUT_BACK)} == {Claim.DISPATCHER}
    assert {seen.claim for seen in (*cases(Verdict.REVOKE), *cases(Verdict.GIVE_UP))} == {Claim.NOBODY}


def test_the_rest_of_a_dead_runner_does_not_wait_for_the_fence() -> None:
    """Row 4, trap 14: three silent beats are enough for what has not begun."""
    for seen in cases(Verdict.REVOKE):
        assert seen.left or (seen.silence or 0) > SILENT_BEATS * LIMITS.beat
    assert judge(Seen(silence=30.1, rows=Rows.LIVE, rows_since=1e9), LIMITS) is Verdict.REVOKE
    assert judge(Seen(silence=29.9, rows=Rows.NONE, rows_since=1e9), LIMITS) is Verdict.QUEUED


def test_a_pack_is_sent_again_only_when_the_engine_knows_nothing_of_it() -> None:
    """Rows 5 and 6: not while it is queued there, not while the engine does not answer, and not for ever."""
    for verdict in (Verdict.SEND, Verdict.GIVE_UP):
        for seen in cases(verdict):
            assert (seen.silence, seen.rows) == (None, Rows.NONE)
            assert seen.rows_since >= SEND_AGAIN_AFTER
            assert (seen.sends < MOST_SENDS) == (verdict is Verdict.SEND)
    assert all(judge(seen, LIMITS) is not Verdict.SEND for seen in EVERYTHING if seen.rows is Rows.UNKNOWN)


def test_an_engine_that_does_not_answer_changes_nothing() -> None:
    """Without rows an attempt is never sent, given up, or lost any sooner than with them."""
    allowed = {Verdict.COLLECT, Verdict.PUT_BACK, Verdict.RUNNING, Verdict.LOST}
    allowed |= {Verdict.REVOKE, Verdict.QUEUED, Verdict.WAIT}
    assert {judge(seen, LIMITS) for seen in EVERYTHING if seen.rows is Rows.UNKNOWN} == allowed


# -- silence -----------------------------------------------------------------------------------------------------------


def test_silence_ends_with_each_change_of_the_beat() -> None:
    """What is counted is the time without a change, by our own clock."""
    silence = Silence(100.0)
    assert [silence.look(b"1", 100.0), silence.look(b"1", 101.0), silence.look(b"1", 104.0)] == [0, 1, 4]
    assert silence.look(b"2", 105.0) == 0
    assert silence.look(b"2", 106.0) == 1


def test_silence_does_not_count_while_the_share_is_away() -> None:
    """A file server that was away for an hour has silenced all runners, and killed none."""
    silence = Silence(0.0)
    silence.look(b"1", 0.0)
    for moment in range(1, 3600):
        silence.miss(float(moment))
    assert silence.look(b"1", 3600.0) == 1
    assert silence.look(b"1", 7200.0) == 6  # nobody looked for an hour: it counts as one short gap
    assert silence.look(b"1", 7000.0) == 6  # a clock that goes backwards takes nothing away


# -- a world that lies -------------------------------------------------------------------------------------------------


@dataclass
class Runner:
    """A runner in the model: it beats, claims, runs, fences itself; it may be frozen, and dies with its command."""

    beat: int = 1
    beaten_at: float = 0.0
    frozen: bool = False
    dead: bool = False
    has: set[int] = field(default_factory=set)
    runs: int | None = None
    begun_at: float = 0.0


class World:
    """Packs of one job after the other, runners at any time, and an engine whose words are drawn by lot."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.now = draw, 0.0
        self.runners: list[Runner] = []
        self.claims: dict[int, Runner | None] = {}
        self.records: dict[int, str] = {}
        self.attempt = 0
        self.sent = [True]
        self.sends = [1]
        self.rows: tuple[Rows, float] = (Rows.UNKNOWN, 0.0)
        self.begun: list[int] = []
        self.silences: dict[int, Silence] = {}
        self.verdicts: set[Verdict] = set()
        self.outcomes: list[str] = []

    def alive(self) -> list[int]:
        """The attempts whose commands live now."""
        return [one.runs for one in self.runners if one.runs is not None and not one.dead]

    def nodes(self) -> None:
        """What the cluster does in some seconds: whatever it likes, as far as runners keep their own rules."""
        for one in self.runners:
            if one.dead:
                continue
            if self.draw.random() < 0.02:
                one.frozen = not one.frozen
            if self.draw.random() < 0.02:
                one.dead, one.runs = True, None  # its guard ends the command with it
                continue
            if not one.frozen and self.draw.random() < 0.9:
                one.beat, one.beaten_at = one.beat + 1, self.now
            # The guard keeps the fence while the runner hangs. A frozen node is frozen with its command.
            if one.runs is not None and self.now - one.beaten_at > LIMITS.fence:
                self.records.setdefault(one.runs, "fenced") if not one.frozen else None
                one.runs = None
            if one.frozen or self.now - one.beaten_at > LIMITS.fence:
                continue
            if one.runs is not None and self.draw.random() < 0.05:
                self.records[one.runs] = "over"
                one.runs = None
            if one.runs is None and self.draw.random() < 0.3:
                for attempt in range(self.attempt + 1):
                    if self.sent[attempt] and attempt not in self.claims:
                        self.claims[attempt] = one
                        one.runs = attempt
                        assert len(self.alive()) == 1, "two commands of one job at once"
                        assert attempt not in self.begun
                        self.begun.append(attempt)
                        break
        if self.draw.random() < 0.15 and len(self.runners) < 40:
            self.runners.append(
                Runner(beaten_at=self.now)
            )  # sent once or five times, accepted or not: who knows

    def look(self) -> None:
        """One look of the dispatcher, and what follows."""
        attempt, owner = self.attempt, self.claims.get(self.attempt)
        claim = Claim.NOBODY if attempt not in self.claims else Claim.RUNNER if owner else Claim.DISPATCHER
        if self.draw.random() < 0.3:
            rows = self.draw.choice(list(Rows))
            self.rows = rows, self.now if rows is not self.rows[0] else self.rows[1]
        heard = [self.heard(one) for one in self.runners if not owner or one is owner]
        seen = Seen(
            attempt in self.records, claim, min(heard) if heard else None, False, self.rows[0],
            self.now - self.rows[1], self.sends[attempt],
        )  # fmt: skip
        verdict = judge(seen, LIMITS)
        self.verdicts.add(verdict)
        if verdict is Verdict.SEND:
            self.sends[attempt] += 1
        elif verdict in (Verdict.REVOKE, Verdict.GIVE_UP):
            self.claims.setdefault(attempt, None)
        elif verdict in (Verdict.COLLECT, Verdict.LOST, Verdict.PUT_BACK):
            assert attempt not in self.alive(), f"{verdict} while it runs"
            self.outcomes.append(self.records.get(attempt, str(verdict)))
            self.attempt += 1
            self.sent.append(True)
            self.sends.append(1)
            self.rows = self.rows[0], self.now

    def heard(self, one: Runner) -> float:
        """The silence of a runner, as the dispatcher counts it."""
        known = self.silences.setdefault(id(one), Silence(self.now, longest_gap=60))
        return known.look(str(one.beat).encode(), self.now)


@settings(max_examples=50)
@given(st.integers(min_value=0))
@pytest.mark.parametrize("looks", [1, 7])
def test_no_schedule_runs_a_job_twice_at_once(looks: int, seed: int) -> None:
    """Nodes freeze, die and wake, runners come in any number, the engine lies: one run at a time, one outcome each."""
    world = World(random.Random(seed))
    for _ in range(300):
        world.now += world.draw.choice((1, 10, 40))
        world.nodes()
        if world.draw.randrange(looks) == 0:
            world.look()
    assert len(world.begun) == len(set(world.begun))
    assert len(world.outcomes) == world.attempt


def test_the_model_comes_to_each_verdict() -> None:
    """Otherwise the test above would prove little."""
    reached: set[Verdict] = set()
    for seed in range(30):
        world = World(random.Random(seed))
        for _ in range(300):
            world.now += world.draw.choice((1, 10, 40))
            world.nodes()
            world.look()
        reached |= world.verdicts
    assert reached >= {
        Verdict.COLLECT,
        Verdict.RUNNING,
        Verdict.LOST,
        Verdict.QUEUED,
        Verdict.REVOKE,
        Verdict.PUT_BACK,
    }
