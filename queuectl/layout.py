"""Where things lie in a spool. Only this room spells folder names."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import SpoolError

PENDING, PROCESSING, DONE, DEAD = "pending", "processing", "done", "dead"
FOLDERS = (PENDING, PROCESSING, DONE, DEAD, "logs", "tmp", "data", "data/workers")

PACKED = ".gz"
"""What the name of a log ends in once it has been compressed."""

_FEW_RUNS = 1000
"""Above it a look at the folder is cheaper than asking for each file."""

FOLDER_OF = {"pending": PENDING, "failed": PENDING, "processing": PROCESSING, "completed": DONE, "dead": DEAD}


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


def is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8. The index cannot store any other, so such files are left where they are."""
    return name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name)


def default_root() -> str:
    """The spool that is meant when nobody names one: $QUEUECTL_SPOOL, else ~/.queuectl."""
    named = os.environ.get("QUEUECTL_SPOOL")
    return os.path.expanduser(named or os.path.join("~", ".queuectl"))


class Layout:
    """The paths of one spool. Paths are strings: the hot path joins them a million times.

    Args:
        root: the spool's folder; made absolute once, so that a later change of directory changes nothing.

    Raises:
        SpoolError: it names no folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if not os.fspath(root):
            raise SpoolError("'' names no folder")
        try:
            self.root = os.path.abspath(os.path.expanduser(root))
        except FileNotFoundError:
            hint = "name the spool by an absolute path"
            raise SpoolError("the current directory is gone", hint=hint) from None
        self.pending = self._in(PENDING)
        self.processing = self._in(PROCESSING)
        self.done = self._in(DONE)
        self.dead = self._in(DEAD)
        self.logs = self._in("logs")
        self.tmp = self._in("tmp")
        self.data = self._in("data")
        self.workers = self._in("data", "workers")
        self.index = self._in("data", "queuectl.db")
        self.config_yaml = self._in("config.yaml")
        self.config_json = self._in("config.json")
        self.paused = self._in("paused")

    def _in(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def claims(self, worker: str) -> str:
        """The folder of what this worker runs."""
        return f"{self.processing}{os.sep}{worker}"

    def folder(self, state: str, worker: str | None = None) -> str:
        """The folder in which jobs of this state lie."""
        if state == "processing" and worker is not None:
            return self.claims(worker)
        return f"{self.root}{os.sep}{FOLDER_OF[state]}"

    def job_file(self, place: str, job_id: str) -> str:
        """The file in a folder that is called by an id."""
        return f"{self.root}{os.sep}{place}{os.sep}{job_id}.json"

    def worker_file(self, worker: str, kind: str) -> str:
        """One of a worker's own files: lock, run, json (its record), stop, log, out, err."""
        return f"{self.workers}{os.sep}{worker}.{kind}"

    def log_file(self, job_id: str, run: int, stream: str) -> str:
        """Where the full output of a job's run-th run lies; stream is "out" or "err"."""
        return os.path.join(self.logs, f"{job_id}.{run}.{stream}")

    def log_files(self, job_id: str, runs: int) -> list[str]:
        """Where the output of so many runs lies, if it is there. A stranger's file may claim billions of runs."""
        if runs <= _FEW_RUNS:
            return [
                self.log_file(job_id, run, stream)
                for run in range(1, runs + 1)
                for stream in ("out", "err", f"out{PACKED}", f"err{PACKED}")
            ]
        return [
            os.path.join(self.logs, name)
            for name in os.listdir(self.logs)
            if name.startswith(f"{job_id}.")
            and name[len(job_id) + 1 :].removesuffix(PACKED).rpartition(".")[0].isdigit()
        ]

    def config_stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """A value that changes whenever a settings file does."""
        return tuple(_stamp(path) for path in (self.config_yaml, self.config_json))

    def create(self) -> None:
        """Make what is missing, 0700.

        Raises:
            SpoolError: the root is not a folder, or cannot be made or written.
        """
        if os.path.isdir(self.workers) and all(os.path.isdir(self._in(name)) for name in FOLDERS[:6]):
            return
        try:
            if not os.path.isdir(self.root):
                _make_way(self.root)
            for name in FOLDERS:
                try:
                    os.mkdir(self._in(name), 0o700)
                except FileExistsError:
                    if not os.path.isdir(self._in(name)):
                        raise
        except OSError as error:
            raise SpoolError.from_os("make the folder", error.filename or self.root, error) from None


def _make_way(path: str) -> None:
    """Make a folder and those above it that are missing, 0700: os.makedirs would make the latter as the umask says."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make_way(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
