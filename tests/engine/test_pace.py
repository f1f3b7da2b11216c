"""How fast jobs are fed: less to an engine that is full, and not against somebody who cancels them there."""

from __future__ import annotations

from queuectl.engine.pace import Pace


def test_a_full_engine_gets_half_for_a_minute() -> None:
    """And less again if that is too many; after a minute all."""
    pace = Pace()
    assert pace.most(200, 0) == 200
    pace.full(100, 0)
    assert (pace.most(200, 0), pace.most(30, 59), pace.most(200, 60)) == (50, 30, 200)
    pace.full(100, 100)
    pace.full(50, 110)
    assert (pace.most(200, 169), pace.most(200, 170)) == (25, 200)
    for _ in range(9):
        pace.full(1, 171)
    assert pace.most(200, 171) == 1  # never none: that would never end


def test_feeding_rests_when_others_cancel_our_jobs() -> None:
    """A minute, then two, up to ten, while it goes on; from the beginning when it was quiet for as long."""
    pace = Pace()
    now, rests = 1000.0, []
    for _ in range(6):
        pace.cancelled_by_others(now)
        pace.cancelled_by_others(now + 1)
        assert (pace.most(200, now + 2), pace.cancelled) == (0, 2)
        rests.append(pace.rests_until - now)
        now = pace.rests_until
        assert pace.most(200, now) == 200
    assert rests == [60, 120, 240, 480, 600, 600]
    now = pace.rests_until + 601
    pace.cancelled_by_others(now)
    assert (pace.rests_until - now, pace.cancelled) == (60, 1)
