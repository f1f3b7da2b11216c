"""Our own small `@dataclass` does what the real one does, as far as this program uses it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from queuectl.fast_start import dataclass


def made(by: Any, **how: Any) -> Any:
    class Made:
        """What it holds."""

        first: str
        second: int | None = None
        third: list[int] = by.field(default_factory=list)

        def twice(self) -> str:
            return self.first * 2

    return by.dataclass(slots=True, **how)(Made)


@pytest.fixture(params=[dataclass, dataclasses], ids=["ours", "the real one"])
def by(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_objects_hold_what_they_are_given(by: Any) -> None:
    """By position and by name, and the rest is the default, a new one for each."""
    kind = made(by)
    one, other = kind("a", 2), kind(first="a", second=2, third=[])

    assert (one.first, one.second, one.third, one.twice()) == ("a", 2, [], "aa")
    assert one == other
    assert one != kind("b", 2)
    assert one != "a"
    one.third.append(1)
    one.second = 3
    assert (other.third, kind("a").third, kind("a").second) == ([], [], None)
    assert repr(one).endswith("Made(first='a', second=3, third=[1])")
    assert kind.__doc__ == "What it holds."


def test_wrong_names_are_refused(by: Any) -> None:
    """A slip of the pen is an error and not a new attribute."""
    kind = made(by)

    with pytest.raises(TypeError):
        kind("a", fourth=1)
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(AttributeError):
        kind("a").fourth = 1


def test_frozen_ones_cannot_be_changed(by: Any) -> None:
    """Settings that others hold do not change under them."""
    one = made(by, frozen=True)("a", 1, ())

    with pytest.raises(AttributeError):
        one.first = "b"
    assert hash(one) == hash(made(by, frozen=True)("a", 1, ()))
