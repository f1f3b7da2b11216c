"""JSON as a stranger may have written it: one way to read it, or a plain word about what is wrong."""

from __future__ import annotations

import math
from typing import Any

import orjson

from queuectl.errors import InvalidJob

DEPTH_LIMIT = 32
OURS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
"""How queuectl writes a file of its own."""

_LARGE = 2**53


def load_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object, strictly: UTF-8 (a BOM is forgiven), no duplicate keys, no NaN, no deep nesting.

    Raises:
        InvalidJob: what is wrong, and where.
    """
    record = load_plain(data)
    return _load_strictly(data) if record is None else record


def load_plain(data: bytes) -> dict[str, Any] | None:
    """Read the files that need no strict look at five times the speed; None for all others.

    A C parser that keeps the last of two equal keys is right when there are as many keys as key marks. Escapes, large
    numbers, deep nesting and errors are for the strict reader, who can also say what is wrong.
    """
    if data[:1] != b"{" or b"\\u" in data or data.count(b"{") + data.count(b"[") > DEPTH_LIMIT:
        return None
    try:
        record = orjson.loads(data)
        # Written by us, and nothing was lost on the way.
        ours = data[1:2] == b"\n" and orjson.dumps(record, option=OURS) == data
    except (orjson.JSONDecodeError, TypeError):
        return None
    if not isinstance(record, dict):
        return None
    keys = _count_keys(record)
    if ours:
        return record if keys >= 0 else None
    # A blank before the colon would hide a key. No pattern here: it takes longer than all the rest.
    if b" :" in data or b"\n:" in data or b"\r:" in data or b"\t:" in data or b'\\\\":' in data:
        return None
    marks = data.count(b'":') - data.count(b'\\":')
    return record if keys == marks else None


def _count_keys(value: Any) -> int:
    """How many keys there are at all depths; less than none if a number is large: the parser may have rounded it."""
    found, inside = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for inner in inside:
        kind = type(inner)
        if kind is float or kind is int:
            if not -_LARGE < inner < _LARGE:
                return -_LARGE
        elif kind is dict or kind is list:
            found += _count_keys(inner)
    return found


def _load_strictly(data: bytes) -> dict[str, Any]:
    value = load_json(_decode(data))
    if not isinstance(value, dict):
        raise InvalidJob("a job is a JSON object: {…}")
    return value


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidJob("the file is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidJob(f"the file is not UTF-8 (byte {error.start})") from None
    if not text.strip("\0 \t\r\n"):
        raise InvalidJob("the file is empty" if "\0" not in text else "the file holds nothing but NUL bytes")
    return text


def load_json(text: str) -> Any:
    """Parse JSON text under the same strict rules.

    Raises:
        InvalidJob: what is wrong, and where.
    """
    import json

    _check_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = error.lineno, error.colno
        reason = f"not JSON: {error.msg.lower()} (line {at[0]}, column {at[1]})"
        raise InvalidJob(reason, at=at) from None
    except RecursionError:
        raise InvalidJob("nested too deeply") from None
    except ValueError as error:
        raise InvalidJob("a number with too many digits" if "digits" in str(error) else str(error)) from None
    _check_values(value)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidJob("stands twice", field=twice)
    return found


def _no_constant(text: str) -> float:
    raise InvalidJob(f"{text} is not a number in JSON")


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser sees it. Brackets inside strings count too: no real job has so many."""
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return
    depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InvalidJob(f"nested more than {DEPTH_LIMIT} deep")
        elif character in "]}":
            depth -= 1


def _check_values(value: Any) -> None:
    """Refuse what could not be written back: numbers past 64 bits, infinities, text that no encoding holds."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidJob("a text holds a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidJob("a text holds half a surrogate pair")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidJob("a number does not fit into 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidJob("a number is too large")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_values(name)
            _check_values(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner)
    else:
        raise InvalidJob(f"{type(value).__name__} is not a JSON value")
