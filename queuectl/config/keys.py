"""The keys of the settings: what each may be, its built-in value, and what it does."""

from __future__ import annotations

import os

from queuectl.config import cluster
from queuectl.errors import WRONG_USAGE, ConfigError
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import fields, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

_MAX_OUTPUT = 64 << 10
"""Two streams of this size fit into a job file even if JSON needs six characters for each byte."""

_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(?:i?b)?"


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
    default: float | str | dict[str, int] | None
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


MOST_OF_A_RESOURCE = 10_000
"""Each unit is a lock of its own. Count memory in gigabytes, not in megabytes."""

_MOST_RESOURCES = 64


def _resources(value: object) -> dict[str, int]:
    import re

    pairs: list[tuple[Any, Any]] = [("", 0)]
    if isinstance(value, str):
        words = [word.partition("=") for word in value.replace(",", " ").split()]
        pairs = [
            (name, int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else text)
            for name, _, text in words
        ]
    elif isinstance(value, dict):
        pairs = list(value.items())
    found = dict(pairs)
    if (
        not found
        or len(found) < len(pairs)
        or not all(isinstance(name, str) and fields.is_resource(name) for name in found)
    ):
        shown = times.short(value)
        raise ValueError(f"must be like gpu=2 memory=64, with names of a-z 0-9 _, not {shown}")
    for name, amount in found.items():
        if type(amount) is not int or not 0 <= amount <= MOST_OF_A_RESOURCE:
            raise ValueError(f"{name} must be a whole number from 0 to {MOST_OF_A_RESOURCE}")
    if len(found) > _MOST_RESOURCES:
        raise ValueError(f"must be at most {_MOST_RESOURCES} resources, not {len(found)}")
    return dict(sorted(found.items()))


def _between_queues(value: object) -> str:
    if value not in ("age", "turns"):
        raise ValueError(f"must be age or turns, not {value!r}")
    return str(value)


TEXTS = (
    *(_folder, _names, _durability, _exit_codes, _resources, _between_queues),
    *(cluster.engine, cluster.folder, cluster.options),
)
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
    Key(
        "resources", {}, _resources, "what jobs can need, and how much of it there is, like `gpu=2 memory=64`"
    ),
    Key(
        "between_queues",
        "age",
        _between_queues,
        "age: the job that has waited longest goes first; turns: queues that have work take turns",
    ),
    Key(
        "engine",
        "local",
        cluster.engine,
        "where jobs run: local, or slurm; the file of a queue may say another",
    ),
    Key(
        "slurm_dir", None, cluster.folder, "a folder that all nodes see under the same path; unset: no Slurm"
    ),
    Key("slurm_jobs", 200, _up_to(100_000), "the most Slurm jobs that wait or run at once"),
    Key("slurm_pack", 100, _count, "the most short jobs in one Slurm job; 1: each has its own"),
    Key(
        "slurm_short",
        60,
        _duration,
        "a job whose timeout is at most this is short, and may share a Slurm job",
        "seconds",
    ),
    Key(
        "slurm_fence",
        600,
        cluster.fence,
        "how long a node may not reach slurm_dir before it ends its jobs; at least 30s",
        "seconds",
    ),
    Key("slurm_options", None, cluster.options, "options for each sbatch, like `--account=lab --qos=low`"),
)
_EXAMPLES = {
    "resources": "gpu=2",
    "incoming": "/var/spool/jobs",
    "incoming_users": "alice",
    "retry_on": "'111 75'",
    "give_up_on": "100",
    "jitter": "0.5",
    "compress_logs": "7d",
    "keep_done": "30d",
    "keep_dead": "30d",
    "keep_logs": "7d",
    "slurm_dir": "/shared/queuectl",
    "slurm_options": "--account=lab",
}
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
"""Every setting by its name, in the order in which they are shown."""


def example_of(key: Key) -> str:
    """Return a value of a setting as it is typed, for a hint."""
    return _EXAMPLES.get(key.name) or as_text(key.default or 1)


def normalise(key: str) -> str:
    """Return the name of a setting from any spelling of it: max-retries, MAX_RETRIES and max_retries are the same.

    Raises:
        ConfigError: there is no such setting; the message suggests a similar one.
    """
    from queuectl.config import file

    name = file.key_of(key)
    if name not in KEYS:
        raise mistyped(f"unknown setting {key!r}{nearest(name)}", hint="queuectl config get")
    return name


def mistyped(text: str, hint: str | None = None) -> ConfigError:
    """Return an error about words that were typed, and not about the settings file."""
    error = ConfigError(text, hint=hint)
    error.exit_code = WRONG_USAGE
    return error


def nearest(name: str, names: Iterable[str] = ()) -> str:
    """Return the end of a sentence that suggests a similar name of a setting, or of these; "" if there is none."""
    import difflib

    near = difflib.get_close_matches(name, list(names) or KEYS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def as_text(value: object) -> str:
    """Return the value of a setting as text: 20 and not 20.0, and unset for None."""
    if value is None or value == {}:
        return "unset"
    if isinstance(value, list):
        import shlex

        return shlex.join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={amount}" for name, amount in value.items())
    return times.seconds(value) if isinstance(value, float) else str(value)


def is_unset(key: Key, value: object) -> bool:
    """Whether this value unsets a setting: null in the file, or the word `none` where unset is the built-in value."""
    return value is None or (
        key.default in (None, {}) and isinstance(value, str) and value.strip().lower() == "none"
    )
