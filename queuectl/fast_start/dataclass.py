"""`@dataclass` for classes of plain fields, without loading `dataclasses`.

That brings `inspect` and a dozen more, 7 ms at the start of every command. Type checkers see the real one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field
    from typing import Any
else:

    class field:  # noqa: N801 (named as in dataclasses)
        """A default that is made anew for each object."""

        def __init__(self, *, default_factory: Callable[[], Any]) -> None:
            self.make = default_factory

    def dataclass(*, frozen: bool = False, slots: bool = True) -> Callable[[type], type]:  # noqa: ARG001 (always)
        """Give a class of annotated fields slots, a constructor, equality and a repr."""
        return lambda cls: _made(cls, frozen=frozen)


__all__ = ["dataclass", "field"]


def _made(cls: Any, *, frozen: bool) -> type:
    names = tuple(cls.__annotations__)
    values = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    gone = {*values, "__dict__", "__weakref__"}
    kept = {name: value for name, value in cls.__dict__.items() if name not in gone}
    factories = {name: value.make for name, value in values.items() if hasattr(value, "make")}
    given = [f"{name}=_of[{name!r}]" if name in values else name for name in names]
    keep = "_set(self, {0!r}, {1})" if frozen else "self.{0} = {1}"
    lines = [
        keep.format(
            name, f"_new[{name!r}]() if {name} is _of[{name!r}] else {name}" if name in factories else name
        )
        for name in names
    ]
    if "__post_init__" in cls.__dict__:
        lines.append("self.__post_init__()")
    scope = {"_of": values, "_new": factories, "_set": object.__setattr__}
    exec(f"def __init__(self, {', '.join(given)}):\n " + "\n ".join(lines), scope)  # noqa: S102 (names of ours)
    made = {"__init__": scope["__init__"], "__eq__": _is_equal, "__repr__": _shown, "__reduce__": _reduce}
    if frozen:
        made |= {"__hash__": _hash, "__setattr__": _refuse}
    return type(cls.__name__, cls.__bases__, {"__slots__": names, "__match_args__": names, **made, **kept})


def _is_equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return all(getattr(one, name) == getattr(other, name) for name in one.__match_args__)


def _hash(one: Any) -> int:
    return hash(tuple(getattr(one, name) for name in one.__match_args__))


def _shown(one: Any) -> str:
    fields = ", ".join(f"{name}={getattr(one, name)!r}" for name in one.__match_args__)
    return f"{type(one).__name__}({fields})"


def _reduce(one: Any) -> tuple[type, tuple[Any, ...]]:
    """Pickle and copy by the fields: an object that cannot be changed cannot be filled afterwards."""
    return type(one), tuple(getattr(one, name) for name in one.__match_args__)


def _refuse(one: object, name: str, _value: object) -> None:
    raise AttributeError(f"{type(one).__name__}.{name} cannot be changed")
