"""One pack that is handed over, what is known of it, and the events that tell the ends of its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.engine.verdict import Rows, Silence

if TYPE_CHECKING:
    from queuectl.engine.base import Parcel, Poll, Row
    from queuectl.engine.packs import Look, Pack, Record

COARSE = 2.0
"""Seconds: the coarsest file time of a file system that can be shared."""

LOOK_EVERY, PART = 2.0, 16
"""Seconds after which a pack is looked into although it is quiet, for the beats of its runners; and one pack of so many may be
at a time: two hundred of them together would take ten milliseconds."""

Key = tuple[str, str]
"""The id of a job and the mark of its run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over, and its runner has written how.

    Attributes:
        output: the paths of what it has printed, stdout and stderr; None: that was copied.
        row: what the engine says of its runner; None: nothing.
        no_memory: it was killed, and the engine's log of the pack speaks of memory.
        printed: the bytes of both that were copied; None: none could be.
    """

    key: Key
    record: Record
    output: tuple[str, str] | None
    row: Row | None
    no_memory: bool = False
    printed: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt has begun, and neither it nor its runner is alive.

    Attributes:
        output: the paths of what it has printed; None: that was copied, or is deleted.
        printed: as in `Ended`.
    """

    key: Key
    runner: str
    silence: float
    row: Row | None
    output: tuple[str, str] | None = None
    printed: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Back:
    """The attempt has not begun and never will: the job goes back as it was; to dead/ if somebody has cancelled it."""

    key: Key
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine takes the job never; it has not begun and never will."""

    key: Key
    reason: str


Event = Ended | Lost | Back | Refused


def has_begun(event: Event) -> bool:
    """Whether the command was started."""
    return event.record.ran if isinstance(event, Ended) else isinstance(event, Lost)


class Handed:
    """One pack, and what is known of it.

    Attributes:
        open: the attempts of which an end is still to be told.
        strays: attempts that run although nobody waits for them any more; their end is waited for all the same.
        unsettled: those that keep the pack.
        records: what runners have written.
        sends, sent_at: how often it was sent, and when the last time.
        rows: the engine's, as far as they tell of the last send; None: it has not been asked since.
        refused: why the engine never takes it.
        gone, strange: for how long its folder is gone, and for how long a claim is there that is nobody's.
        cancelled: the attempts that somebody wants ended.
        unbegun, runners: at the last look, how many open attempts nobody had, and how many runners were at work.
        claims: at the last look, who had which attempt, see `packs.Look`.
        unexplained: since when the engine was asked why it has ended the runner of an attempt.
        looked_at: when it was looked into the last time.
        left: at the last look, the runners that take nothing more.
    """

    __slots__ = (
        "_changed_at",
        "_glance",
        "cancelled",
        "claims",
        "gone",
        "left",
        "looked_at",
        "none_from",
        "none_to",
        "open",
        "pack",
        "parcel",
        "records",
        "refused",
        "rows",
        "runners",
        "sends",
        "sent_at",
        "silences",
        "strange",
        "strays",
        "unbegun",
        "unexplained",
        "unsettled",
    )

    def __init__(self, pack: Pack, parcel: Parcel, now: float, *, sends: int) -> None:
        self.pack, self.parcel = pack, parcel
        self.open = set(range(len(pack.keys)))  # of which no end was told yet
        self.unsettled = set(self.open)
        self.strays: set[int] = set()
        self.records: dict[int, Record] = {}
        self.silences: dict[str, Silence] = {}
        self.sends, self.sent_at = sends, now
        self.rows: list[Row] | None = None
        self.none_from = self.none_to = 0.0
        self.refused = ""
        self.gone: Silence | None = None
        self.unexplained: dict[int, float] = {}
        self.unbegun = self.runners = 0
        self.claims: dict[int, str] = {}
        self.strange: Silence | None = None
        self.cancelled: set[int] = set()
        self.left: set[str] = set()
        self.looked_at = self._changed_at = float("-inf")
        self._glance: tuple[int, ...] | None = None

    def is_quiet(self, now: float, *, may_wait: bool) -> bool:
        """Whether it need not be looked into: nothing has changed in its folder since a look that was not too near the change.

        File times are as coarse as two seconds: what changes in the same moment as the last change is seen by looking on.

        Args:
            may_wait: others are looked into now that seem as quiet. It can wait as long again.
        """
        try:
            glance = self.pack.glance()
        except OSError:
            return False
        if glance != self._glance:
            self._glance, self._changed_at = glance, now
        is_settled = self.looked_at >= self._changed_at + COARSE
        return is_settled and now - self.looked_at < LOOK_EVERY * (1 + may_wait)

    def stir(self) -> None:
        """Have it looked into, whatever its folder says."""
        self.looked_at = float("-inf")

    def take(self, poll: Poll) -> None:
        """Take what the engine says of the pack. What was asked before it was sent tells nothing of it."""
        if poll.asked_at <= self.sent_at:
            return
        rows = list(poll.rows.get(self.parcel.name, ()))
        if any(row.is_live for row in rows) or self.rows is None or self.is_live:
            self.none_from = poll.asked_at
        self.rows, self.none_to = rows, poll.asked_at

    @property
    def is_live(self) -> bool:
        """Whether the engine says that a runner of it waits or runs."""
        return any(row.is_live for row in self.rows or ())

    @property
    def is_queued(self) -> bool:
        """Whether the engine says that a runner of it waits, or is about to begin or to end."""
        return any(row.is_live and row.state != "RUNNING" for row in self.rows or ())

    @property
    def is_awaited(self) -> bool:
        """Whether the engine says that a runner of it waits or runs, of which it is not known that it ends by itself."""
        ending = {_number_of(runner) for runner in self.left}
        return any(row.is_live and row.number not in ending for row in self.rows or ())

    def row_of(self, runner: str) -> Row | None:
        """The row of a runner; the one that explains best if it has none. A runner's name has the number of its job."""
        number = _number_of(runner)
        return next((row for row in self.rows or () if row.number == number), self.last_row)

    @property
    def last_row(self) -> Row | None:
        """The row that explains best what has happened."""
        return max(self.rows or (), key=lambda row: (row.is_live, row.number.zfill(12)), default=None)

    def word_of_the_engine(self) -> tuple[Rows, float]:
        """What it says of the pack, and the seconds for which it has said so each time it was asked."""
        if self.rows is None:
            return Rows.UNKNOWN, 0.0
        return (Rows.LIVE, 0.0) if self.is_live else (Rows.NONE, self.none_to - self.none_from)

    def look(self) -> Look:
        """Look into the pack, and keep the records that are new.

        Raises:
            OSError: the share refuses, or the folder is gone.
        """
        look = self.pack.look()
        for record in look.records:
            self.records[record.number] = record
        return look

    def listen(self, look: Look, now: float) -> bool:
        """Take the beats of all runners. Of a claim that is nobody's it is only known how long it is there.

        Returns:
            whether somebody has come, begun or left.
        """
        self.looked_at = now
        before = self.claims, self.unbegun, self.runners
        for runner, beat in look.beats.items():
            self.silences.setdefault(runner, Silence(now)).look(beat, now)
        self.claims = look.claims
        self.unbegun = len(self.open - look.claims.keys())
        self.runners, self.left = len(look.beats.keys() - look.left), look.left
        if "" in look.claims.values():
            self.strange = self.strange or Silence(now)
            self.strange.look(None, now)
        return before != (self.claims, self.unbegun, self.runners)

    def silence_of(self, who: str | None) -> float | None:
        """The silence of whoever has a claim; of the runner that was heard last if nobody has it; None: none has come."""
        if who == "":
            return self.strange.seconds if self.strange else None
        if who:
            return self.silences[who].seconds if who in self.silences else None
        return min((one.seconds for one in self.silences.values()), default=None)

    @property
    def why_not_begun(self) -> str:
        """Why no runner came, by what the engine has said."""
        row = self.last_row
        said = f": {row.state}" + (f" ({row.reason})" if row.reason else "") if row else ""
        return f"no node has begun it, although it was sent {self.sends} times{said}"

    def output_of(self, number: int) -> tuple[str, str]:
        """Return the paths of what an attempt prints, stdout and stderr."""
        return self.pack.path(f"{number}.out"), self.pack.path(f"{number}.err")

    def never_began(self, number: int) -> bool:
        """Whether this attempt never runs here, as it was taken back, or as its runner could start nothing.

        Raises:
            OSError: the share refuses.
        """
        record = self.records.get(number)
        if record is not None and not record.ran and record.how in ("not_begun", "cancelled"):
            return True
        return self.pack.is_revoked(number)

    def close(self, number: int) -> None:
        """Wait for this attempt no more."""
        for numbers in (self.open, self.strays, self.unsettled):
            numbers.discard(number)

    def reopen(self, number: int) -> None:
        """Tell the end of this attempt (again)."""
        self.strays.discard(number)
        self.open.add(number)
        self.unsettled.add(number)

    def let_go(self, number: int) -> None:
        """Nobody waits for this attempt any more: it never begins, or it is ended and only its end is waited for.

        Raises:
            OSError: the share refuses.
        """
        self.open.discard(number)
        if number in self.records or self.pack.revoke(number):
            self.close(number)
        else:
            self.pack.cancel(number)
            self.strays.add(number)


def _number_of(runner: str) -> str:
    """The number of a runner's job in the engine; "" if its name has none."""
    return (runner.split(".")[-2:-1] or [""])[0]
