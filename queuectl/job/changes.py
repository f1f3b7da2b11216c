"""What a person changes of a job: single fields, typed as FIELD=VALUE, or the whole file."""

from __future__ import annotations

import os
import re
import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.fields import check_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from queuectl.job.record import Job

CHANGEABLE = tuple(name for name in jobs.PRODUCER_FIELDS if name != "id")
"""The fields that may be changed: the producer's, but for the id, which names the job's files."""


def whole(text: str) -> int:
    """Read a whole number.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise ValueError(f"{_short(text)} is not a whole number")
    return int(text)


def number(text: str) -> float:
    """Read a number, kept whole when it is.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", text, re.ASCII):
        raise ValueError(f"{_short(text)} is not a number")
    return float(text) if "." in text else int(text)


def _moment(text: str) -> object:
    """A moment, or so long from now: +1h."""
    if not text.startswith("+"):
        return time.time() if text == "now" else text
    return time.time() + times.parse_duration(text[1:])


def _json(text: str) -> object:
    from queuectl.job.strict_json import load_json

    try:
        return load_json(text)
    except InvalidJob as error:
        raise ValueError(error.reason) from None


def _command(text: str) -> object:
    try:
        return _json(text) if text.startswith("[") else text
    except ValueError:
        return text  # [ is a command, too


def _listed(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _flag(text: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in words:
        raise ValueError(f"must be true or false, not {_short(text)}")
    return words[text.lower()]


_READ: dict[str, Callable[[str], object]] = {
    "command": _command,
    "priority": whole,
    "run_at": _moment,
    "max_retries": whole,
    "backoff_base": number,
    "env": _json,
    "jitter": number,
    "retry_on": lambda text: [whole(word) for word in _listed(text)],
    "give_up_on": lambda text: [whole(word) for word in _listed(text)],
    "expires_at": _moment,
    "tags": _listed,
    "hold": _flag,
}
"""How the text after the = is read; what stands not here is text in the job's file, too."""


def read_changes(words: Iterable[str]) -> dict[str, Any]:
    """Read changes as they are typed.

    Args:
        words: FIELD=VALUE each. Lists are `a,b`, maps JSON, moments may be `+1h`; nothing after the = takes the field
            away, so that the settings decide. `tags+=a` and `tags-=a` leave the other tags as they are.

    Raises:
        ValueError: there is no such field, or the value is none for it.
    """
    made: dict[str, Any] = {}
    for word in words:
        typed, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{_short(word)} is not FIELD=VALUE")
        field, sign = _signed(typed.strip())
        name = _known(field.replace("-", "_"), sign)
        try:
            value = check_field(name, _READ.get(name, str)(text.strip())) if text.strip() else None
            made[name + sign] = value
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return made


def changed(data: bytes, changes: Mapping[str, Any]) -> Job:
    """Read a job from a file's bytes, with some fields changed; a wrong value in the file may be replaced so.

    Args:
        changes: values as a job file has them, by field; None takes a field away. `tags+` and `tags-` add and remove.

    Raises:
        InvalidJob: a field may not be changed, or the whole is no job even so.
    """
    if not changes:
        return jobs.parse(data)
    from queuectl.job.strict_json import load_object

    record = load_object(data)
    for name, value in changes.items():
        field, sign = _signed(name)
        try:
            _known(field, sign)
        except ValueError as error:
            raise InvalidJob(str(error)) from None
        record[field] = _combined(record.get(field), sign, value) if sign else value
    job = jobs.from_mapping(record)
    if "cwd" in changes and job.cwd:
        job.cwd = _from_here(job.cwd)
    return job


def _from_here(path: str) -> str:
    """A folder as its caller means it, who is somewhere: to a worker a relative one starts at its home."""
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise InvalidJob("is relative, and the current directory is gone", field="cwd") from None


def _signed(name: str) -> tuple[str, str]:
    """A field, and whether its value is to be added to it (+) or removed from it (-)."""
    return (name[:-1], name[-1]) if name[-1:] in {"+", "-"} else (name, "")


def _combined(there: Any, sign: str, value: Any) -> Any:
    there = there if isinstance(there, list) else []
    if sign == "+":
        return [*there, *(value or ())]
    return [one for one in there if one not in (value or ())] or None


def _known(name: str, sign: str = "") -> str:
    """The name of a field that may be changed.

    Raises:
        ValueError: it may not, or not in this way, or there is none.
    """
    if name in CHANGEABLE:
        if sign and name != "tags":
            raise ValueError(f"{name}{sign}= is for tags only; write {name}=VALUE")
        return name
    if name == "id":
        raise ValueError("the id of a job cannot be changed: it names its files")
    if name in jobs.KNOWN:
        raise ValueError(f"{name} is written by queuectl, and cannot be changed")
    near = get_close_matches(name, CHANGEABLE, n=1)
    raise ValueError(f"no field {_short(name)}" + (f"; did you mean {near[0]}?" if near else ""))


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
