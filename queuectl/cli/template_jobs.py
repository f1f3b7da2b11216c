"""The jobs of `queuectl enqueue --each`: one for each file that matches a pattern, or for each value on stdin."""

from __future__ import annotations

import codecs
import os
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

from queuectl.cli import options, render
from queuectl.cli.base import Usage
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TEMPLATE_FLAGS = ("id", "unique")
"""The flags that may contain placeholders with --each."""


class TemplateJobs:
    """Jobs made from a template: one for each file that matches a pattern, or for each line of stdin.

    Args:
        patterns: globs, which may contain **; `-` stands for the lines of stdin.
        command: a shell command, or a list of words.
        fields: the flags. Globs are relative to the folder in which the jobs will run.
        end: the byte that ends a value on stdin: a line end, or NUL.
        skips_unreadable: leave out a value of stdin that is not UTF-8, and say so; else it ends the stream. File names
            are all known before the first job, so such a name refuses all of them.

    Attributes:
        left_out: how many values of stdin were not UTF-8.

    Raises:
        Usage: the template is not valid.
    """

    name = "--each"
    size: int | None = None
    consumed = 0
    is_typed = False

    def __init__(
        self,
        patterns: Sequence[str],
        command: str | list[str],
        fields: Mapping[str, Any],
        end: bytes,
        *,
        skips_unreadable: bool,
    ) -> None:
        from queuectl.job.template import Template

        self.place = ""
        self.left_out = 0
        self._skips_unreadable = skips_unreadable
        self._end = end
        self._patterns = patterns
        self._folder = os.path.expanduser(fields.get("cwd") or os.curdir)
        flags = {name: fields[name] for name in TEMPLATE_FLAGS if name in fields}
        # With `if_exists: queue` all jobs may have the same unique key: they run one after another.
        one_by_one = fields.get("if_exists") == "queue"
        self._for_one_job = [
            name for name in flags if "{" not in flags[name] and not (name == "unique" and one_by_one)
        ]
        try:
            self._template = Template(command, **flags)
        except ValueError as error:
            raise Usage(str(error), hint="queuectl enqueue --help") from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs.

        Raises:
            QueuectlError: a pattern matches nothing, or a name or value is not UTF-8.
        """
        for number, value in enumerate(self._values(), 1):
            if number > 1 and self._for_one_job:
                name = self._for_one_job[0]
                hint = f"number them, as in --{name} job-{{n}}"
                raise Usage(f"--{name} is for one job, and there are several", hint=hint)
            self.place = repr(value)
            yield self._template.job(value, number)

    def _values(self) -> Iterator[str]:
        # Resolve all patterns before the first job: an error in the last one is reported before any job is queued.
        matches = [
            self._readable(_values_of_stdin(self._end)) if pattern == "-" else self._matching(pattern)
            for pattern in self._patterns
        ]
        yield from chain.from_iterable(matches)

    def _readable(self, values: Iterable[str]) -> Iterator[str]:
        """Yield the values that a job file can contain. The last of a million must not lose those behind it."""
        for value in values:
            try:
                yield _checked(value)
            except QueuectlError as error:
                if not self._skips_unreadable:
                    raise
                render.note(f"left out: {error}")
                self.left_out += 1

    def _matching(self, pattern: str) -> list[str]:
        import glob

        found = sorted(glob.glob(os.path.expanduser(pattern), root_dir=self._folder, recursive=True))
        if not found:
            raise QueuectlError(f"nothing matches {pattern!r} in {os.path.abspath(self._folder)}")
        # The command would take a name that starts with a dash for an option.
        return [f"./{path}" if path.startswith("-") else path for path in map(_checked, found)]


def _checked(value: str) -> str:
    """Return a value that a job file can contain.

    Raises:
        QueuectlError: it is not UTF-8.
    """
    try:
        options.utf8_text(value)
    except ValueError:
        raise QueuectlError(f"{value!r} is not UTF-8, so no job file can contain it") from None
    return value


def _values_of_stdin(end: bytes) -> Iterator[str]:
    """The values on stdin without their end: lines that are not blank, or everything that NUL ends."""
    if sys.stdin is None:
        raise QueuectlError("cannot read stdin: it is closed")
    rest = b""
    is_start = (
        end == b"\n"
    )  # `find -print0` writes names as they are; a text may begin with a byte-order mark
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        rest += data
        if is_start and len(rest) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(rest):
            continue  # the mark may come in two parts
        if is_start:
            rest, is_start = rest.removeprefix(codecs.BOM_UTF8), False
        *complete, rest = rest.split(end)
        yield from _texts(complete, end)
    yield from _texts([rest], end)


def _texts(values: Iterable[bytes], end: bytes) -> Iterator[str]:
    for value in values:
        text = (value if end == b"\0" else value.removesuffix(b"\r")).decode(errors="surrogateescape")
        if text.strip() or (text and end == b"\0"):
            yield text
