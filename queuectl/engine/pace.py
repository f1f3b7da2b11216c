"""How many packs a dispatcher may have out: fewer while the engine is full, none for a while after a stranger's cancel."""

from __future__ import annotations

FULL_FOR = 60.0
"""Seconds for which the number of packs is halved after the engine has taken no more."""

FIRST_REST, LONGEST_REST = 60.0, 600.0
"""Seconds without feeding after somebody has cancelled our jobs in the engine: sent again at once, they would be back before
that person has looked. It doubles while it goes on."""


class Pace:
    """The number of packs that may be out.

    Attributes:
        cancelled: jobs that others have cancelled since feeding began to rest.
        rests_until: the monotonic moment at which feeding begins again.
    """

    __slots__ = ("_full_until", "_halved", "_rest", "cancelled", "rests_until")

    def __init__(self) -> None:
        self.cancelled, self.rests_until = 0, 0.0
        self._full_until, self._halved, self._rest = 0.0, 0, 0.0

    def full(self, out: int, now: float) -> None:
        """The engine has taken no more.

        Args:
            out: how many packs were out.
        """
        if now >= self._full_until:
            self._halved = max(1, out // 2)
        else:
            self._halved = max(1, min(self._halved, out) // 2)
        self._full_until = now + FULL_FOR

    def cancelled_by_others(self, now: float) -> None:
        """Somebody has cancelled one of our jobs in the engine."""
        if now < self.rests_until:
            self.cancelled += 1
            return
        # Soon after the last rest it is the same person, who still does not want them.
        goes_on = self._rest > 0 and now < self.rests_until + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST) if goes_on else FIRST_REST
        self.cancelled, self.rests_until = 1, now + self._rest

    def most(self, wanted: int, now: float) -> int:
        """Return how many packs may be out now.

        Args:
            wanted: the setting.
        """
        if now < self.rests_until:
            return 0
        return min(wanted, self._halved) if now < self._full_until else wanted
