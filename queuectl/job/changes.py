"""Changes of a job's fields: read from FIELD=VALUE as typed, and applied to the content of a job file."""

from __future__ import annotations

import os
import re
import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from queuectl.errors import InvalidJob
from queuectl.job import conditions, spoken_times
from queuectl.job import record as jobs
from queuectl.job.fields import BATCH, check_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from queuectl.job.record import Job

CHANGEABLE = tuple(name for name in jobs.PRODUCER_FIELDS if name != "id")
"""The fields that may be changed: those of the producer, except for the id, which the job's files are named after."""


def integer(text: str) -> int:
    """Read an integer.

    Raises:
        ValueError: the text is not one.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise ValueError(f"{_short(text)} is not a whole number")
    return int(text)


def number(text: str) -> float:
    """Read a number; one without a decimal point becomes an int.

    Raises:
        ValueError: the text is not one.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", text, re.ASCII):
        raise ValueError(f"{_short(text)} is not a number")
    return float(text) if "." in text else int(text)


def _moment(text: str) -> object:
    """Read a time as people type it: now, +1h, tomorrow 02:00."""
    return spoken_times.read_moment(text, time.time())


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
        return text  # "[" is also the name of a command


def _listed(text: str) -> list[str]:
    return text.replace(",", " ").split()


def read_needs(text: str) -> object:
    """Read what a job needs: `gpu=1 memory=16`, with blanks or commas between, or a map in JSON.

    Raises:
        ValueError: a part of the text is not NAME=NUMBER.
    """
    if text.lstrip().startswith("{"):
        return _json(text)
    parts = [word.partition("=") for word in _listed(text)]
    for name, equals, amount in parts:
        if not (name and equals and amount):
            raise ValueError(f"{_short(name + equals + amount)} is not NAME=NUMBER, like gpu=1")
    return {name: integer(amount) for name, _, amount in parts}


def _flag(text: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in words:
        raise ValueError(f"must be true or false, not {_short(text)}")
    return words[text.lower()]


_SIGNED = frozenset({"tags", "after", "after_any", "after_failure"})
"""The fields of which a change can add a part with += and remove one with -=."""

_READ: dict[str, Callable[[str], object]] = {
    "command": _command,
    "priority": integer,
    "run_at": _moment,
    "max_retries": integer,
    "backoff_base": number,
    "env": _json,
    "jitter": number,
    "retry_on": lambda text: [integer(word) for word in _listed(text)],
    "give_up_on": lambda text: [integer(word) for word in _listed(text)],
    "expires_at": _moment,
    "tags": _listed,
    "after": _listed,
    "after_any": _listed,
    "after_failure": _listed,
    "hold": _flag,
    "needs": read_needs,
}
"""For each field: how the text after = is read. For all others, the text itself is the value."""


def read_changes(words: Iterable[str]) -> dict[str, Any]:
    """Read changes as they are typed on the command line.

    Args:
        words: FIELD=VALUE each. A list is `a,b`, a map is JSON, a time may be `+1h`. An empty value removes the field,
            so that the setting applies. `tags+=a` and `tags-=a` add and remove tags; `after` works like them.

    Returns:
        the typed values by field; None removes a field. `tags+` and `tags-` are names too.

    Raises:
        ValueError: there is no such field, or the value is wrong for it.
    """
    made: dict[str, Any] = {}
    for word in words:
        typed, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{_short(word)} is not FIELD=VALUE")
        field, sign = _split_sign(typed.strip())
        name = _changeable(field.replace("-", "_"), sign)
        try:
            value = None if _removes(name, text) else check_field(name, _READ.get(name, str)(text.strip()))
            made[name + sign] = value
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return made


def _removes(name: str, text: str) -> bool:
    """Whether this value removes a field: nothing, or `none` for a time."""
    return not text.strip() or (name in ("run_at", "expires_at") and text.strip().lower() == "none")


def changed(data: bytes, changes: Mapping[str, Any]) -> Job:
    """Read a job from the content of a file, with some fields changed; this can also correct wrong values in the file.

    Whoever writes it checks its size.

    Args:
        changes: as `read_changes` returns them.

    Raises:
        InvalidJob: a field cannot be changed, or the result is not a valid job.
    """
    if not changes:
        return jobs.parse(data)
    from queuectl.job.strict_json import load_object

    return _with_changes(load_object(data), changes)


def changed_job(job: Job, changes: Mapping[str, Any]) -> Job:
    """Do the same for a job that was read already; returns another one."""
    return _with_changes(job.to_dict(), changes)


def _with_changes(record: dict[str, Any], changes: Mapping[str, Any]) -> Job:
    for name, value in changes.items():
        field, sign = _split_sign(name)
        try:
            _changeable(field, sign)
        except ValueError as error:
            raise InvalidJob(str(error)) from None
        record[field] = _combined(record.get(field), sign, value) if sign else value
    if "timeout" in changes:
        # Somebody has chosen the limit, even if it is that of the settings.
        record.pop("default_timeout", None)
    job = jobs.from_mapping(record)
    conditions.check(job)
    if "cwd" in changes and job.cwd:
        job.cwd = _absolute(job.cwd)
    return job


def _absolute(path: str) -> str:
    """Make a path absolute, from the caller's current directory: a worker would start at its home directory."""
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise InvalidJob("is relative, and the current directory is gone", field="cwd") from None


def _split_sign(name: str) -> tuple[str, str]:
    """Split a name like `tags+` into the field and its sign: + adds the value to the field, - removes it."""
    return (name[:-1], name[-1]) if name[-1:] in {"+", "-"} else (name, "")


def _combined(present: Any, sign: str, value: Any) -> Any:
    # A job file may have a text instead of a list of one: after: extract.
    found = present if isinstance(present, list) else [present] if isinstance(present, str) else []
    if sign == "+":
        return [*found, *(value or ())]
    gone = {*(value or ())}
    return [one for one in found if one not in gone and _without_count(one) not in gone] or None


def _without_count(name: Any) -> Any:
    """Return `batch:parts` for `batch:parts=100`: who takes it away need not know the number."""
    return name.partition("=")[0] if isinstance(name, str) and name.startswith(BATCH) else name


def _changeable(name: str, sign: str = "") -> str:
    """Check that a field can be changed, and return its name.

    Raises:
        ValueError: it cannot be changed, or not with this sign, or there is no such field.
    """
    if name in CHANGEABLE:
        if sign and name not in _SIGNED:
            raise ValueError(f"{name}{sign}= is for lists of names only; write {name}=VALUE")
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
