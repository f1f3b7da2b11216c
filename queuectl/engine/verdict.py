"""What the dispatcher does about an attempt that it has handed to an engine: a pure function of what can be seen of it.

The engine only starts runners. It is never believed about what has become of a command: Slurm was seen to say "failed" of
a job that it had accepted, NODE_FAIL of a command that went on to its end, and to forget jobs and give their numbers
away. What decides is in the folder of the pack: the record of the outcome, the claim, and the signs of life (beats) of
the runner. What the engine says only tells how long to wait for a runner that has not come.

Why nothing runs twice:

- An attempt begins only when its runner has made the claim, and a claim is made once. So a pack may be sent again at any
  time, and the dispatcher that gets the claim itself (it revokes) knows that the attempt has not begun and never will.
- An attempt that has begun is given up only when its runner has been silent for longer than the runner itself bears
  (`Limits.give_up`): by then the runner has ended the command.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

MARGIN = 30.0
"""Seconds by which the dispatcher waits longer than the runner, which needs time to wake and to end processes."""

SILENT_BEATS = 3
"""Beats that must be missing until a runner counts as gone for attempts that it has not begun."""

SEND_AGAIN_AFTER = 30.0
"""Seconds for which the engine must know nothing of a pack before it is sent again. A slow answer must not double it."""

MOST_SENDS = 5
"""Sends of a pack for which no runner has come. The engine does not take it, for a reason that another try does not mend."""


class Claim(enum.StrEnum):
    """Who has an attempt."""

    NOBODY = "nobody"
    RUNNER = "runner"
    DISPATCHER = "dispatcher"


class Rows(enum.StrEnum):
    """What the engine says of the jobs with the name of a pack."""

    UNKNOWN = "unknown"
    LIVE = "live"
    NONE = "none"
    """There is none, or all of them are over."""


class Verdict(enum.StrEnum):
    """What to do about an attempt."""

    COLLECT = "collect"
    """Record the outcome that its runner has written."""
    RUNNING = "running"
    """Wait: it runs there."""
    LOST = "lost"
    """Record that its run was interrupted: neither it nor its runner is alive."""
    QUEUED = "queued"
    """Wait: the engine, or a runner at work in the pack, is going to begin it."""
    WAIT = "wait"
    """Wait: nobody knows yet whether the engine has it."""
    SEND = "send"
    """Send its pack to the engine again."""
    REVOKE = "revoke"
    """Take its claim, and if that succeeds put the job back: it has not begun."""
    GIVE_UP = "give_up"
    """Take its claim, and if that succeeds bury the job: the engine starts no runner for it."""
    PUT_BACK = "put_back"
    """Put the job back as it was, or bury it if it was cancelled: we have its claim, so it will never begin."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The times that a pack and its runners keep, in seconds.

    Attributes:
        beat: between two signs of life.
        fence: a runner that could write none for so long ends its commands.
        grace: between TERM and KILL of a command.
    """

    beat: float
    fence: float
    grace: float

    @property
    def give_up(self) -> float:
        """The silence of a runner after which none of its commands is alive any more."""
        return self.fence + self.grace + MARGIN


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one attempt.

    Attributes:
        recorded: its outcome is in the pack.
        claim: who has it.
        silence: the seconds for which nothing has been heard of the runner that has it; of an attempt that nobody has,
            of the runner of the pack that was heard last. None: no runner has come.
        left: every runner that came has written that it takes nothing more.
        rows: what the engine says of the pack.
        rows_since: the seconds for which it has said so.
        sends: how often the pack was sent.
    """

    recorded: bool = False
    claim: Claim = Claim.NOBODY
    silence: float | None = None
    left: bool = False
    rows: Rows = Rows.UNKNOWN
    rows_since: float = 0.0
    sends: int = 1


def judge(seen: Seen, limits: Limits) -> Verdict:
    """Decide about an attempt of a pack. The first rule that fits holds."""
    if seen.recorded:
        return Verdict.COLLECT
    if seen.claim is Claim.DISPATCHER:
        return Verdict.PUT_BACK
    if seen.claim is Claim.RUNNER:
        # Its beat may be missing still, where the share shows the claim first. It is as young as our first look at it.
        return Verdict.LOST if (seen.silence or 0.0) > limits.give_up else Verdict.RUNNING
    if seen.silence is None:
        return _without_runner(seen)
    if seen.left or seen.silence > SILENT_BEATS * limits.beat:
        return Verdict.REVOKE
    return Verdict.QUEUED


def _without_runner(seen: Seen) -> Verdict:
    """Decide about an attempt for whose pack no runner has come."""
    if seen.rows is Rows.LIVE:
        return Verdict.QUEUED
    if seen.rows is Rows.UNKNOWN or seen.rows_since < SEND_AGAIN_AFTER:
        return Verdict.WAIT
    return Verdict.SEND if seen.sends < MOST_SENDS else Verdict.GIVE_UP


class Silence:
    """How long nothing has been heard of a runner, by the dispatcher's own clock.

    It counts only while the shared folder answers: a file server that restarts silences all runners, and none of them is
    dead. No clock of another machine is compared: what counts is that the beat has changed.

    Args:
        now: the monotonic moment at which the runner was seen first.
        longest_gap: seconds between two looks that count at most. In a longer gap nobody knows whether the folder could
            have answered.
    """

    __slots__ = ("_beat", "_gap", "_looked_at", "seconds")

    def __init__(self, now: float, *, longest_gap: float = 5.0) -> None:
        self.seconds = 0.0
        self._beat: bytes | None = None
        self._looked_at, self._gap = now, longest_gap

    def look(self, beat: bytes | None, now: float) -> float:
        """Take the result of a look at the beat, and return the silence in seconds.

        Args:
            beat: the content of the beat's file; None if it is not there.
            now: the monotonic moment at which the look began. A look that did not get an answer is not told here, but by
                `miss`.
        """
        if beat != self._beat:
            self._beat, self.seconds = beat, 0.0
        else:
            self.seconds += max(0.0, min(now - self._looked_at, self._gap))
        self._looked_at = now
        return self.seconds

    def miss(self, now: float) -> None:
        """The folder did not answer: this time does not count."""
        self._looked_at = max(now, self._looked_at)
