"""Where things lie in a spool, and which file names can be jobs. Folder names are spelled out here only."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property

from queuectl.errors import SpoolError

PENDING, PROCESSING, DONE, DEAD = "pending", "processing", "done", "dead"
FOLDERS = (PENDING, PROCESSING, DONE, DEAD, "logs", "tmp", "data", "data/workers")
"""The folders between which files are renamed."""

QUEUES, PERMITS = "queues", "data/queues"
"""The folder of the settings of queues, and that of the locks which hold their limits. No job file moves there."""

RULES, RULE_NOTES = "rules", "data/rules"
"""The folder of rules, and that of the notes about what they have queued."""

_MADE_FIRST = (*FOLDERS[:6], "data/workers", QUEUES, PERMITS, RULES)
"""If these are there, nothing needs to be made."""

QUEUE_FILE, QUEUE_PAUSED = ".yaml", ".paused"
"""The endings of the files of a queue: its settings, and the file that pauses it."""

RULE_FILES = (".yaml", ".yml", ".json")
"""The endings of the file of a rule. Of several files of one rule, the first of these counts."""

INDEX_SCHEMA = 9
"""The number of the tables of the index. It is here, as workers note it in their records: a worker of another number would
take this one's index for an old one, and make it anew."""

LOCAL = "local"
"""What runs jobs on this machine: its workers."""

ENGINES = ("slurm",)
"""The engines that run jobs elsewhere. A dispatcher has the name of its engine, and its claims are in `processing/` under it."""

COMPRESSED = ".gz"
"""The last part of the name of a compressed log."""

_FEW_RUNS = 1000
"""For more runs than these, listing the logs folder is cheaper than naming each possible file."""

FOLDER_OF = {"pending": PENDING, "failed": PENDING, "processing": PROCESSING, "completed": DONE, "dead": DEAD}

_LONGEST_NAME = 255
_MOST_DIGITS = 6
"""Bytes of the longest file name on most filesystems."""

_TEMPORARY_PREFIXES = (".", "~", "#", "$", "_rsync")
_TEMPORARY_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".swp", ".swx", "~", ".reason")


def is_job_name(name: str) -> bool:
    """Whether a file of this name in a state folder can be a job.

    Editors, rsync, browsers and sync tools mark an unfinished file by a leading dot, ~, # or $, or by another ending
    than .json. The conflict copies of Syncthing and Dropbox are second versions of a job, not jobs.
    """
    if not name.lower().endswith(".json") or name.startswith(_TEMPORARY_PREFIXES) or not is_utf8(name):
        return False
    return ".sync-conflict-" not in name and "conflicted copy" not in name


def is_misnamed(name: str) -> bool:
    """Whether a file of this name is neither a job nor a temporary file: somebody may wait for it to run."""
    if is_job_name(name) or name.startswith(_TEMPORARY_PREFIXES):
        return False
    return not name.lower().endswith(_TEMPORARY_SUFFIXES)


def is_rule_file(name: str) -> bool:
    """Whether a file of this name in the folder of rules is meant as a rule: it has the right ending, and is not a temporary one.

    With capitals, or with the .txt that an editor of Windows puts behind it, it can be none, but its writer waits for it.
    """
    ends_so = name.lower().removesuffix(".txt").endswith(RULE_FILES)
    return ends_so and not name.startswith(_TEMPORARY_PREFIXES) and is_utf8(name)


def name_in_dead(name: str) -> str:
    """Return the name for a rejected file: its own, or a shorter one if the name of its .reason would be too long."""
    if len(os.fsencode(name)) <= _LONGEST_NAME - len(".reason"):
        return name
    stem, ending = os.path.splitext(name)
    # Room for a number as well, in case another file has the shorter name.
    kept = os.fsencode(stem)[: _LONGEST_NAME - len(".reason") - len(os.fsencode(ending)) - len("-999999")]
    return kept.decode("utf-8", "ignore") + ending


def number_in(name: str, begin: str, end: str) -> int | None:
    """Return the number between these two parts of a name, as in worker-3.lock; None if there is something else."""
    if not (name.startswith(begin) and name.endswith(end)):
        return None
    digits = name[len(begin) : len(name) - len(end)]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS else None


def is_engine(worker: str) -> bool:
    """Whether a folder in `processing/` is that of a dispatcher.

    Its jobs run elsewhere and outlive it, so its death tells nothing of them. Only the next dispatcher may touch them:
    whoever takes them back as those of a dead worker has them run twice.
    """
    return worker in ENGINES


def slot_name(worker: str, number: int) -> str:
    """Return the name of a worker's slot, in which one run at a time has its run file and its output.

    The first slot has the worker's own name.
    """
    return f"{worker}.{number}" if number else worker


def is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8. The index cannot store any other, so such files are left where they are."""
    return name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name)


def default_root() -> str:
    """Return the spool to use when none is named: $QUEUECTL_SPOOL, else ~/.queuectl."""
    return with_home(os.environ.get("QUEUECTL_SPOOL") or os.path.join("~", ".queuectl"))


def with_home(path: str | os.PathLike[str]) -> str:
    """Return the path with ~ replaced by the home folder.

    Raises:
        SpoolError: there is no home folder, or no user of that name. `~` and `~name` would become folders of these names
            in the current directory, and others after each `cd`.
    """
    path = os.fspath(path)
    if path != "~" and not path.startswith("~/"):
        found = os.path.expanduser(path)
        if path.startswith("~") and found == path:
            user = path.split(os.sep)[0]
            raise SpoolError(
                f"cannot find the home folder for {path}: there is no user {user[1:]}",
                hint=f"for a folder that is called {user}, write ./{path}",
            )
        return found
    found = os.path.expanduser(path)
    # With an empty HOME, expanduser returns /.queuectl.
    if os.path.isabs(found) and (os.name == "nt" or os.environ.get("HOME") != ""):
        return found
    hint = "set HOME to an absolute path, or name the spool with --spool or QUEUECTL_SPOOL"
    raise SpoolError(f"cannot find the home folder for {path}: HOME is not usable", hint=hint)


class Layout:
    """The paths of one spool, as strings: joining pathlib's paths would cost too much for each job.

    Args:
        root: the spool's folder. It is made absolute here, so that a later change of the current directory has no
            effect.

    Raises:
        SpoolError: root is empty, or is relative while the current directory no longer exists.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if not os.fspath(root):
            raise SpoolError("'' names no folder")
        try:
            self.root = os.path.abspath(with_home(root))
        except FileNotFoundError:
            hint = "name the spool by an absolute path"
            raise SpoolError("the current directory is gone", hint=hint) from None
        self.pending = self._path(PENDING)
        self.processing = self._path(PROCESSING)
        self.done = self._path(DONE)
        self.dead = self._path(DEAD)
        self.logs = self._path("logs")
        self.tmp = self._path("tmp")
        self.data = self._path("data")
        self.workers = self._path("data", "workers")
        self.index = self._path("data", "queuectl.db")
        self.config_yaml = self._path("config.yaml")
        self.config_json = self._path("config.json")
        self.paused = self._path("paused")
        self.queues = self._path(QUEUES)
        self.permits = self._path("data", "queues")
        self.rules = self._path(RULES)
        self.rule_notes = self._path("data", "rules")
        self.rules_untold = self._path("data", "rules", "untold")

    def _path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    @cached_property
    def identity(self) -> str:
        """What this spool is, by whatever path it was reached: the device and the inode of its folder.

        Raises:
            OSError: the folder is not there.
        """
        status = os.stat(self.root)
        return f"{status.st_dev:x}.{status.st_ino:x}"

    def exists(self) -> bool:
        """Return whether at least one folder for jobs is there."""
        return any(os.path.isdir(path) for path in (self.pending, self.done, self.dead, self.processing))

    def contains(self, path: str) -> bool:
        """Whether a path leads to the spool itself or to anything in it; symbolic links are followed."""
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        return real == root or real.startswith(root.rstrip(os.sep) + os.sep)

    def claims(self, worker: str) -> str:
        """Return the folder of the jobs that this worker has claimed."""
        return f"{self.processing}{os.sep}{worker}"

    def folder(self, state: str, worker: str | None = None) -> str:
        """Return the folder of the jobs in this state."""
        if state == "processing" and worker is not None:
            return self.claims(worker)
        return f"{self.root}{os.sep}{FOLDER_OF[state]}"

    def job_file(self, folder: str, job_id: str) -> str:
        """Return the path of the file that is named after a job id in a folder, given relative to the root."""
        return f"{self.root}{os.sep}{folder}{os.sep}{job_id}.json"

    def worker_file(self, worker: str, kind: str) -> str:
        """Return the path of one of a worker's own files: lock, json (its record), stop, log, or of one of its slots.

        Args:
            worker: the name of the worker; for run, out and err that of a slot, see `slot_name`.
        """
        return f"{self.workers}{os.sep}{worker}.{kind}"

    def settings_file(self) -> str | None:
        """Return the path of the settings of the spool; None if there is no such file."""
        for path in (self.config_yaml, self.config_json):
            if os.path.lexists(path):
                return path
        return None

    def queue_file(self, queue: str) -> str:
        """Return the path of the settings of a queue."""
        return f"{self.queues}{os.sep}{queue}{QUEUE_FILE}"

    def start_times(self, queue: str) -> str:
        """Return the path of the file with the last starts of a queue that has a rate."""
        return f"{self.permits}{os.sep}{queue}.starts"

    def queue_paused(self, queue: str) -> str:
        """Return the path of the file that pauses a queue while it is there; its text is the reason."""
        return f"{self.queues}{os.sep}{queue}{QUEUE_PAUSED}"

    def rule_paused(self, rule: str) -> str:
        """Return the path of the file that pauses a rule while it is there; its text is the reason."""
        return f"{self.rules}{os.sep}{rule}{QUEUE_PAUSED}"

    def rule_note(self, rule: str) -> str:
        """Return the path of the note about what a rule has queued."""
        return f"{self.rule_notes}{os.sep}{rule}.json"

    def rule_seen(self, rule: str) -> str:
        """Return the path of the list of the files that a rule has taken."""
        return f"{self.rule_notes}{os.sep}{rule}.seen"

    @property
    def rules_lock(self) -> str:
        """The file whose lock the worker has that queues the jobs of rules."""
        return f"{self.data}{os.sep}rules.lock"

    def log_file(self, job_id: str, run: int, stream: str) -> str:
        """Return the path of the full output of one run of a job; stream is "out" or "err"."""
        return os.path.join(self.logs, f"{job_id}.{run}.{stream}")

    def log_files(self, job_id: str, runs: int) -> list[str]:
        """Return the paths at which the output of this many runs may be. A dropped file may claim billions of runs."""
        if runs <= _FEW_RUNS:
            return [
                self.log_file(job_id, run, stream)
                for run in range(1, runs + 1)
                for stream in ("out", "err", f"out{COMPRESSED}", f"err{COMPRESSED}")
            ]
        return [
            os.path.join(self.logs, name)
            for name in os.listdir(self.logs)
            if name.startswith(f"{job_id}.")
            and name[len(job_id) + 1 :].removesuffix(COMPRESSED).rpartition(".")[0].isdigit()
        ]

    def create(self) -> None:
        """Create the folders that are missing, with mode 0700.

        Raises:
            SpoolError: the root is not a folder, or a folder cannot be created.
        """
        if all(os.path.isdir(self._path(name)) for name in _MADE_FIRST):
            return
        try:
            if not os.path.isdir(self.root):
                _make_folders(self.root)
            for name in (*FOLDERS, QUEUES, PERMITS, RULES, RULE_NOTES):
                try:
                    os.mkdir(self._path(name), 0o700)
                except FileExistsError:
                    if not os.path.isdir(self._path(name)):
                        raise
        except OSError as error:
            raise SpoolError.from_os("make the folder", error.filename or self.root, error) from None


def _make_folders(path: str) -> None:
    """Create a folder and its missing parents with mode 0700; os.makedirs would give the parents the umask's mode."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make_folders(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
