"""The settings of a spool: their keys and checks, reading them from the file, and changing one of them."""

from __future__ import annotations

import os

from queuectl._dataclasses import dataclass
from queuectl.errors import WRONG_USAGE, ConfigError, SpoolError
from queuectl.job import fields, times
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from queuectl.layout import Layout

_MAX_OUTPUT = 64 << 10
"""Two streams of this size fit into a job file even if JSON needs six characters for each byte."""

_LOCK_TIMEOUT = 30.0  # seconds
_UNIT_TEXT = r"[0-9]+(?:\.[0-9]+)?(?:ms|[smhdw]|[kmg](?:i?b)?)"
_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(?:i?b)?"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a spool. Durations are seconds, sizes bytes; None means unset. KEYS explains each."""

    max_retries: int = 3
    backoff_base: float = 2
    max_backoff: float = 86400
    timeout: float = 20
    priority: int = 5
    jitter: float | None = None
    retry_on: list[int] | None = None
    give_up_on: list[int] | None = None
    worker_count: int | None = None
    concurrency: int = 1
    stop_timeout: float = 30
    kill_grace: float = 5
    crash_limit: int = 3
    log_limit: int = 10 << 20
    output_limit: int = 4096
    compress_logs: float | None = None
    settle_time: float = 2
    min_free_space: int = 4 << 20
    durability: str = "full"
    keep_done: int | str | None = None
    keep_dead: int | str | None = None
    keep_logs: int | str | None = None
    incoming: str | None = None
    incoming_users: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        default: the built-in value; None means unset.
        check: takes a value of the file and returns the converted one; raises ValueError with the reason in plain words.
        help: what it does, in one line.
        unit: "seconds", "bytes" or "".
    """

    name: str
    default: float | str | None
    check: Callable[[object], Any]
    help: str
    unit: str = ""


def _job_field(name: str) -> Callable[[object], Any]:
    return lambda value: fields.check_field(name, value)


def _duration(value: object) -> float:
    seconds = times.parse_duration(value)
    return int(seconds) if seconds.is_integer() else seconds


def _up_to(most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, not {value!r}")
        if not 1 <= value <= most:
            raise ValueError(f"must be 1 to {most}, not {value}")
        return value

    return check


MAX_CONCURRENCY = 10_000
"""More is most likely a typing error. How many are possible depends on the limit of open files."""

_count = _up_to(1000)
_concurrency = _up_to(MAX_CONCURRENCY)


def _folder(value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(os.path.expanduser(value)) or "\0" in value:
        raise ValueError(f"must be an absolute path, not {value!r}")
    return os.path.expanduser(value)


def _exit_codes(value: object) -> list[int]:
    if isinstance(value, str) and value.replace(",", " ").split():
        words = value.replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
            raise ValueError(f"must be exit codes, like 100 111, not {value!r}")
        value = [int(word) for word in words]
    codes = [value] if isinstance(value, int) and not isinstance(value, bool) else value
    found: list[int] = fields.check_field("retry_on", codes)
    return found


def _keep(value: object) -> int | str:
    if isinstance(value, str) and value.strip()[-1:].isalpha():
        times.parse_duration(value)
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62:
        return value
    raise ValueError(f"must be an age, like 30d, or a number, like 1000, not {value!r}")


def _names(value: object) -> str:
    import re

    if isinstance(value, str):
        value = value.replace(",", " ").split()
    elif isinstance(value, int) and not isinstance(value, bool):
        value = [value]  # the id of a user without a name
    names = [str(name) for name in value] if isinstance(value, list) else []
    if not names or not all(re.fullmatch(r"[\w.@+\\-]+\$?", name) for name in names):
        raise ValueError(f"must be names of users, like alice bob, not {value!r}")
    return " ".join(names)


def _durability(value: object) -> str:
    if value not in ("full", "none"):
        raise ValueError(f"must be full or none, not {value!r}")
    return str(value)


_TEXTS = (_folder, _names, _durability, _exit_codes)
"""The checks of settings whose converted value is text, even if it looks like a number, as 1e3 does."""


def _size(maximum: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        import re

        found = None
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            found = re.fullmatch(_SIZE, str(value).strip(), re.ASCII | re.IGNORECASE)
        if not found:
            raise ValueError(f"{value!r} is not a size: write bytes, or 512K, 10M, 2G")
        size = int(float(found[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[found[2].lower()])
        if size > maximum:
            raise ValueError(f"must be at most {maximum}, not {value}")
        return size

    return check


_ALL = (
    Key("max_retries", 3, _job_field("max_retries"), "how many times a command may run in total; 0 means 1"),
    Key(
        "backoff_base",
        2,
        _job_field("backoff_base"),
        "the wait after the n-th failure is backoff_base ** n seconds",
    ),
    Key("max_backoff", 86400, _duration, "the longest wait between two attempts", "seconds"),
    Key(
        "timeout",
        20,
        _job_field("timeout"),
        "the longest time that an attempt may take; 0 = no limit",
        "seconds",
    ),
    Key("priority", 5, _job_field("priority"), "1 to 10, higher is more urgent"),
    Key(
        "jitter",
        None,
        _job_field("jitter"),
        "0 to 1: the largest random share by which a wait between attempts is made longer; unset: 0",
    ),
    Key("retry_on", None, _exit_codes, "the exit codes after which a job is tried again; unset: all"),
    Key("give_up_on", None, _exit_codes, "the exit codes after which a job is not tried again; unset: none"),
    Key("worker_count", None, _count, "how many workers `worker start` starts without --count; unset: 1"),
    Key("concurrency", 1, _concurrency, "how many jobs a worker runs at once"),
    Key("stop_timeout", 30, _duration, "how long `worker stop` waits for running jobs to end", "seconds"),
    Key("kill_grace", 5, _duration, "the time between TERM and KILL when a job is ended", "seconds"),
    Key("crash_limit", 3, _count, "how many times in a row its worker may die before a job is dead"),
    Key(
        "log_limit",
        10 << 20,
        _size(1 << 50),
        "how many bytes of each output stream are kept; 0 = no limit",
        "bytes",
    ),
    Key(
        "output_limit",
        4096,
        _size(_MAX_OUTPUT),
        "how many bytes of each output stream are copied into the job file",
        "bytes",
    ),
    Key(
        "compress_logs",
        None,
        _duration,
        "the age at which workers compress a log, like 7d; unset: never",
        "seconds",
    ),
    Key(
        "settle_time",
        2,
        _duration,
        "how long an invalid file must be unchanged before it goes to dead/",
        "seconds",
    ),
    Key(
        "min_free_space",
        4 << 20,
        _size(1 << 50),
        "the free disk space in bytes that workers need to start a job; 0 = no limit",
        "bytes",
    ),
    Key(
        "durability",
        "full",
        _durability,
        "full: enqueued jobs survive a power cut; none: do not wait for the disk",
    ),
    Key("keep_done", None, _keep, "how long completed jobs are kept, or how many: 30d, 1000; unset: all"),
    Key("keep_dead", None, _keep, "how long dead jobs are kept, or how many; unset: all"),
    Key(
        "keep_logs",
        None,
        _keep,
        "how long logs are kept, or how many files; unset: as long as the job",
    ),
    Key("incoming", None, _folder, "a folder in which other users may drop jobs; unset: none"),
    Key("incoming_users", None, _names, "the users who may drop jobs there, like `alice bob`; unset: nobody"),
)
_EXAMPLES = {
    "incoming": "/var/spool/jobs",
    "incoming_users": "alice",
    "retry_on": "'111 75'",
    "give_up_on": "100",
    "jitter": "0.5",
    "compress_logs": "7d",
    "keep_done": "30d",
    "keep_dead": "30d",
    "keep_logs": "7d",
}
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
"""Every setting by its name, in the order in which they are shown."""


def normalise(key: str) -> str:
    """Return the name of a setting from any spelling of it: max-retries, MAX_RETRIES and max_retries are the same.

    Raises:
        ConfigError: there is no such setting; the message suggests a similar one.
    """
    from queuectl.config import file

    name = file.key_of(key)
    if name not in KEYS:
        raise _mistyped(f"unknown setting {key!r}{_nearest(name)}", hint="queuectl config get")
    return name


def _mistyped(text: str, hint: str | None = None) -> ConfigError:
    """Return an error about words that were typed, and not about the settings file."""
    error = ConfigError(text, hint=hint)
    error.exit_code = WRONG_USAGE
    return error


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, KEYS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def as_text(value: object) -> str:
    """Return the value of a setting as text: 20 and not 20.0, and unset for None."""
    if value is None:
        return "unset"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return times.seconds(value) if isinstance(value, float) else str(value)


def load(layout: Layout) -> tuple[Settings, list[str]]:
    """Read the settings of a spool; without a file, all have their built-in values.

    Returns:
        the settings, and a list of warnings, one line each.

    Raises:
        ConfigError: the file cannot be read or parsed, or a value is bad; the message names file, line and key.
    """
    path = _existing(layout)
    if path is None:
        return Settings(), []
    from queuectl.config import file

    warnings = []
    if path == layout.config_yaml and os.path.lexists(layout.config_json):
        warnings.append("config.yaml and config.json are both there: config.yaml is used")
    found: dict[str, Any] = {}
    for entry in file.entries(path, file.read(path)):
        name, where = file.key_of(entry.name), file.place(path, entry.line)
        if name not in KEYS:
            warnings.append(f"{where}: unknown setting {entry.name!r}{_nearest(name)}")
            continue
        if name in found:
            warnings.append(f"{where}: {name} stands twice, the last one counts")
        key = KEYS[name]
        try:
            found[name] = key.default if _is_unset(key, entry.value) else key.check(entry.value)
        except ValueError as error:
            example = _EXAMPLES.get(name) or as_text(key.default or 1)
            hint = f"queuectl config set {name} {example}"
            raise ConfigError(f"{where}: {name}: {error}", hint=hint) from None
    return Settings(**found), warnings


def is_given(layout: Layout, name: str) -> bool:
    """Return True if the settings file of the spool has this setting; False if the built-in value applies.

    Raises:
        ConfigError: the file cannot be read or parsed.
    """
    path = _existing(layout)
    if path is None:
        return False
    from queuectl.config import file

    given = {file.key_of(entry.name): entry.value for entry in file.entries(path, file.read(path))}
    return given.get(name) is not None


def _is_unset(key: Key, value: object) -> bool:
    """Whether this value unsets a setting: null in the file, or the word `none` where unset is the built-in value."""
    return value is None or (
        key.default is None and isinstance(value, str) and value.strip().lower() == "none"
    )


def set_value(layout: Layout, key: str, text: str) -> Any:
    """Change one setting in the spool's file; comments and the order of lines are kept.

    Args:
        text: the value as entered: 5, 0.5, 30s, 10M.

    Returns:
        the converted value.

    Raises:
        ConfigError: an unknown key, a bad value, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    known = KEYS[normalise(key)]
    if _is_unset(known, text):
        unset_value(layout, key)
        return None
    try:
        typed = text.strip() if known.check in _TEXTS else _typed(text)
        value = known.check(typed)
        if known.name == "incoming" and isinstance(value, str) and layout.contains(value):
            raise ValueError(f"must be outside of the spool {layout.root}, where nobody else may write")
    except ValueError as error:
        raise _mistyped(f"{known.name}: {error}") from None
    import re

    # A value with a unit, like 30s, is written as entered. Other values are written as numbers, booleans or text.
    has_unit = isinstance(typed, str) and re.fullmatch(_UNIT_TEXT, typed, re.ASCII | re.IGNORECASE)
    _change(layout, known.name, typed if has_unit else value)
    return value


def unset_value(layout: Layout, key: str) -> None:
    """Remove one setting from the file, so that the built-in value applies again.

    Raises:
        ConfigError: an unknown key, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    name = normalise(key)
    if _existing(layout) is not None:
        _change(layout, name, None)


def _typed(text: str) -> object:
    import re

    text = text.strip()
    if re.fullmatch(r"[-+]?[0-9]{1,300}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", text, re.ASCII | re.IGNORECASE):
        return float(text)
    return text


def _existing(layout: Layout) -> str | None:
    for path in (layout.config_yaml, layout.config_json):
        if os.path.lexists(path):
            return path
    return None


def _change(layout: Layout, name: str, value: object) -> None:
    """Write a value into the file, or remove it if it is None. A lock keeps others from losing this change."""
    from queuectl.config import file
    from queuectl.system.locks import Lock

    layout.create()
    lock_path = os.path.join(layout.data, "config.lock")
    try:
        lock = Lock.acquire(lock_path, patience=_LOCK_TIMEOUT)
    except OSError as error:
        raise SpoolError.from_os("lock", lock_path, error) from None
    if lock is None:
        raise ConfigError(f"another process has had the lock of the settings for {_LOCK_TIMEOUT:g} s")
    try:
        path = _existing(layout) or layout.config_yaml
        text = file.read(path) if os.path.lexists(path) else ""
        # realpath: if the file is a symbolic link, its target is replaced, and the link stays.
        files.replace(os.path.realpath(path), file.changed(path, text, name, value).encode())
    except OSError as error:
        raise SpoolError.from_os("write", layout.config_yaml, error) from None
    finally:
        lock.release()
