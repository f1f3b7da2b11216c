"""YAML without the surprises of YAML 1.1: 18:30 is no number, 030 is not 24, `NO` is not false, a key is text.

Jobs and settings are read with it. A number that readers of YAML understand in different ways is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NoReturn

import yaml

_TAG = "tag:yaml.org,2002:"
_UNCLEAR = "!unclear"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?<=[0-9])", re.ASCII)
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_UNCLEAR_NUMBER = re.compile(
    r"[-+]?(?:0[0-9_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[1-9][0-9]*_[0-9_]*)(?:\.[0-9_]*)?", re.ASCII
)
_FIRST = list("-+.0123456789")
_RESOLVERS = (
    (f"{_TAG}merge", re.compile("<<"), ["<"]),
    (f"{_TAG}null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    (f"{_TAG}bool", _BOOL, list("tTfF")),
    (f"{_TAG}int", _INT, _FIRST),
    (f"{_TAG}float", _FLOAT, _FIRST),
    (_UNCLEAR, _UNCLEAR_NUMBER, _FIRST),
)


class Unclear(yaml.MarkedYAMLError):
    """A value that other readers of YAML would understand in another way.

    Attributes:
        reason: which one, in plain words.
        line, column: from 1.
    """

    def __init__(self, reason: str, mark: yaml.Mark) -> None:
        super().__init__(problem=reason, problem_mark=mark)
        self.reason, self.line, self.column = reason, mark.line + 1, mark.column + 1


@lru_cache(maxsize=2)
def loader(base: Any) -> Any:
    """Return a class of loaders that reads plain values as described above.

    Args:
        base: SafeLoader or CSafeLoader of yaml.
    """

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as yaml has it)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                    key.tag = f"{_TAG}str"  # `NO` and 1.50 are names of variables
            return super().construct_mapping(node, deep=deep)

    for tag, pattern, first in _RESOLVERS:
        # yaml uses match(), which would take 030 for a 0 with a rest.
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern.pattern})\Z", pattern.flags), first)
    Loader.add_constructor(_UNCLEAR, _refuse)
    Loader.add_constructor(f"{_TAG}int", lambda _, node: int(_checked(node, _INT)))
    Loader.add_constructor(f"{_TAG}float", lambda _, node: float(_checked(node, _FLOAT)))
    Loader.add_constructor(f"{_TAG}bool", lambda _, node: _checked(node, _BOOL).lower() == "true")
    return Loader


def _checked(node: Any, pattern: re.Pattern[str]) -> str:
    """Return the text of a value: with a tag, as in `!!int 0o30`, it may have any form."""
    if not isinstance(node, yaml.ScalarNode) or not pattern.fullmatch(node.value):
        _refuse(None, node)
    return str(node.value)


def _refuse(_loader: Any, node: Any) -> NoReturn:
    shown = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or a map"
    reason = f"{shown} is read in different ways: write a plain number, like 24, or text in quotes"
    raise Unclear(reason, node.start_mark)
