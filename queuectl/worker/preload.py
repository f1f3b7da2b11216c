"""Load everything that a worker may need later: its installation can be replaced or deleted while it runs.

An upgrade by pipx deletes the old files, and a cleared temporary folder those of the one-file executable. An import that
comes after that fails, in the middle of a job.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

MODULES = (
    "queuectl.config.file",
    "queuectl.config.plain_yaml",
    "queuectl.job.changes",
    "queuectl.job.spoken_times",
    "queuectl.job.strict_json",
    "queuectl.job.zone",
    "queuectl.storage.job_logs",
    "queuectl.storage.locate",
    "queuectl.storage.unique_keys",
    "ctypes",
    "datetime",
    "difflib",
    "encodings.ascii",
    "filelock",
    "gzip",
    "hashlib",
    "json",
    "logging",
    "orjson",
    "re",
    "shlex",
    "shutil",
    "sqlite3",
    "traceback",
    "watchdog.events",
    "watchdog.observers",
    "yaml",
    "zoneinfo",
    "psutil",
)
"""Modules that functions import when they need them. A test looks for others in the packages that a worker uses."""

_WHERE_THERE_ARE = ("fcntl", "pwd", "watchdog.observers.inotify_c")
"""Modules that only some systems have."""


def load_all() -> None:
    """Import all of them.

    Raises:
        ImportError: a part of the installation is missing.
        OSError: there are no file descriptors left, or no memory, for now.
    """
    try:
        for name in MODULES:
            import_module(name)
    except ImportError:
        # The system's loader of shared libraries reports a lack of descriptors as a module that is missing.
        os.close(os.open(os.devnull, os.O_RDONLY))
        raise
    for name in _WHERE_THERE_ARE:
        with suppress(ImportError):
            import_module(name)
