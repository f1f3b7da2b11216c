"""Load everything that a worker may need later: its installation can be replaced or deleted while it runs.

An upgrade by pipx deletes the old files, and a cleared temporary folder those of the one-file executable. An import that
comes after that fails, in the middle of a job.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module

from queuectl.fast_start import fast_json

MODULES = (
    "queuectl.config.change",
    "queuectl.config.file",
    "queuectl.config.plain_yaml",
    "queuectl.index.dependencies",
    "queuectl.index.queue_counts",
    "queuectl.index.sorting",
    "queuectl.index.statistics",
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

FOR_RULES = (
    "queuectl.rules.claimed_files",
    "queuectl.rules.digests",
    "queuectl.rules.file_rules",
    "queuectl.rules.hook_facts",
    "queuectl.rules.hooks",
    "queuectl.rules.plans",
    "graphlib",
)
"""The same, for a spool that has rules: cronsim alone takes 35 ms."""

_WHERE_THERE_ARE = ("fcntl", "pwd", "watchdog.observers.inotify_c")
"""Modules that only some systems have."""


def load_all(*, with_rules: bool = True) -> None:
    """Import all of them.

    Args:
        with_rules: also those of FOR_RULES.

    Raises:
        ImportError: a part of the installation is missing.
        OSError: there are no file descriptors left, or no memory, for now. It can be tried again.
    """
    before = set(sys.modules)
    try:
        for name in (*MODULES, *(FOR_RULES if with_rules else ())):
            import_module(name)
        fast_json.import_whole()
    except Exception as error:
        # Of a package that is half loaded, some modules stay. With these, the next try would fail in another way.
        ours = {"orjson", *(name.partition(".")[0] for name in MODULES)}
        for name in set(sys.modules) - before:
            # and none that another thread of the program has loaded meanwhile
            if name.partition(".")[0] in ours:
                del sys.modules[name]
        if _is_shortage(error):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise ImportError(str(error)) from error
    for name in _WHERE_THERE_ARE:
        with suppress(ImportError):
            import_module(name)


def _is_shortage(error: BaseException | None) -> bool:
    """Whether an import failed for want of descriptors or memory, which may be over by now.

    The system's loader of shared libraries reports it as a module that is missing, and packages try a way around that.
    """
    while error is not None:
        if isinstance(error, OSError | MemoryError) or os.strerror(errno.EMFILE) in str(error):
            return True
        error = error.__cause__ or error.__context__
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False
