"""All attempts that a dispatcher has handed to its engine: it follows each to one end, and tells that end once.

It knows no job files. The dispatcher gives it orders and gets events; it records them, says so (`settled`), and has
the packs cleared when its outcomes are on the disk. Everything here reads and writes the shared folder, which may hang:
it belongs into a thread of its own.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from queuectl.engine.base import Answer, Parcel, Shape
from queuectl.engine.handed import PART, Back, Ended, Handed, Lost, Refused
from queuectl.engine.packs import GONE, Pack, remove
from queuectl.engine.verdict import Seen, Silence, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from queuectl.engine.base import Engine, News
    from queuectl.engine.handed import Event, Key
    from queuectl.engine.packs import Look, Order
    from queuectl.engine.verdict import Limits

MOST_RUNNERS, HELPERS_A_POLL = 8, 4
"""At work in one pack; that are sent after one answer of the engine. More would come to find nothing left."""

EXPLAINED_WITHIN = 60.0
"""Seconds in which the engine should say why it has ended a runner. After that the run counts as interrupted."""


class Tracker:
    """The attempts that are handed over.

    Args:
        root: the folder of the packs.
        script: the path of the script for nodes.
        limits: for new packs.
        log_limit: bytes that are kept of each output; 0: no limit.

    Attributes:
        full: what the engine has said when it took no more the last time; whoever has read it empties it.
        unreadable: why packs are left alone, by their names.
        doubtful: the attempts that may be in one of these.
        idle: processors on which nothing ran when the engine was polled last; None: it has not answered yet.
        has_changed: whether a tick has found something; whoever has read it sets it back.
    """

    def __init__(self, root: str, script: str, engine: Engine, limits: Limits, log_limit: int) -> None:
        self._root, self._script, self._engine = root, script, engine
        self._limits, self._log_limit = limits, log_limit
        self.full = ""
        self.unreadable: dict[str, str] = {}
        self.doubtful: frozenset[Key] = frozenset()
        self.idle: int | None = None
        self.has_changed = True
        self._packs: dict[str, Handed] = {}
        self._at: dict[Key, tuple[Handed, int]] = {}
        self._left: list[str] = []
        self._unreadable_gone: Silence | None = None

    @property
    def packs(self) -> int:
        """How many packs are out."""
        return len(self._packs)

    @property
    def handed(self) -> Iterable[Handed]:
        """What is known of each pack that is out."""
        return self._packs.values()

    # -- in --------------------------------------------------------------------------------------------------------

    def adopt(self, claims: Iterable[Key], now: float) -> list[Key]:
        """Find what an earlier dispatcher has handed over. It must be called before anything is handed over anew.

        Args:
            claims: the keys of the jobs that this spool has claimed for the engine.

        Returns:
            the keys that are in no pack, so that nobody can ever have begun them. If a pack is left alone, they may be in
            that one: they are `doubtful`, and none of them is returned.

        Raises:
            OSError: the share refuses.
        """
        wanted = set(claims)
        for name in sorted(os.listdir(self._root)):
            folder = os.path.join(self._root, name)
            if name.startswith(GONE):
                _is_removed(folder)
            elif os.path.isdir(folder) and not os.path.islink(folder):
                self._adopt(name, folder, wanted, now)
        unknown = wanted - self._at.keys()
        if not self.unreadable:
            return sorted(unknown)
        # Nobody knows what is in a pack that cannot be read. Handed over anew, a job could run twice.
        self.doubtful = frozenset(unknown)
        return []

    def _adopt(self, name: str, folder: str, wanted: set[Key], now: float) -> None:
        try:
            pack = Pack.found(folder)
            if pack is None:
                _is_removed(folder)  # it was not made whole, so it was not sent
                return
            hints = dict(pack.sent_as)
            shape = hints.pop("shape", {})
            shape["options"] = tuple(shape.get("options", ()))
            parcel = Parcel(name, folder, self._script, Shape(**shape), **hints)
        except (ValueError, TypeError, AttributeError) as error:
            self.unreadable[name] = str(error)
            return
        handed = self._packs[name] = Handed(pack, parcel, now, sends=1)
        handed.look()
        for number, key in enumerate(pack.keys):
            # A job that was taken back may have been handed over again, in another pack. That one counts.
            if not self._gives_way(self._at.get(key)) and pack.revoke(number):
                handed.close(number)
                continue
            if key in self._at:
                self._at[key][0].let_go(self._at[key][1])
            self._at[key] = handed, number
            if key not in wanted:
                handed.let_go(number)

    @staticmethod
    def _gives_way(known: tuple[Handed, int] | None) -> bool:
        """Whether an attempt in a pack was taken back, so that another pack may have it."""
        return known is None or known[0].never_began(known[1])

    def hand(self, name: str, orders: Sequence[Order], shape: Shape, now: float, **hints: int) -> None:
        """Hand attempts over, in a new pack. One that is out already, by its key, is followed there.

        Args:
            hints: minutes and priority, see `Parcel`.

        Raises:
            OSError: the share refuses. What of these attempts it has taken is followed.
        """
        new = [one for one in orders if not self._is_out(one.key)]
        if not new:
            return
        parcel = Parcel(name, os.path.join(self._root, name), self._script, shape, **hints)
        sent_as = {"shape": asdict(shape), **hints}
        pack = Pack.make(parcel.folder, new, self._limits, self._log_limit, sent_as)
        handed = self._packs[name] = Handed(pack, parcel, now, sends=1)
        for number, key in enumerate(pack.keys):
            self._at[key] = handed, number
        self._engine.send(parcel)

    def _is_out(self, key: Key) -> bool:
        """Whether a pack has this very run and has not taken it back: somebody has moved its job by hand, or a power cut.

        Sent a second time, in another pack, it would run twice.
        """
        known = self._at.get(key)
        if known is None:
            return False
        if known[0].never_began(known[1]):
            known[0].close(known[1])  # that it was put back must not be told of the attempt in the new pack
            return False
        known[0].reopen(known[1])
        return True

    # -- out -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Event]:
        """Look at everything, and return what has come to an end since the last call.

        Args:
            now: the monotonic clock.
        """
        events = self._give_up_doubtful(now) if self.doubtful else []
        news = self._engine.news()
        looks = 1 + len(self._packs) // PART
        for handed in list(self._packs.values()):
            self._take(handed, news)
            if (handed.open or handed.strays) and not handed.is_quiet(now, may_wait=looks <= 0):
                looks -= 1
                events += self._follow(handed, now)
        self.has_changed |= bool(events)
        if news.poll is not None:
            self.idle, self.has_changed = news.poll.idle, True
            self._help(news.poll.idle, now)
        return events

    def _give_up_doubtful(self, now: float) -> list[Event]:
        """Somebody has deleted the packs that cannot be read: whatever of them has begun is ended within the fence."""
        try:
            is_there = not self.unreadable.keys().isdisjoint(os.listdir(self._root))
        except OSError:  # the share is away
            is_there = True
        if is_there:
            self._unreadable_gone = None
            return []
        silence = self._unreadable_gone = self._unreadable_gone or Silence(now)
        if silence.look(None, now) <= self._limits.give_up:
            return []
        lost: list[Event] = [Lost(key, "", silence.seconds, None) for key in sorted(self.doubtful)]
        self.doubtful, self.unreadable = frozenset(), {}
        return lost

    def _help(self, idle: int, now: float) -> None:
        """Send packs again whose runners have more to do than they can begin now, while processors are idle.

        Without that the last jobs of a pack would wait behind slow ones.
        """
        helpers = 0
        for handed in self._packs.values():
            cpus = handed.parcel.shape.cpus
            has_more = bool(handed.open) and handed.unbegun > 0
            is_busy = has_more and 0 < handed.runners < MOST_RUNNERS and handed.rows is not None
            if is_busy and idle >= cpus and helpers < HELPERS_A_POLL and not handed.is_queued:
                helpers, idle = helpers + 1, idle - cpus
                handed.sent_at, handed.rows = now, None
                self._engine.send(handed.parcel)

    def _take(self, handed: Handed, news: News) -> None:
        answer, text = news.answers.get(handed.parcel.name, (Answer.UNKNOWN, ""))
        if answer is Answer.REFUSED:
            handed.refused = text
            handed.stir()
        elif answer is Answer.FULL:
            self.full = text
            handed.sends -= 1  # it is no reason to give up, however often it is said
        if news.poll is not None:
            handed.take(news.poll)

    def _follow(self, handed: Handed, now: float) -> list[Event]:
        try:
            look = handed.look()
        except OSError as error:
            # Without its root, no pack was deleted: the share is not mounted here now, and the nodes go on with theirs.
            if isinstance(error, FileNotFoundError) and os.path.isdir(self._root):
                return self._follow_deleted(handed, now)
            for silence in (*handed.silences.values(), handed.strange, handed.gone):
                if silence is not None:
                    silence.miss(now)
            return []
        handed.gone = None
        self.has_changed |= handed.listen(look, now)
        events, sends = [], False
        for number in sorted(handed.strays):
            if self._judge(handed, look, number) in (Verdict.COLLECT, Verdict.LOST):
                handed.close(number)
        for number in sorted(handed.open):
            verdict = (
                Verdict.GIVE_UP
                if self._is_refused(handed, look, number)
                else self._judge(handed, look, number)
            )
            sends |= verdict is Verdict.SEND
            event = self._event(handed, look, number, verdict, now)
            if event is not None:
                handed.open.discard(number)
                events.append(event)
        if sends:
            self._send_again(handed, now)
        return events

    def _judge(self, handed: Handed, look: Look, number: int) -> Verdict:
        silence = handed.silence_of(look.claims.get(number))
        rows, since = handed.word_of_the_engine()
        has_left = bool(look.beats) and look.beats.keys() <= look.left
        seen = Seen(
            number in handed.records, look.claim(number), silence, has_left, rows, since, handed.sends
        )
        return judge(seen, handed.pack.limits)

    @staticmethod
    def _is_refused(handed: Handed, look: Look, number: int) -> bool:
        return bool(handed.refused) and number not in look.claims and not look.beats

    def _event(self, handed: Handed, look: Look, number: int, verdict: Verdict, now: float) -> Event | None:
        key = handed.pack.keys[number]
        if verdict is Verdict.COLLECT:
            return self._ended(handed, number, now)
        if verdict is Verdict.LOST:
            who = look.claims.get(number, "")
            return Lost(key, who, handed.silence_of(who) or 0.0, handed.last_row, handed.output_of(number))
        if verdict is Verdict.PUT_BACK:
            return Back(key, number in handed.cancelled)
        if verdict in (Verdict.REVOKE, Verdict.GIVE_UP) and self._revoke(handed, number):
            if verdict is Verdict.GIVE_UP:
                return Refused(key, handed.refused or handed.why_not_begun)
            return Back(key, number in handed.cancelled)
        return None

    @staticmethod
    def _ended(handed: Handed, number: int, now: float) -> Ended | None:
        """The end of an attempt. If the engine has ended its runner, it is waited for the word why: the limit of time, or
        a job that goes before?
        """
        record = handed.records[number]
        row = handed.row_of(record.runner)
        if record.how == "terminated" and (row is None or row.is_live):
            since = handed.unexplained.setdefault(number, now)
            if now - since < EXPLAINED_WITHIN:
                return None
        no_memory = record.code == -signal.SIGKILL and handed.pack.says_out_of_memory()
        return Ended(handed.pack.keys[number], record, handed.output_of(number), row, no_memory)

    def _follow_deleted(self, handed: Handed, now: float) -> list[Event]:
        """Somebody has deleted the pack: its runners can write no beat, and end what they run within the fence."""
        handed.unbegun = 0
        if handed.gone is None:
            handed.gone = Silence(now)
        if handed.gone.look(None, now) <= handed.pack.limits.give_up:
            return []
        lost: list[Event] = [
            Lost(handed.pack.keys[number], "", handed.gone.seconds, handed.last_row)
            for number in sorted(handed.open)
        ]
        for number in handed.strays:
            handed.unsettled.discard(number)
        handed.strays.clear()
        handed.open.clear()
        return lost

    @staticmethod
    def _revoke(handed: Handed, number: int) -> bool:
        """Take a claim, if the share lets us; False: somebody has it, or nobody knows."""
        with suppress(OSError):
            return handed.pack.revoke(number)
        return False

    def _send_again(self, handed: Handed, now: float) -> None:
        handed.sends, handed.sent_at, handed.rows = handed.sends + 1, now, None
        self._engine.send(handed.parcel)

    # -- orders ----------------------------------------------------------------------------------------------------

    def cancel(self, keys: Iterable[Key]) -> list[Event]:
        """Have attempts ended; return those that will never begin. For the others an event follows.

        Raises:
            OSError: the share refuses.
        """
        events: list[Event] = []
        nudged = set()
        for key in keys:
            handed, number = self._at.get(key, (None, 0))
            if handed is None or number not in handed.open:
                continue
            handed.cancelled.add(number)
            handed.pack.cancel(number)
            if handed.pack.revoke(number):
                handed.open.discard(number)
                events.append(Back(key, is_cancelled=True))
            else:
                nudged.add(handed.parcel.name)
        if nudged:
            self._engine.nudge(sorted(nudged))
        return events

    def drop(self, keys: Collection[Key]) -> None:
        """Somebody has taken these jobs away: nothing more is told of them. What runs is ended.

        Raises:
            OSError: the share refuses.
        """
        self.doubtful -= frozenset(keys)
        for key in keys:
            handed, number = self._at.get(key, (None, 0))
            if handed is not None and number in handed.open:
                handed.let_go(number)
                self._engine.nudge([handed.parcel.name])

    def take_back(self, only: Collection[Key] | None = None) -> list[Event]:
        """Take back whatever has not begun, for a pause or a stop. When this returns, none of it can begin any more.

        Args:
            only: of these attempts; None: of all.

        Raises:
            OSError: the share refuses, and what was not taken back may begin.
        """
        events: list[Event] = []
        idle = []
        for handed in self._packs.values():
            try:
                look = handed.look()
            except FileNotFoundError:
                if not os.path.isdir(self._root):
                    raise  # the share is not mounted here now
                continue  # somebody has deleted it, so nothing can begin there
            for number in sorted(handed.open - look.claims.keys()):
                if (only is None or handed.pack.keys[number] in only) and handed.pack.revoke(number):
                    handed.open.discard(number)
                    events.append(Back(handed.pack.keys[number], number in handed.cancelled))
            if not look.beats and not handed.open:
                idle.append(handed.parcel.name)
        if idle:
            self._engine.cancel(idle)  # they would take a place on the cluster each, to find nothing
        return events

    # -- clear -----------------------------------------------------------------------------------------------------

    def settled(self, key: Key) -> None:
        """The dispatcher has recorded what became of an attempt. It must be on the disk before the pack is cleared."""
        known = self._at.get(key)
        if known is not None:
            known[0].close(known[1])

    def over(self) -> list[str]:
        """Return the names of the packs of which all outcomes are recorded. Sync the spool, then `clear` them."""
        return [name for name, handed in self._packs.items() if not handed.unsettled]

    def clear(self, names: Iterable[str]) -> None:
        """Delete packs. What the share refuses stays for another call."""
        self._left = [folder for folder in self._left if not _is_removed(folder)]
        gone = []
        for name in names:
            handed = self._packs[name]
            with suppress(OSError):
                try:
                    handed.pack.delete()
                except OSError:
                    os.lstat(handed.pack.gone)  # else it has its name, and is as it was
                    self._left.append(handed.pack.gone)
                del self._packs[name]
                gone.append(handed)
        # A scancel takes 10 ms, and its pack's runner has left: a dispatcher that drains would wait for all of them.
        awaited = [handed.parcel.name for handed in gone if handed.is_awaited]
        if awaited:
            self._engine.cancel(awaited)
        for handed in gone:
            for key in handed.pack.keys:
                if self._at.get(key, (None, 0))[0] is handed:
                    del self._at[key]


def _is_removed(folder: str) -> bool:
    """Try to delete what is left of a pack. What cannot be deleted now must not keep jobs from being handed over.

    An NFS client keeps a file that somebody reads, under another name, and the folder with it.
    """
    try:
        remove(folder)
    except OSError:
        return False
    return True
