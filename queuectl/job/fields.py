"""What each field of a job file may contain: one table of checks for all that reads jobs; and ids, old and new."""

from __future__ import annotations

import os
import time
from functools import lru_cache

from queuectl.job import times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATES = ("pending", "processing", "completed", "failed", "dead")
"""The states of a job, in the order in which they are shown."""

WAITING = ("pending", "failed")
"""The states of a job in pending/."""

MAX_TAGS = 32
"""How many tags a job may have."""

MAX_EXIT_CODES = 64
"""How many exit codes retry_on and give_up_on may list."""

MAX_NEEDS = 8
"""How many resources a job may need."""

MOST_NEEDED = 1024
"""How much of one resource a job may need."""

EVENTS = ("dead", "done", "recovered", "empty", "trial")
"""What a job that a rule about jobs has queued tells: what became of a job, that nothing is left to run, or that it is tried."""

DEFAULT_QUEUE = "default"
"""The queue of a job that names none."""

LONGEST_WORD = 131_071
"""Bytes that one argument or variable of a program may have on Linux: 32 pages with the NUL at the end."""

_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_RESOURCE = "abcdefghijklmnopqrstuvwxyz0123456789_"
_TAG = _ALPHANUMERIC + "._:/@+=-"
_KEY_LENGTH = 200
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))]
)
_BASE32 = b"0123456789abcdefghjkmnpqrstvwxyz" * 8
"""Crockford's alphabet, repeated so that each byte value becomes one of its 32 letters."""


def is_id(text: str) -> bool:
    """Return True if text can be an id: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, no dot at the end.

    Names of Windows devices, like con or com1, are refused: no file can have such a name there.
    """
    return (
        0 < len(text) <= 64
        and not text.strip(_ALPHANUMERIC + "._-")
        and text[0] in _ALPHANUMERIC
        and text[-1] != "."
        and text.partition(".")[0].lower() not in _DEVICES
    )


def new_id(now: float, ending: str = "") -> str:
    """Return a new id that sorts by time: the second in UTC, and 40 random bits, or this ending.

    Args:
        now: epoch seconds.
        ending: one of `id_endings`.
    """
    return f"{_second(int(now))}-{ending or _random_letters(8)}"


def id_of_file(name: str, status: os.stat_result) -> str:
    """Return an id for a file whose name can be none. It is the same at each look, also where no index can keep it."""
    from hashlib import blake2b

    file = f"{status.st_ino} {status.st_ctime_ns} {name}".encode("utf-8", "surrogateescape")
    return new_id(status.st_ctime, blake2b(file, digest_size=8).digest().translate(_BASE32).decode())


def id_endings(count: int) -> list[str]:
    """Return about so many random endings for the ids of a long list, in ascending order, without duplicates.

    Ascending ids are next to each other in the index. In random order, inserting a row costs twice as much.
    """
    letters = _random_letters(8 * count)
    return sorted({letters[at : at + 8] for at in range(0, len(letters), 8)})


def _random_letters(count: int) -> str:
    return os.urandom(count).translate(_BASE32).decode()


@lru_cache(maxsize=1)
def _second(whole: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(whole))


def check_field(name: str, value: object) -> Any:
    """Check the value of one field, and return it in the type that a Job has.

    Raises:
        ValueError: with the reason in plain words.
    """
    return CHECKS[name](value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_type_name(value)}")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _id(value: object) -> str:
    # Numbers are what databases and spreadsheets have for ids.
    text = str(value) if type(value) is int else _text(value)
    if not is_id(text):
        shown = text if len(text) <= 70 else text[:70] + "…"
        raise ValueError(
            f"{shown!r} cannot be an id: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, no dot at the end, no device name"
        )
    return text


def _command(value: object) -> str | list[str]:
    if isinstance(value, list):
        if not value or not all(isinstance(part, str) for part in value) or not value[0]:
            raise ValueError("a list must hold texts, the first of them the program")
        return [_word(_text(part)) for part in value]
    if not isinstance(value, str):
        raise ValueError(f"must be text or a list of texts, not {_type_name(value)}")
    if not value.strip():
        raise ValueError("is empty")
    return _word(_text(value))


def _word(text: str) -> str:
    """Refuse a text with which the kernel starts no program: the job would be accepted, and fail each time."""
    if len(text) * 4 > LONGEST_WORD and (size := len(text.encode(errors="surrogatepass"))) > LONGEST_WORD:
        raise ValueError(
            f"is too large: {size} bytes, and the system takes at most {LONGEST_WORD} at once: put it into a file that the command reads"
        )
    return text


def _integer(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, not {_type_name(value)}")
        if not low <= value <= high:
            bounds = f"{low} to {high}" if high < 10**6 else f"at least {low}"
            raise ValueError(f"must be {bounds}, not {value}")
        return value

    return check


def _base(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {_type_name(value)}")
    if not 1 <= value < float("inf"):
        raise ValueError(f"must be at least 1, not {value}")
    if value > 1e300:
        raise ValueError("must be at most 1e300")
    return value if value < 2**53 else float(value)


def _moment(value: object) -> float:
    return times.parse_moment(value, of_machine=True)


def _past(value: object) -> float:
    """Check a time that queuectl has written. A clock that was not set may show any year."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return times.within_years(times.finite(value), value)
    return _moment(value)


def _duration(value: object) -> float:
    number = times.parse_duration(value)
    return int(number) if number.is_integer() else number


def _limit(value: object) -> float:
    """Check a time limit, where 0 and `none` mean that there is none."""
    return 0 if isinstance(value, str) and value.strip().lower() == "none" else _duration(value)


def _env(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a map of texts, not {_type_name(value)}")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of a variable")
        if not isinstance(text, str):
            raise ValueError(f"the value of {name} must be text, not {_type_name(text)}: put it in quotes")
        _text(text)
        try:
            _word(f"{name}={text}")
        except ValueError as error:
            raise ValueError(f"{name[:60]} {error}") from None
    return value


def _one_of(*words: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {value!r}")
        return str(value)

    return check


def _share(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"must be 0 to 1, not {value}")
    return number


def _exit_codes(value: object) -> list[int]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of exit codes, not {_type_name(value)}")
    if len(value) > MAX_EXIT_CODES:
        raise ValueError(f"must be at most {MAX_EXIT_CODES} exit codes, not {len(value)}")
    return [_exit_code(code) for code in value]


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_type_name(value)}")
    return value


def is_tag(text: str) -> bool:
    """Return True if text can be a tag: 1 to 64 of A-Z a-z 0-9 . _ : / @ + = -, which need no quotes in a shell."""
    return 0 < len(text) <= 64 and not text.strip(_TAG)


def _tags(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise ValueError(f"must be a list of texts, not {_type_name(value)}")
    for tag in value:
        if not is_tag(tag):
            shown = tag if len(tag) <= 70 else tag[:70] + "…"
            raise ValueError(f"{shown!r} cannot be a tag: 1 to 64 of A-Z a-z 0-9 . _ : / @ + = -")
    tags = list(dict.fromkeys(value))
    if len(tags) > MAX_TAGS:
        raise ValueError(f"must be at most {MAX_TAGS} tags, not {len(tags)}")
    return tags


BATCH = "batch:"
"""The beginning of what a job waits for, if it is a batch and not a job."""


def is_batch(text: str) -> bool:
    """Return True if text can be a batch: 1 to 64 of A-Z a-z 0-9 . _ : / @ + -."""
    return is_tag(text) and "=" not in text


def _batch(value: object) -> str:
    text = _text(value)
    if not is_batch(text):
        shown = text if len(text) <= 70 else text[:70] + "…"
        raise ValueError(f"{shown!r} cannot be a batch: 1 to 64 of A-Z a-z 0-9 . _ : / @ + -")
    return text


def _parents(value: object) -> list[str]:
    """Check what a job waits for: ids, and batches like batch:parts or batch:parts=100. One text is a list of one."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"must be a list of ids, not {_type_name(value)}")
    if wrong := [one for one in value if not isinstance(one, str)]:
        raise ValueError(f"must be a list of ids, and has {_type_name(wrong[0])} in it")
    if not value:
        raise ValueError("is an empty list")
    for one in value:
        name, equals, count = one.removeprefix(BATCH).partition("=")
        shown = one if len(one) <= 70 else one[:70] + "…"
        if not (is_batch(name) if one.startswith(BATCH) else is_id(one)):
            raise ValueError(f"{shown!r} is no id and no {BATCH}NAME")
        if equals and not (count.isascii() and count.isdigit() and len(count) < 10):
            raise ValueError(f"the count of {BATCH}{name} must be a whole number")
    return list(dict.fromkeys(value))


def is_queue(text: str) -> bool:
    """Return True if text can be a queue: 1 to 30 of A-Z a-z 0-9 _ -, the first a letter or digit, no device name."""
    return is_id(text) and len(text) <= 30 and "." not in text


def _queue(value: object, what: str = "queue") -> str:
    text = _text(value)
    if not is_queue(text):
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise ValueError(
            f"{shown!r} cannot be a {what}: 1 to 30 of a-z A-Z 0-9 _ -, the first a letter or digit"
        )
    return text


def _rule(value: object) -> str:
    return _queue(value, "rule")


def _scheduled_for(value: object) -> str:
    """Check a moment and leave it as it is written: its offset tells the zone of the rule."""
    text = _text(value)
    _moment(text)
    return text


def is_resource(text: str) -> bool:
    """Return True if text can be a resource: 1 to 30 of a-z 0-9 _, the first a letter. Jobs find it in a variable."""
    return 0 < len(text) <= 30 and not text.strip(_RESOURCE) and text[0].isalpha()


def _needs(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"must be a map of resources to numbers, not {_type_name(value)}")
    if len(value) > MAX_NEEDS:
        raise ValueError(f"must be at most {MAX_NEEDS} resources, not {len(value)}")
    for name, number in value.items():
        if not isinstance(name, str) or not is_resource(name):
            raise ValueError(
                f"{str(name)[:40]!r} cannot be a resource: 1 to 30 of a-z 0-9 _, the first a letter"
            )
        if type(number) is not int or not 1 <= number <= MOST_NEEDED:
            raise ValueError(f"{name} must be a whole number from 1 to {MOST_NEEDED}")
    return value


def _key(value: object) -> str:
    text = _text(value)
    if not text.strip() or len(text) > _KEY_LENGTH:
        raise ValueError(f"must be 1 to {_KEY_LENGTH} characters")
    return text


def _state(value: object) -> str:
    if value == "done":
        return "completed"
    if value not in STATES:
        raise ValueError(f"{value!r} is not a state")
    return str(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {_type_name(value)}")
    return value


def _history(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError("must be a list of objects, one an attempt")
    return value


def _type_name(value: object) -> str:
    names = {
        bool: "true or false",
        str: "text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


_MANY = 2**31
_exit_code = _integer(0, 255)
CHECKS: dict[str, Callable[[object], Any]] = {
    "id": _id,
    "command": _command,
    "priority": _integer(1, 10),
    "run_at": _moment,
    "timeout": _limit,
    "max_retries": _integer(0, _MANY),
    "backoff_base": _base,
    "cwd": _text,
    "env": _env,
    "on_crash": _one_of("retry", "dead"),
    "max_backoff": _duration,
    "jitter": _share,
    "retry_on": _exit_codes,
    "give_up_on": _exit_codes,
    "expires_at": _moment,
    "tags": _tags,
    "hold": _flag,
    "unique": _key,
    "if_exists": _one_of("skip", "replace", "queue"),
    "queue": _queue,
    "needs": _needs,
    "after": _parents,
    "after_any": _parents,
    "after_failure": _parents,
    "if_blocked": _one_of("wait", "dead"),
    "batch": _batch,
    "state": _state,
    "attempts": _integer(0, _MANY),
    "default_timeout": _number,
    "created_at": _past,
    "updated_at": _past,
    "started_at": _past,
    "finished_at": _past,
    "next_retry_at": _past,
    "duration": _number,
    "exit_code": _integer(-_MANY, _MANY),
    "last_error": _text,
    "output": _text,
    "worker": _text,
    "crashes": _integer(0, _MANY),
    "not_run": _text,
    "rule": _rule,
    "scheduled_for": _scheduled_for,
    "source": _text,
    "event": _one_of(*EVENTS),
    "about": _text,
    "history_left_out": _integer(0, _MANY),
    "history": _history,
}
"""For each field: a function from a value in a file to the typed one. It raises ValueError, with the reason."""


def state_of(named: str | None) -> str | None:
    """Return a state by its name in the index: done is completed; None stays None.

    Raises:
        ValueError: there is no such state.
    """
    state = "completed" if named == "done" else named
    if state is not None and state not in STATES:
        raise ValueError(f"no state is called {named!r}; there are {', '.join(STATES)}")
    return state
