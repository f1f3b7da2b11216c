"""Read job files of any size: JSON (one job, a list, one a line) and YAML, one job at a time.

Memory holds one job and a chunk of the file. Each job comes with the place where it stands, for errors.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from queuectl.errors import InvalidJob, QueuectlError
from queuectl.job.record import SIZE_LIMIT
from queuectl.job.strict_json import load_object, load_simple

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 16
_BLANK = " \t\r\n"
_JSON_NAMES = (".json", ".jsonl", ".ndjson")
_YAML_NAMES = (".yaml", ".yml")


class JobFile:
    """A stream of jobs.

    Args:
        stream: bytes, read once from front to back.
        name: what errors call it.

    Attributes:
        consumed: bytes read so far.
        place: where the last job stands, in words; `at` is line and column, where they are known.
        raw, node: the last job as it was written, in JSON or in YAML.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.consumed = 0
        self.place = ""
        self.at: tuple[int, int] | None = None
        self.raw = ""
        self.node: Any = None
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")()

    @property
    def size(self) -> int | None:
        """Bytes of the whole file; None when nobody can know, as in a pipe."""
        try:
            status = os.fstat(self._stream.fileno())
        except (OSError, ValueError):
            return None
        return status.st_size or None

    def place_of(self, field: str | None) -> tuple[int, int] | None:
        """Line and column of a field of the last job; of the whole job when it does not have it."""
        if self.node is not None:
            from queuectl.cli import job_reader_yaml

            return job_reader_yaml.place_of(self.node, field, self._lines_before)
        from queuectl.job.fault import find_field

        inside = find_field(self.raw, field) if field and self.raw else None
        if inside is None or self.at is None:
            return self.at
        line, column = inside
        return self.at[0] + line - 1, column + (self.at[1] - 1 if line == 1 else 0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs as decoded maps; `place` says where the last one stood.

        Raises:
            InvalidJob: something in the file can be no job.
            QueuectlError: the file cannot be read.
        """
        text = self._head()
        if self._is_json(text):
            yield from self._json(text)
        else:
            yield from self._yaml(text)

    def _is_json(self, text: str) -> bool:
        name = self.name.lower()
        if name.endswith(_YAML_NAMES):
            return False
        return name.endswith(_JSON_NAMES) or text.startswith(("{", "["))

    def _head(self) -> str:
        """The first chunk from its first character on that says something."""
        text = ""
        while not text:
            more = self._more()
            if not more:
                raise InvalidJob("the file is empty")
            self._lines_before = getattr(self, "_lines_before", 0) + _leading_lines(more)
            text = more.lstrip(_BLANK)
        return text

    def _more(self) -> str:
        """The next chunk as text, empty at the end of the file."""
        text = ""
        while not text:
            try:
                data = self._stream.read(CHUNK)
            except OSError as error:
                raise QueuectlError(
                    f"cannot read {self.name}: {(error.strerror or str(error)).lower()}"
                ) from None
            if self.consumed == 0:
                data = _without_bom(data)
            try:
                text = self._decode.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise InvalidJob(f"the file is not UTF-8 (byte {self.consumed + error.start})") from None
            self.consumed += len(data)
            if not data:
                break
        return text

    def _json(self, text: str) -> Iterator[dict[str, Any]]:
        """Split a list, or values that follow one another, into jobs without reading it all."""
        scan = _Scan(self, text, self._lines_before + 1)
        listed = scan.peek() == "["
        if listed:
            scan.skip(1)
        first = True
        while mark := scan.peek():
            if listed and mark == "]":
                if not first and scan.after_comma:
                    raise scan.wrong("a job must follow the comma")
                scan.skip(1)
                if scan.peek():
                    raise scan.wrong("something follows the end of the list")
                return
            self.place = f"line {scan.line}"
            self.at = scan.line, scan.column
            yield scan.value()
            first = False
            scan.after_comma = False
            if listed:
                scan.comma()
        if listed:
            raise InvalidJob("not JSON: the file ends in the middle of the list")

    def _yaml(self, text: str) -> Iterator[dict[str, Any]]:
        import yaml

        from queuectl.cli import job_reader_yaml

        number = 0
        try:
            for value, node in job_reader_yaml.documents(_Rest(self, text), self._lines_before):
                listed = isinstance(value, list)
                for one, self.node in zip(value, node.value, strict=True) if listed else [(value, node)]:
                    number += 1
                    self.place = f"job {number}"
                    if not isinstance(one, dict):
                        raise InvalidJob("a job is a map with `command` in it, or JSON")
                    yield job_reader_yaml.as_json(one)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = mark.line + 1 + self._lines_before if mark else 0
            where = f" (line {line}, column {mark.column + 1})" if mark else ""
            reason = f"neither JSON nor YAML: {error.problem or error.context}{where}"
            raise InvalidJob(reason, at=(line, mark.column + 1) if mark else None) from None
        except yaml.YAMLError as error:
            raise InvalidJob(f"neither JSON nor YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise InvalidJob("nested too deeply") from None


class _Scan:
    """A window on JSON text that grows at its end and shrinks at its front."""

    def __init__(self, source: JobFile, text: str, line: int) -> None:
        self._source = source
        self._text = text
        self._at = 0
        self._before = 0
        self._raw = json.JSONDecoder().raw_decode
        self.line = line
        self.after_comma = False

    @property
    def column(self) -> int:
        """The column of the next character, from 1."""
        start = self._text.rfind("\n", 0, self._at)
        return self._at - start + (self._before if start < 0 else 0)

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            self._forget_read()
            self._text = self._source._more()
            if not self._text:
                return ""

    def _forget_read(self) -> str:
        """Let go of what has been read, but for the length of its last line; returns the rest."""
        self._before = self.column - 1
        rest, self._text, self._at = self._text[self._at :], "", 0
        return rest

    def wrong(self, what: str) -> InvalidJob:
        """The error about the next character."""
        return InvalidJob(f"not JSON: {what} (line {self.line})", at=(self.line, self.column))

    def skip(self, length: int) -> None:
        self._at += length

    def comma(self) -> None:
        """Take the comma after an element of a list."""
        mark = self.peek()
        if mark == ",":
            self.skip(1)
            self.after_comma = True
        elif mark not in {"]", ""}:
            raise self.wrong("a comma is missing")

    def value(self) -> dict[str, Any]:
        """Take the object that starts here, whole, reading on as far as it needs and a job may go."""
        if line := self._whole_line():
            return line
        end = self._end()
        raw = self._source.raw = self._text[self._at : end]
        self._at = end
        value = load_object(raw.encode())
        self.line += raw.count("\n")
        return value

    def _whole_line(self) -> dict[str, Any] | None:
        """The job that fills the line from here on, read once where all others are read twice; None for others."""
        end = self._text.find("\n", self._at)
        raw = self._text[self._at : end] if end > 0 else ""
        found = load_simple(raw.encode()) if raw else None
        if found is not None:
            self._at, self._source.raw = end, raw
        return found

    def _end(self) -> int:
        """Where the value that starts here ends."""
        while True:
            try:
                return self._raw(self._text, self._at)[1]
            except RecursionError:
                raise InvalidJob("nested too deeply") from None
            except ValueError as error:
                inside = getattr(error, "pos", self._at) - self._at
                if not self._grow():
                    self._refuse(error, inside)

    def _grow(self) -> bool:
        """Read as much again; False at the end of the file, or when no job may be that long."""
        have = len(self._text) - self._at
        if have > SIZE_LIMIT:
            return False
        parts = [self._forget_read()]
        read = 0
        while read < max(have, CHUNK) and (more := self._source._more()):
            parts.append(more)
            read += len(more)
        self._text = "".join(parts)
        return read > 0

    def _refuse(self, error: ValueError, inside: int) -> NoReturn:
        """Say what is wrong so many characters behind the start of the value."""
        if not isinstance(error, json.JSONDecodeError):
            raise InvalidJob("a number with too many digits") from None
        # Of a text without an end the error names the start, and of all else the place that is wrong.
        far = error.msg.startswith("Unterminated") or inside >= SIZE_LIMIT
        if far and len(self._text) - self._at > SIZE_LIMIT:
            raise InvalidJob(f"too large: a job may have {SIZE_LIMIT} bytes") from None
        wrong = self._at + inside
        line = self.line + self._text.count("\n", self._at, wrong)
        self._at = wrong
        told = f"line {line}" + (f", column {self.column}" if line > self.line else "")
        if not self._text[wrong:].strip(_BLANK):
            told += ", where the file ends"
        raise InvalidJob(f"not JSON: {error.msg.lower()} ({told})", at=(line, self.column)) from None


class _Rest:
    """The text already read and the rest of the file, as the stream that the YAML parser wants."""

    def __init__(self, source: JobFile, text: str) -> None:
        self._source = source
        self._text = text

    def read(self, _size: int = -1) -> str:
        text, self._text = self._text or self._source._more(), ""
        return text


def _leading_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip(_BLANK))].count("\n")


def _without_bom(data: bytes) -> bytes:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidJob("the file is UTF-16; save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


@contextmanager
def opened(path: str) -> Iterator[JobFile]:
    """Open a file of jobs; `-` is stdin.

    Raises:
        QueuectlError: it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise QueuectlError("cannot read stdin: it is closed")
        yield JobFile(sys.stdin.buffer, "stdin")
        return
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed below; opening and reading fail in different words)
    except OSError as error:
        raise QueuectlError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    with stream:
        yield JobFile(stream, path)
