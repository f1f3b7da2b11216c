"""What a list shows is in its address: read from there, and written there, so that it can be sent and gone back to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index.filter import Filter
from queuectl.job.fields import STATES, is_tag, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SORTS = {
    "-arrived": "newest first",
    "arrived": "oldest first",
    "-finished": "ended last first",
    "next": "next in line first",
}
"""The orders of a list, those that an index serves at any length."""

_TEXTS = ("queue", "batch", "rule", "command", "reason", "worker", "engine")
_NAMES = ("state", "tag", *_TEXTS, "since", "until", "exit", "held", "blocked", "sort")
PLACES = ("before", "after", "at")
_LONGEST = 1000


class BadQuery(ValueError):
    """An address with a parameter that is not one, or that has a value which it cannot have."""


@dataclass(frozen=True, slots=True)
class View:
    """A list: which jobs, in which order, from which place.

    Attributes:
        given: the parameters as they were typed, without empty ones and without places.
        where: the filter that they make.
        before, after: from which place on; None: from the beginning.
        at: the place at which the page began that is shown in the browser, and that is to stand still.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    where: Filter = field(default_factory=Filter)
    before: str | None = None
    after: str | None = None
    at: str | None = None

    def but(self, **other: str | None) -> str:
        """Return the query of the same list with other values; None takes one away, and no place is kept."""
        return query_of({**self.given, **other})


def query_of(given: Mapping[str, str | None]) -> str:
    """Return parameters as the query of an address; empty ones are left out."""
    return urlencode([(name, value) for name, value in given.items() if value])


def once(pairs: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """Return parameters by name, without empty ones.

    Raises:
        BadQuery: one is unknown, comes twice, or is too long.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise BadQuery(f"this page has no parameter {name[:40]!r}")
        if name in found:
            raise BadQuery(f"{name} is given twice")
        if len(value) > _LONGEST:
            raise BadQuery(f"{name} is too long")
        found[name] = value
    return {name: value.strip() for name, value in found.items() if value.strip()}


def read(
    pairs: Iterable[tuple[str, str]],
    *,
    states: Sequence[str] = (),
    sort: str = "-arrived",
    more: Sequence[str] = (),
) -> View:
    """Read the query of a list.

    Args:
        states: the states that this list has; none: any.
        sort: its usual order.
        more: further parameters, which the page reads itself.

    Raises:
        BadQuery: with one line of fact.
    """
    found = once(pairs, (*_NAMES, *PLACES, *more))
    places = {name: found.pop(name, None) for name in PLACES}
    for name, place in places.items():
        if place is not None and not all(part.isascii() and part.isdecimal() for part in place.split(".")):
            raise BadQuery(f"{name} is a place in a list, in digits, and not {place[:40]!r}")
    given = {name: value for name, value in found.items() if name in _NAMES}
    try:
        where = _filter(given, states, sort)
    except BadQuery:
        raise
    except ValueError as error:
        raise BadQuery(str(error)) from None
    return View(given, where, **places)


def _filter(given: Mapping[str, str], states: Sequence[str], sort: str) -> Filter:
    chosen = given.get("sort", sort)
    if chosen not in SORTS:
        raise BadQuery(f"sort is one of {', '.join(SORTS)}, and not {chosen[:40]!r}")
    tags = given.get("tag", "").split()
    for tag in tags:
        if not is_tag(tag):
            raise BadQuery(f"{tag[:40]!r} cannot be a tag")
    return Filter(
        states=_states(given.get("state"), states),
        tags=tags,
        since=_moment("since", given.get("since")),
        until=_moment("until", given.get("until")),
        command=given.get("command"),
        exit_codes=_codes(given.get("exit", "")),
        worker=given.get("worker"),
        engines=tuple(given["engine"].split()) if "engine" in given else (),
        held=_flag("held", given.get("held")),
        reason=given.get("reason"),
        batch=given.get("batch"),
        blocked=_flag("blocked", given.get("blocked")),
        queues=tuple(given["queue"].split()) if "queue" in given else (),
        rule=given.get("rule"),
        sort=chosen,
    )


def _states(text: str | None, states: Sequence[str]) -> tuple[str, ...]:
    if text is None:
        return tuple(states)
    found = []
    for word in text.split():
        try:
            state = state_of(word)
        except ValueError:
            state = None
        if state is None:
            raise BadQuery(f"state is one of {', '.join(STATES)}, and not {word[:40]!r}")
        if states and state not in states:
            raise BadQuery(f"this list has no {state} jobs")
        found.append(state)
    return tuple(found)


def _moment(name: str, text: str | None) -> str | None:
    if text is not None and len(text) > 60:
        raise BadQuery(f"{name} is no time")
    return text


def _codes(text: str) -> tuple[int, ...]:
    words = text.replace(",", " ").split()
    for word in words:
        digits = word.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
            raise BadQuery(f"exit is a number, and not {word[:40]!r}")
    return tuple(map(int, words))


def _flag(name: str, text: str | None) -> bool | None:
    if text is None:
        return None
    if text not in {"yes", "no"}:
        raise BadQuery(f"{name} is yes or no, and not {text[:40]!r}")
    return text == "yes"
