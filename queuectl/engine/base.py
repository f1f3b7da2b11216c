"""The protocol between the dispatcher and an engine: what is asked of it, and what it answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Shape:
    """What the attempts of a pack need on a node. Only those of one shape share a pack.

    Attributes:
        cpus: processors.
        memory: megabytes; None: what the engine gives to a job that does not say.
        gpus: how many, or which and how many, like a100:2; "": none.
        partition: the part of the cluster; "": the engine's default.
        options: further ones of the engine, each with its leading dashes.
    """

    cpus: int = 1
    memory: int | None = None
    gpus: str = ""
    partition: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pack on its way to an engine.

    Attributes:
        name: of the pack.
        folder: its path.
        script: the path of the script for the node.
        minutes: the time after which the engine may end it; 0: none. A backstop: runners keep the time limits of jobs.
        priority: the highest of its jobs, from -10 to 10 or so; the engine may use it as a hint.
    """

    name: str
    folder: str
    script: str
    shape: Shape = Shape()
    minutes: int = 0
    priority: int = 0


class Answer(enum.StrEnum):
    """What an engine says to a parcel."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """It can never take it, for a reason that is in the text."""
    FULL = "full"
    """It takes no more now."""
    UNKNOWN = "unknown"
    """It said nothing, or something else. It may have taken the parcel all the same."""


@dataclass(frozen=True, slots=True)
class Row:
    """One of the engine's jobs for a pack. It explains, and decides nothing.

    Attributes:
        number: the engine's number. It may be given to another job later.
        state: its word, like PENDING or NODE_FAIL.
        reason: why it waits or has failed; "" if it does not say.
        is_live: it waits, runs, or is about to end.
    """

    number: str
    state: str
    reason: str
    is_live: bool


@dataclass(frozen=True, slots=True)
class Poll:
    """The engine's jobs at one moment.

    Attributes:
        asked_at: the monotonic moment at which the question was asked. What was sent later cannot be in the answer.
        rows: by the name of the pack.
        idle: processors on which nothing runs; 0: none, or it is not known.
    """

    asked_at: float
    rows: Mapping[str, Sequence[Row]]
    idle: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """What an engine has said since it was asked last.

    Attributes:
        answers: to parcels, by the name of the pack, with a text for people.
        poll: the newest; None: it has not answered since.
    """

    answers: Mapping[str, tuple[Answer, str]] = field(default_factory=dict)
    poll: Poll | None = None


class Engine(Protocol):
    """What starts runners on other machines. No call waits for the engine: it may hang for half a minute."""

    def send(self, parcel: Parcel) -> None:
        """Have a runner started for a pack. The same pack may be sent again."""

    def news(self) -> News:
        """Return what it has said since the last call."""

    def cancel(self, packs: Iterable[str]) -> None:
        """Have no runner started for these packs any more, and end those that were, as far as it listens."""

    def nudge(self, packs: Iterable[str]) -> None:
        """Have the runners of these packs look for wishes now, as far as it listens."""


class Connection(Engine, Protocol):
    """An engine with what only the loop of a dispatcher asks of it.

    Attributes:
        answered_at: the monotonic moment of its last answer to a poll; that of the start if there was none.
        trouble: what was said instead of an answer; "" when all is well.
    """

    answered_at: float
    trouble: str

    def ask(self) -> None:
        """Have it polled now."""

    def close(self, patience: float = 0.0) -> None:
        """Begin nothing more.

        Args:
            patience: seconds to wait until what is to be cancelled is cancelled.
        """
