"""Read job files of any size, one job at a time: YAML, or JSON as one job, a list, or one job on each line.

Only one job and a chunk of the file are in memory. The position of each job is known, for error messages.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from queuectl.errors import InvalidJob, QueuectlError
from queuectl.job import times
from queuectl.job.record import READ_LIMIT
from queuectl.job.strict_json import load_object, load_simple

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 16
_BLANK = " \t\r\n"
_JSON_NAMES = (".json", ".jsonl", ".ndjson")
_YAML_NAMES = (".yaml", ".yml")
_CONDITIONS = re.compile(rb"\bafter(_any|_failure)?[\"']?\s*:")
_LONGEST_NAME = 64
"""Bytes of a chunk that are looked at again together with the next one, as the name of a field may be in both."""


class JobFile:
    """A stream of jobs.

    Args:
        stream: bytes, read once from start to end.
        name: the name of the file in error messages.

    Attributes:
        consumed: bytes read so far.
        place: the position of the last job as text; `at` is its line and column if they are known.
        raw, node: the last job as JSON text or as a YAML node.
        form: json, list (in JSON) or yaml; known when the first job is.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.consumed = 0
        self.is_typed = False
        self.place = ""
        self.at: tuple[int, int] | None = None
        self.raw = ""
        self.form = "json"
        self.node: Any = None
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")()

    @property
    def size(self) -> int | None:
        """The size of the file in bytes; None if it is not known, as for a pipe."""
        try:
            status = os.fstat(self._stream.fileno())
        except (OSError, ValueError):
            return None
        return status.st_size or None

    def may_have_conditions(self) -> bool:
        """Return whether a job of the file may wait for others; False for a pipe, which cannot be read twice."""
        try:
            start = self._stream.tell()
            self._stream.seek(start)
        except (OSError, ValueError):
            return False
        text = b""
        try:
            while data := self._stream.read(CHUNK):
                text = text[-_LONGEST_NAME:] + data
                if _CONDITIONS.search(text):
                    return True
            return False
        except OSError:
            return False  # the error is reported when the jobs are read
        finally:
            self._stream.seek(start)

    def place_of(self, field: str | None) -> tuple[int, int] | None:
        """The line and column of a field of the last job; of the job itself if it does not have the field."""
        if self.node is not None:
            from queuectl.config import yaml_documents

            return yaml_documents.place_of(self.node, field, self._lines_before)
        from queuectl.job.fault_location import find_field

        inside = find_field(self.raw, field) if field and self.raw else None
        if inside is None or self.at is None:
            return self.at
        line, column = inside
        return self.at[0] + line - 1, column + (self.at[1] - 1 if line == 1 else 0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs as dicts; `place` is the position of the last one.

        Raises:
            InvalidJob: a part of the file is not a valid job.
            QueuectlError: the file cannot be read.
        """
        text = self._first_text()
        if self._is_json(text):
            yield from self._json(text)
        else:
            yield from self._yaml(text)

    def _is_json(self, text: str) -> bool:
        name = self.name.lower()
        if name.endswith(_YAML_NAMES):
            return False
        return name.endswith(_JSON_NAMES) or text.startswith(("{", "["))

    def _first_text(self) -> str:
        """The text of the first chunk that is not blank, without leading blanks."""
        text = ""
        while not text:
            more = self._read_text()
            if not more:
                raise InvalidJob("the file is empty")
            self._lines_before = getattr(self, "_lines_before", 0) + _leading_lines(more)
            text = more.lstrip(_BLANK)
        return text

    def _read_text(self) -> str:
        """The next chunk as text; empty at the end of the file."""
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
        """Split a list, or a sequence of values, into jobs without reading the whole file."""
        scan = _Scan(self, text, self._lines_before + 1)
        in_list = scan.peek() == "["
        if in_list:
            self.form = "list"
            scan.skip(1)
        first = True
        while mark := scan.peek():
            if in_list and mark == "]":
                if not first and scan.after_comma:
                    raise scan.error("a job must follow the comma")
                scan.skip(1)
                if scan.peek():
                    raise scan.error("there is text after the end of the list")
                return
            self.place = f"line {scan.line}"
            self.at = scan.line, scan.column
            yield scan.value()
            first = False
            scan.after_comma = False
            if in_list:
                scan.comma()
        if in_list:
            raise InvalidJob("not JSON: the file ends in the middle of the list")

    def _yaml(self, text: str) -> Iterator[dict[str, Any]]:
        import yaml

        from queuectl.config import plain_yaml, yaml_documents

        number = 0
        self.form = "yaml"
        try:
            for value, node in yaml_documents.documents(_RemainingText(self, text), self._lines_before):
                listed = isinstance(value, list)
                for one, self.node in zip(value, node.value, strict=True) if listed else [(value, node)]:
                    number += 1
                    self.place = f"job {number}"
                    if not isinstance(one, dict):
                        raise InvalidJob("a job must be a mapping with `command`, or JSON")
                    yield yaml_documents.as_json(one)
        except plain_yaml.Unclear as error:
            at = error.line + self._lines_before, error.column
            raise InvalidJob(f"{error.reason} (line {at[0]}, column {at[1]})", at=at) from None
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
    """The part of a JSON text that has been read from the file but not yet split into jobs."""

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
        """The next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            self._drop_consumed()
            self._text = self._source._read_text()
            if not self._text:
                return ""

    def _drop_consumed(self) -> str:
        """Drop the text before the current position; keep only the length of its last line. Return the rest."""
        self._before = self.column - 1
        rest, self._text, self._at = self._text[self._at :], "", 0
        return rest

    def error(self, text: str) -> InvalidJob:
        """Make the error about the next character."""
        return InvalidJob(f"not JSON: {text} (line {self.line})", at=(self.line, self.column))

    def skip(self, length: int) -> None:
        self._at += length

    def comma(self) -> None:
        """Skip the comma after an element of a list."""
        mark = self.peek()
        if mark == ",":
            self.skip(1)
            self.after_comma = True
        elif mark not in {"]", ""}:
            raise self.error("a comma is missing")

    def value(self) -> dict[str, Any]:
        """Return the object that starts here. Read more of the file as needed, up to the limit."""
        if value := self._line_value():
            return value
        end = self._end()
        raw = self._source.raw = self._text[self._at : end]
        self._at = end
        value = load_object(raw.encode())
        self.line += raw.count("\n")
        return value

    def _line_value(self) -> dict[str, Any] | None:
        """The job that fills the rest of this line, or None. It is parsed once; jobs on several lines are parsed twice."""
        end = self._text.find("\n", self._at)
        raw = self._text[self._at : end] if end > 0 else ""
        found = load_simple(raw.encode()) if raw else None
        if found is not None:
            self._at, self._source.raw = end, raw
        return found

    def _end(self) -> int:
        """The end of the value that starts here."""
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
        """Double the text that was read. False: the file has ended, or a job may not be so long.

        The text may be as long as that of a dropped file. What queuectl writes of it is measured later, as for that.
        """
        have = len(self._text) - self._at
        if have > READ_LIMIT:
            return False
        parts = [self._drop_consumed()]
        read = 0
        while read < max(have, CHUNK) and (more := self._source._read_text()):
            parts.append(more)
            read += len(more)
        self._text = "".join(parts)
        return read > 0

    def _refuse(self, error: ValueError, inside: int) -> NoReturn:
        """Raise the error at this distance, in characters, from the start of the value."""
        if not isinstance(error, json.JSONDecodeError):
            raise InvalidJob("a number with too many digits") from None
        # For a string that is not closed the error has the position of its start; for others that of the error.
        far = error.msg.startswith("Unterminated") or inside >= READ_LIMIT
        if far and len(self._text) - self._at > READ_LIMIT:
            raise InvalidJob(f"too large: the text of a job may have {READ_LIMIT} bytes") from None
        wrong = self._at + inside
        line = self.line + self._text.count("\n", self._at, wrong)
        self._at = wrong
        place = f"line {line}" + (f", column {self.column}" if line > self.line else "")
        if not self._text[wrong:].strip(_BLANK):
            place += ", where the file ends"
        raise InvalidJob(f"not JSON: {error.msg.lower()} ({place})", at=(line, self.column)) from None


class _RemainingText:
    """The text that was already read and the rest of the file, as a stream for the YAML parser."""

    def __init__(self, source: JobFile, text: str) -> None:
        self._source = source
        self._text = text

    def read(self, _size: int = -1) -> str:
        text, self._text = self._text or self._source._read_text(), ""
        return text


def times_of_file(record: dict[str, Any]) -> None:
    """Read the times of a job that have no zone: in a file they mean the machine's zone, as in a dropped one.

    A time that cannot be read is left for the check of the job, which says what is wrong.
    """
    for name in ("run_at", "expires_at"):
        if name in record and times.without_zone(record[name]):
            with suppress(ValueError):
                record[name] = times.parse_moment(record[name], of_machine=True)


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
        stream = open(path, "rb")  # noqa: SIM115 (closed below; errors of opening and of reading have different messages)
    except OSError as error:
        raise QueuectlError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    with stream:
        yield JobFile(stream, path)
