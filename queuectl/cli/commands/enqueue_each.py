"""`queuectl enqueue --each`: one job for each file that matches, or for each line of stdin."""

from __future__ import annotations

import os
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

from queuectl.cli import options as takes
from queuectl.cli.base import Usage
from queuectl.errors import QueuectlError
from queuectl.job.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


NAMING = ("id", "unique")
"""The flags that may have placeholders, too."""


class Each:
    """A stream of jobs made from a template; in bulk.py it takes the place of a file of jobs.

    Args:
        patterns: globs, ** included; - is the lines of stdin.
        command: text for the shell, or a list.
        end: what ends a value on stdin: a line end, or NUL.
        fields: the flags. The globs are looked up in the folder in which the jobs will run.

    Raises:
        Usage: the template makes no sense.
    """

    name = "--each"
    size: int | None = None
    consumed = 0

    def __init__(
        self, patterns: Sequence[str], command: str | list[str], fields: Mapping[str, Any], end: bytes
    ) -> None:
        self.place = ""
        self._end = end
        self._patterns = patterns
        self._folder = os.path.expanduser(fields.get("cwd") or os.curdir)
        naming = {name: fields[name] for name in NAMING if name in fields}
        # With if_exists: queue a key of all of them makes sense: they run one after another.
        one_by_one = fields.get("if_exists") == "queue"
        self._for_one = [
            name for name in naming if "{" not in naming[name] and not (name == "unique" and one_by_one)
        ]
        try:
            self._template = Template(command, **naming)
        except ValueError as error:
            raise Usage(str(error), hint="queuectl enqueue --help") from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs.

        Raises:
            QueuectlError: a pattern matches nothing, or a name is no UTF-8.
        """
        for number, value in enumerate(self._values(), 1):
            if number > 1 and self._for_one:
                name = self._for_one[0]
                hint = f"number them, as in --{name} job-{{n}}"
                raise Usage(f"--{name} is for one job, and there are several", hint=hint)
            self.place = repr(value)
            try:
                takes.plain_text(value)
            except ValueError:
                raise QueuectlError(f"{value!r} is not UTF-8, so no job file can hold it") from None
            yield self._template.job(value, number)

    def _values(self) -> Iterator[str]:
        # All are looked up before the first job: a slip in the last pattern is told before any is queued.
        matches = [
            _values_of_stdin(self._end) if pattern == "-" else self._matching(pattern)
            for pattern in self._patterns
        ]
        yield from chain.from_iterable(matches)

    def _matching(self, pattern: str) -> list[str]:
        import glob

        found = sorted(glob.glob(os.path.expanduser(pattern), root_dir=self._folder, recursive=True))
        if not found:
            raise QueuectlError(f"nothing matches {pattern!r} in {os.path.abspath(self._folder)}")
        # A name that begins with a dash would be taken for an option.
        return [f"./{path}" if path.startswith("-") else path for path in found]


def _values_of_stdin(end: bytes) -> Iterator[str]:
    """What stands on stdin, each without its end: lines that are not blank, or all that NUL ends."""
    if sys.stdin is None:
        raise QueuectlError("cannot read stdin: it is closed")
    rest = b""
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        *whole, rest = (rest + data).split(end)
        yield from _texts(whole, end)
    yield from _texts([rest], end)


def _texts(values: Iterable[bytes], end: bytes) -> Iterator[str]:
    for value in values:
        text = (value if end == b"\0" else value.removesuffix(b"\r")).decode(errors="surrogateescape")
        if text.strip() or (text and end == b"\0"):
            yield text
