"""Reads JSON from untrusted files: strictly, and with an error message in plain words."""

from __future__ import annotations

import math

from queuectl.errors import InvalidJob
from queuectl.fast_start import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH_LIMIT = 32

_LARGE = 2**53  # larger numbers may lose digits when they are parsed as float


def load_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object, strictly: UTF-8 (a BOM is allowed), no duplicate keys, no NaN, no deep nesting.

    Raises:
        InvalidJob: with the reason, and the place if it is known.
    """
    record = load_simple(data)
    return _load_strictly(data) if record is None else record


def load_simple(data: bytes) -> dict[str, Any] | None:
    """Read a JSON object with orjson, five times as fast as the strict reader; None if that may not be exact.

    orjson keeps the last of two equal keys without an error. So the keys of the result are counted and compared with
    the number of `":` in the text. Escapes, large numbers, deep nesting and errors are left to the strict reader, which
    can also say what is wrong.
    """
    if data[:1] != b"{" or b"\\u" in data or data.count(b"{") + data.count(b"[") > DEPTH_LIMIT:
        return None
    try:
        record = fast_json.loads(data)
        # Written by queuectl, and nothing is lost in reading it: no duplicate keys.
        ours = (
            data[1:2] == b"\n"
            and fast_json.dumps(record, option=fast_json.OPT_INDENT_2 | fast_json.OPT_APPEND_NEWLINE) == data
        )
    except (fast_json.JSONDecodeError, TypeError):
        return None
    if not isinstance(record, dict):
        return None
    keys = _count_keys(record)
    if ours:
        return record if keys >= 0 else None
    # White space before a colon would hide a key from the count. A regular expression would be slower than all of this.
    if b" :" in data or b"\n:" in data or b"\r:" in data or b"\t:" in data or b'\\\\":' in data:
        return None
    marks = data.count(b'":') - data.count(b'\\":')
    return record if keys == marks else None


def _count_keys(value: Any) -> int:
    """Count the keys at all depths; negative if a number is so large that the parser may have rounded it."""
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
    """Read JSON text under the same strict rules as `load_object`; it may be any value.

    Raises:
        InvalidJob: with the reason, and the place if it is known.
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
        raise InvalidJob("is given twice", field=twice)
    return found


def _no_constant(text: str) -> float:
    raise InvalidJob(f"{text} is not a number in JSON")


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser fails on it. Jobs with few brackets pass without a closer look."""
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
    """Refuse values that could not be written back: integers of more than 64 bits, infinities, lone surrogates."""
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
