"""Makes one job for each of many values, from a command with placeholders: `ffmpeg -i {} {stem}.mp3`.

In text for the shell, each value is quoted. A placeholder where quoting would not be safe is refused.
"""

from __future__ import annotations

import os
import re
import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PLACEHOLDERS = {
    "": "the value itself",
    "stem": "its name without folder and extension",
    "name": "its name without folder",
    "dir": "its folder, . if it has none",
    "ext": "its extension, without the dot",
    "n": "its number, from 1",
}
"""What may be between the braces of a placeholder, and what it stands for."""

_NAMING = ("id", "unique")
"""The fields, besides the command, in which placeholders are filled in."""

# A brace after $ belongs to the shell: ${HOME} is left alone.
_MARK = re.compile(r"\{\{|(?<!\$)\{([a-z]*)\}")


class Template:
    """A command with placeholders: {} {stem} {name} {dir} {ext} {n}, and {{ for a brace.

    Args:
        command: text is run by the shell, a list without a shell.
        fields: more fields of each job; the id and the unique key may have placeholders too.

    Raises:
        ValueError: a placeholder is unknown, there is none, or one is in a place where quoting would not be safe.

    Attributes:
        placeholders: what may be between the braces, and what it stands for.
    """

    placeholders: Mapping[str, str] = PLACEHOLDERS

    def __init__(self, command: str | list[str], **fields: Any) -> None:
        self._shell = isinstance(command, str)
        self._parts = [command] if isinstance(command, str) else list(command)
        self._fields = fields
        for text in [*self._parts, *(fields.get(name) or "" for name in _NAMING)]:
            _refuse_unknown(text, self.placeholders)
        if not any(mark[0] != "{{" for part in self._parts for mark in _MARK.finditer(part)):
            self._refuse_plain()
        if isinstance(command, str):
            _refuse_unsafe(command)

    def job(self, value: str, number: int = 1) -> dict[str, Any]:
        """Return the fields of the job for one value.

        Args:
            number: the value of {n}.
        """
        return self._filled(meanings(value, number))

    def _refuse_plain(self) -> None:
        """Refuse a command without a placeholder: each of its jobs would do the same."""
        raise ValueError("the command has no placeholder: {} stands for each value")

    def _filled(self, found: dict[str, str]) -> dict[str, Any]:
        """Return the fields of a job.

        Args:
            found: what each of the placeholders stands for.
        """
        parts = [_filled(part, found, shlex.quote if self._shell else str) for part in self._parts]
        made = {**self._fields, "command": parts[0] if self._shell else parts}
        for name in _NAMING:
            if made.get(name):
                made[name] = _filled(made[name], found, str)
        return made

    def jobs(self, values: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield the jobs for many values, for `Spool.enqueue_many`."""
        for number, value in enumerate(values, 1):
            yield self.job(value, number)


def meanings(value: str, number: int) -> dict[str, str]:
    """Return what each placeholder stands for."""
    folder, name = os.path.split(value)
    stem, dot_ext = os.path.splitext(name)
    return {
        "": value,
        "stem": stem,
        "name": name,
        "dir": folder or ".",
        "ext": dot_ext[1:],
        "n": str(number),
    }


def _filled(text: str, meanings: dict[str, str], quoted: Callable[[str], str]) -> str:
    return _MARK.sub(lambda mark: "{" if mark[0] == "{{" else quoted(meanings[mark[1]]), text)


def _refuse_unknown(text: str, known: Mapping[str, str]) -> None:
    for mark in _MARK.finditer(text):
        if mark[0] != "{{" and mark[1] not in known:
            near = get_close_matches(mark[1], known, n=1)
            meant = f"; is {{{near[0]}}} meant?" if near else ""
            raise ValueError(f"no placeholder is called {mark[0]}{meant} ({{{mark[0]} is that text itself)")


def _refuse_unsafe(text: str) -> None:
    """Refuse placeholders in places where the shell could interpret a quoted value."""
    reasons = dict(_unsafe_places(text))
    for mark in _MARK.finditer(text):
        if mark[0] != "{{" and mark.start() in reasons:
            raise ValueError(
                f"{mark[0]} stands {reasons[mark.start()]}, where a value cannot be quoted safely; "
                "outside of quotes each value is quoted by itself"
            )


_BLANKS = frozenset(" \t\n")
_WORD_ENDS = _BLANKS | set(";&|()")
_TOO_INTRICATE = (
    ("`", "behind a backquote"),
    ("<<", "behind <<"),
    ("$'", "behind $'"),
    ("((", "behind (("),
    ("$[", "behind $["),
)


def _unsafe_places(text: str) -> Iterator[tuple[int, str]]:
    """Yield the offsets in a shell text at which a quoted value would not be one word of data, each with the reason.

    This follows quotes, backslashes and comments. After anything else that may change the meaning of quotes, no place
    counts as safe.
    """
    at = 0
    before = "\n"  # the last character, or "" if it was quoted or escaped
    while at < len(text):
        intricate = next((why for sign, why in _TOO_INTRICATE if text.startswith(sign, at)), None)
        if text.startswith("\\\n", at) and before not in _BLANKS:
            intricate = "behind a word that goes on in the next line"  # it may join < and <, or $ and '
        if intricate:
            yield from ((place, intricate) for place in range(at, len(text)))
            return
        here, why = text[at], ""
        if here == "\\":
            end, why = at + 2, "behind a backslash"
        elif here == "'":
            end, why = _after(text, "'", at + 1), "in quotes"
        elif here == '"':
            end, why = _end_of_double(text, at + 1), "in quotes"
        elif here == "#" and before in _WORD_ENDS:
            end, why = _after(text, "\n", at), "in a comment"
        elif text.startswith("${", at):
            end, why = _end_of_expansion(text, at + 2), "in ${…}"
        else:
            end = at + 1
        if why:
            yield from ((place, why) for place in range(at, min(end, len(text))))
        if not text.startswith("\\\n", at):
            before = "\n" if why == "in a comment" else "" if why else here
        at = end


def _after(text: str, mark: str, start: int) -> int:
    found = text.find(mark, start)
    return len(text) if found < 0 else found + 1


def _end_of_double(text: str, at: int) -> int:
    """Return the offset after the closing quote; the end of the text if a command inside may contain quotes itself."""
    while at < len(text) and text[at] != '"':
        if text[at] == "`" or text.startswith(("$(", "${", "$\\\n"), at):
            return len(text)
        at += 2 if text[at] == "\\" else 1
    return at + 1


def _end_of_expansion(text: str, at: int) -> int:
    """Return the offset after the closing brace of ${name}; the end of the text for any other expansion."""
    found = re.compile(r"[A-Za-z0-9_@*#?!-]+\}").match(text, at)
    return found.end() if found else len(text)
