"""Reads jobs and rules in YAML, with the place of each value. A module of its own: importing yaml takes as long as queueing a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from queuectl.config import plain_yaml
from queuectl.errors import InvalidJob
from queuectl.job.record import SIZE_LIMIT
from queuectl.job.strict_json import load_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Base: Any = plain_yaml.loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _Loader(_Base):  # type: ignore[misc]
    """Plain YAML that refuses duplicate keys. A time stays text: YAML would read one without an offset as UTC."""

    lines_before = 0

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in getattr(node, "value", ()):
            name = key.value
            if isinstance(name, str) and name != "<<":
                if name in seen:
                    mark = key.start_mark
                    at = mark.line + 1 + self.lines_before, mark.column + 1
                    raise InvalidJob("is given twice", field=name, at=at)
                seen.add(name)
        return super().construct_mapping(node, deep=deep)


def documents(stream: Any, lines_before: int) -> Iterator[tuple[Any, Any]]:
    """Yield each document of a YAML stream that is not empty, and its node, which has the position.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = _Loader(stream)
    loader.lines_before = lines_before
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if value is not None:
                yield value, node
    finally:
        loader.dispose()


def place_at(node: Any, path: Sequence[str | int]) -> tuple[int, int]:
    """Return line and column, both from 1, of a value in a document; of what is around it if it is not there.

    Args:
        path: the keys and numbers that lead to it.
    """
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [value for key, value in node.value if key.value == step]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = node.value[step : step + 1]
        else:
            found = []
        if not found:
            break
        node = found[-1]
    return node.start_mark.line + 1, node.start_mark.column + 1


def place_of(node: Any, field: str | None, lines_before: int) -> tuple[int, int]:
    """The line and column of a field's value in the node of a job, or of the job itself."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    marks = [value.start_mark for key, value in pairs if key.value == field]
    mark = marks[-1] if marks else node.start_mark
    return mark.line + 1 + lines_before, mark.column + 1


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Convert a YAML mapping to what JSON would give, under the same strict rules.

    Raises:
        InvalidJob: it contains a value that JSON does not have, or is too large.
    """
    import json

    _measure(value)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        reason = (
            str(error)
            .removeprefix("Object of type ")
            .replace(" is not JSON serializable", " is not a JSON value")
        )
        raise InvalidJob(reason) from None
    made = load_json(text)
    if not isinstance(made, dict):
        raise InvalidJob("a job must be a mapping with `command`")
    return made


def _measure(value: Any) -> None:
    """Refuse a value that YAML references expand to gigabytes, before it is converted to text."""
    left = SIZE_LIMIT
    waiting = [value]
    while waiting:
        one = waiting.pop()
        left -= 2 + (len(one) if isinstance(one, str) else 0)
        if left < 0:
            raise InvalidJob(f"too large: a job may have {SIZE_LIMIT} bytes")
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set):
            waiting += one
