"""Settings of a spool: their keys, what they mean, and which are in force."""

from __future__ import annotations

import os

from queuectl._dataclasses import dataclass
from queuectl.errors import ConfigError, SpoolError
from queuectl.job import fields, times
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from queuectl.layout import Layout

_OUTPUT_MOST = 64 << 10
"""Two streams of this size fit into a job file even if JSON writes every byte of them as six."""

_LOCK_PATIENCE = 30.0
_UNIT_TEXT = r"[0-9]+(?:\.[0-9]+)?(?:ms|[smhdw]|[kmg](?:i?b)?)"
_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(?:i?b)?"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. Durations are seconds, sizes bytes; KEYS says what each is for."""

    max_retries: int = 3
    backoff_base: float = 2
    max_backoff: float = 86400
    timeout: float = 20
    priority: int = 5
    jitter: float | None = None
    retry_on: list[int] | None = None
    give_up_on: list[int] | None = None
    worker_count: int | None = None
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
        default: the built-in value; None = unset.
        check: from a value as a file has it to the typed one; raises ValueError with the reason in plain words.
        help: what it does, in a line.
        unit: "seconds", "bytes" or "".
    """

    name: str
    default: float | str | None
    check: Callable[[object], Any]
    help: str
    unit: str = ""


def _as_in_a_job(name: str) -> Callable[[object], Any]:
    return lambda value: fields.check_field(name, value)


def _duration(value: object) -> float:
    seconds = times.parse_duration(value)
    return int(seconds) if seconds.is_integer() else seconds


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {value!r}")
    if not 1 <= value <= 1000:
        raise ValueError(f"must be 1 to 1000, not {value}")
    return value


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
        value = [value]  # a user without a name
    names = [str(name) for name in value] if isinstance(value, list) else []
    if not names or not all(re.fullmatch(r"[\w.@+\\-]+\$?", name) for name in names):
        raise ValueError(f"must be names of users, like alice bob, not {value!r}")
    return " ".join(names)


def _durability(value: object) -> str:
    if value not in ("full", "none"):
        raise ValueError(f"must be full or none, not {value!r}")
    return str(value)


_TEXTS = (_folder, _names, _durability, _exit_codes)
"""What is typed for these is text, even a name like 1e3."""


def _size(most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        import re

        found = None
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            found = re.fullmatch(_SIZE, str(value).strip(), re.ASCII | re.IGNORECASE)
        if not found:
            raise ValueError(f"{value!r} is not a size: write bytes, or 512K, 10M, 2G")
        size = int(float(found[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[found[2].lower()])
        if size > most:
            raise ValueError(f"must be at most {most}, not {value}")
        return size

    return check


_ALL = (
    Key("max_retries", 3, _as_in_a_job("max_retries"), "how many times a command may run in all; 0 means 1"),
    Key(
        "backoff_base",
        2,
        _as_in_a_job("backoff_base"),
        "the wait after the n-th failure is backoff_base ** n seconds",
    ),
    Key("max_backoff", 86400, _duration, "no wait between two attempts is longer", "seconds"),
    Key("timeout", 20, _duration, "longest time an attempt may take; 0 = no limit", "seconds"),
    Key("priority", 5, _as_in_a_job("priority"), "1 to 10, higher is more urgent"),
    Key(
        "jitter",
        None,
        _as_in_a_job("jitter"),
        "0 to 1: by which share of itself a wait between attempts is drawn longer; unset: 0",
    ),
    Key("retry_on", None, _exit_codes, "exit codes that are tried again, all others are not; unset: all"),
    Key("give_up_on", None, _exit_codes, "exit codes that are not tried again; unset: none"),
    Key("worker_count", None, _count, "workers that `worker start` starts without --count; unset: 1"),
    Key("stop_timeout", 30, _duration, "how long `worker stop` waits before it says who is busy", "seconds"),
    Key("kill_grace", 5, _duration, "time between TERM and KILL when a job is ended", "seconds"),
    Key("crash_limit", 3, _count, "deaths of its worker in a row after which a job is dead"),
    Key("log_limit", 10 << 20, _size(1 << 50), "bytes kept of each output stream; 0 = no limit", "bytes"),
    Key(
        "output_limit",
        4096,
        _size(_OUTPUT_MOST),
        "bytes of each output stream that are repeated in the job file",
        "bytes",
    ),
    Key(
        "compress_logs",
        None,
        _duration,
        "how old a log is when workers compress it, like 7d; unset: never",
        "seconds",
    ),
    Key("settle_time", 2, _duration, "how long an unreadable file must stand still to be buried", "seconds"),
    Key(
        "min_free_space",
        4 << 20,
        _size(1 << 50),
        "bytes of free disk below which workers start nothing; 0 = no limit",
        "bytes",
    ),
    Key(
        "durability",
        "full",
        _durability,
        "full: what was enqueued survives a power cut; none: no wait for the disk",
    ),
    Key("keep_done", None, _keep, "how long done jobs are kept, or how many: 30d, 1000; unset: for ever"),
    Key("keep_dead", None, _keep, "how long dead jobs are kept, or how many; unset: for ever"),
    Key(
        "keep_logs",
        None,
        _keep,
        "how long the output of runs is kept, or how many files; unset: like its job",
    ),
    Key("incoming", None, _folder, "a folder from which other users' jobs are taken; unset: none"),
    Key("incoming_users", None, _names, "who may hand jobs in there, like `alice bob`; unset: nobody"),
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
    """The one name of a setting: max-retries, MAX_RETRIES and max_retries are the same.

    Raises:
        ConfigError: there is no such setting; it names the nearest one.
    """
    from queuectl.config import file

    name = file.key_of(key)
    if name not in KEYS:
        raise ConfigError(f"unknown setting {key!r}{_nearest(name)}", hint="queuectl config get")
    return name


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, KEYS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: object) -> str:
    """A setting's value as people write it: 20 and not 20.0; unset for None."""
    if value is None:
        return "unset"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return times.seconds(value) if isinstance(value, float) else str(value)


def load(layout: Layout) -> tuple[Settings, list[str]]:
    """Read the settings of a spool; without a file they are the built-in ones.

    Returns:
        the settings, and warnings: each a line about what was passed over.

    Raises:
        ConfigError: the file cannot be read or parsed, or a value is bad; it names the file, the line and the key.
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
            found[name] = key.default if entry.value is None else key.check(entry.value)
        except ValueError as error:
            example = _EXAMPLES.get(name) or shown(key.default or 1)
            hint = f"queuectl config set {name} {example}"
            raise ConfigError(f"{where}: {name}: {error}", hint=hint) from None
    return Settings(**found), warnings


def set_value(layout: Layout, key: str, text: str) -> Any:
    """Change one setting in the spool's file, and only it: comments and order stay.

    Args:
        text: the value as typed: 5, 0.5, 30s, 10M.

    Returns:
        the typed value that is in force now.

    Raises:
        ConfigError: an unknown key, a bad value, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    known = KEYS[normalise(key)]
    try:
        typed = text.strip() if known.check in _TEXTS else _typed(text)
        value = known.check(typed)
    except ValueError as error:
        raise ConfigError(f"{known.name}: {error}") from None
    import re

    # 30s stays 30s in the file; a number is written as it was understood.
    has_unit = isinstance(typed, str) and re.fullmatch(_UNIT_TEXT, typed, re.ASCII | re.IGNORECASE)
    _change(layout, known.name, typed if has_unit else value)
    return value


def unset_value(layout: Layout, key: str) -> None:
    """Take one setting out of the file, so that the built-in value is in force again.

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
    """Write a value (None: no value) into the file, one process at a time, all or nothing."""
    from queuectl.config import file
    from queuectl.system.locks import Lock

    layout.create()
    lock_path = os.path.join(layout.data, "config.lock")
    try:
        lock = Lock.acquire(lock_path, patience=_LOCK_PATIENCE)
    except OSError as error:
        raise SpoolError.from_os("lock", lock_path, error) from None
    if lock is None:
        raise ConfigError(f"another process has been changing the settings for {_LOCK_PATIENCE:g} s")
    try:
        path = _existing(layout) or layout.config_yaml
        text = file.read(path) if os.path.lexists(path) else ""
        # A link to the file proper stays a link.
        files.replace(os.path.realpath(path), file.changed(path, text, name, value).encode())
    except OSError as error:
        raise SpoolError.from_os("write", layout.config_yaml, error) from None
    finally:
        lock.release()
