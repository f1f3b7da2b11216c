"""Files that a rule has taken out of its folder, with `source: move` or `delete`: they follow the state of their job.

Each lies in a folder of its job's id, so that the path of the file tells all that a worker has to know, also when the
rule is gone: in `taken/` or `delete-when-done/` while the job waits or runs, in `failed/` when it is dead. When it is done,
the file goes to `done/`, or is deleted. Each step is one rename, and none lands on an existing name.

Others may write into the watched folder. So all folders in it are opened without following links: else a link in place
of one of them would have a worker delete or move files that its user has elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from queuectl.fast_start.dataclass import dataclass
from queuectl.system import files
from queuectl.system.safe_open import held_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.job.record import Job

TAKEN, TO_DELETE, FAILED, DONE = "taken", "delete-when-done", "failed", "done"

FOLDERS = frozenset({TAKEN, TO_DELETE, FAILED, DONE})
"""The folders that are made in a folder whose files are moved. No file in them is new."""

_HOME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.file-[a-z2-7]{13}")

FOLDER_OF = {"move": TAKEN, "delete": TO_DELETE}
"""Where files are taken to, by `source` of the rule."""


@dataclass(frozen=True, slots=True)
class ClaimedFile:
    """One file that was taken.

    Attributes:
        root: the folder that the rule watches.
        kind: TAKEN or TO_DELETE.
        job_id: of its job.
        below: its path below the root, from where it was taken.
    """

    root: str
    kind: str
    job_id: str
    below: str

    @property
    def home(self) -> str:
        """The folder that it has for itself, and its companion."""
        return os.path.join(self.root, self.kind, self.job_id)

    @property
    def path(self) -> str:
        """Where it lies while its job waits or runs."""
        return os.path.join(self.home, self.below)

    @property
    def failed_home(self) -> str:
        """Its folder while its job is dead."""
        return os.path.join(self.root, FAILED, self.job_id)


def is_home(name: str) -> bool:
    """Whether a folder of this name is that of a claimed file: a rule with `source: leave` may watch the same folder."""
    return _HOME.fullmatch(name) is not None


def of(job: Job) -> ClaimedFile | None:
    """Return the file that was taken for a job; None: its file was left where it was, or it has none."""
    for kind in (TAKEN, TO_DELETE):
        mark = f"{os.sep}{kind}{os.sep}{job.id}{os.sep}"
        root, found, below = (job.source or "").partition(mark)
        if found and root and below:
            return ClaimedFile(root, kind, job.id or "", below)
    return None


def take(one: ClaimedFile, companion: str | None) -> None:
    """Take a file, and then its companion. The rename of the file is the commit point.

    Args:
        companion: the path of the companion below the root.

    Raises:
        FileNotFoundError: the file is gone.
        OSError: it cannot be moved; nothing has happened.
    """
    _make_folder(os.path.join(one.root, one.kind))
    try:
        os.makedirs(os.path.dirname(one.path), exist_ok=True)
        # In one step everywhere. The folder is new and its name was drawn, so nothing can lie at the target.
        with held_folder(one.root, *_folders_of(one.below)) as source:
            files.rename_over(os.path.join(source, os.path.basename(one.below)), one.path)
    except OSError:
        remove_empty(one)
        raise
    take_companion(one, companion)


def take_companion(one: ClaimedFile, companion: str | None) -> None:
    """Move the companion of a file beside it, if it is still where it was."""
    if companion is not None:
        with suppress(FileNotFoundError, FileExistsError):
            files.move(os.path.join(one.root, companion), os.path.join(one.home, companion))


def sync(claimed: list[ClaimedFile]) -> None:
    """Have the disk keep where these files are, so that a job that survives a power cut finds its file.

    Raises:
        OSError: the disk refused.
    """
    for folder in dict.fromkeys(
        path
        for one in claimed
        for path in (os.path.dirname(one.path), one.home, os.path.dirname(one.home), one.root)
    ):
        files.sync_folder(folder)
    for folder in dict.fromkeys(os.path.dirname(os.path.join(one.root, one.below)) for one in claimed):
        files.sync_folder(folder)


def put_back(one: ClaimedFile) -> None:
    """Put a file back that is another one than the one that was judged, so that it is judged itself.

    Raises:
        OSError: it cannot be moved.
    """
    parents = _folders_of(one.below)
    with (
        held_folder(one.root, one.kind, one.job_id, *parents) as source,
        held_folder(one.root, *parents) as target,
    ):
        for name in sorted(os.listdir(source)):
            files.move_to_free_name(os.path.join(source, name), target, name)
    remove_empty(one)


def finish(one: ClaimedFile, state: str) -> None:
    """Let a file follow the end of its job. Of a file that is to be deleted, what lies beside it stays, see `clear`.

    Args:
        state: of the job, or `gone` if somebody has deleted its record.

    Raises:
        OSError: it cannot be moved.
    """
    if not os.path.lexists(one.home):
        return
    if state == "completed":
        if one.kind == TO_DELETE:
            _delete(one, one.below)
        else:
            _move_to_done(one)
        remove_empty(one)
    elif state in ("dead", "gone"):
        with held_folder(one.root, one.kind) as source, held_folder(one.root, FAILED, make=True) as target:
            files.move(os.path.join(source, one.job_id), os.path.join(target, one.job_id))


def clear(one: ClaimedFile, companion: str | None) -> None:
    """Delete the companion of a file that was deleted. What the command has written beside them goes to `done/`.

    Args:
        companion: its path below the root, from where it was taken.

    Raises:
        OSError: something cannot be moved.
    """
    if companion is not None:
        _delete(one, companion)
    _move_to_done(one)
    remove_empty(one)


def _delete(one: ClaimedFile, below: str) -> None:
    with (
        suppress(FileNotFoundError),
        held_folder(one.root, one.kind, one.job_id, *_folders_of(below)) as folder,
    ):
        os.unlink(os.path.join(folder, os.path.basename(below)))


def _move_to_done(one: ClaimedFile) -> None:
    for below in _files_of(one):
        parents, name = _folders_of(below), os.path.basename(below)
        with (
            held_folder(one.root, one.kind, one.job_id, *parents) as source,
            held_folder(one.root, DONE, *parents, make=True) as target,
        ):
            files.move_to_free_name(os.path.join(source, name), target, name)


def restore(one: ClaimedFile) -> None:
    """Fetch a file back from `failed/`, as its job runs again.

    Raises:
        OSError: it cannot be moved.
    """
    if os.path.lexists(one.path) or not os.path.lexists(one.failed_home):
        return
    remove_empty(one)
    with held_folder(one.root, FAILED) as source, held_folder(one.root, one.kind, make=True) as target:
        files.move(os.path.join(source, one.job_id), os.path.join(target, one.job_id))


def homes(root: str, beginning: str) -> list[tuple[str, str]]:
    """Return the kind and the job of each folder of claimed files whose job's id begins like this.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for kind in (TAKEN, TO_DELETE):
        with suppress(FileNotFoundError):
            names = os.listdir(os.path.join(root, kind))
            found += [(kind, name) for name in names if name.startswith(beginning)]
    return found


def claims(root: str, kind: str, job_id: str) -> list[ClaimedFile]:
    """Return the files in the folder of a job. A folder without one is deleted."""
    empty = ClaimedFile(root, kind, job_id, "")
    found = [ClaimedFile(root, kind, job_id, below) for below in _files_of(empty)]
    if not found:
        remove_empty(empty)
    return found


def _make_folder(path: str) -> None:
    """Make a folder of queuectl's own. A link of this name would lead the files elsewhere.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.mkdir(path)
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(20, "no folder", path)


def _folders_of(below: str) -> list[str]:
    return below.split(os.sep)[:-1]


def _files_of(one: ClaimedFile) -> list[str]:
    """Return the paths of the files in the folder of a job, below it."""
    with suppress(FileNotFoundError), held_folder(one.root, one.kind, one.job_id) as home:
        return [
            os.path.relpath(os.path.join(path, name), home)
            for path, _, names in os.walk(home)
            for name in sorted(names)
        ]
    return []


def remove_empty(one: ClaimedFile) -> None:
    """Delete the folder of a job and those in it, as far as they are empty."""
    with suppress(OSError):
        with held_folder(one.root, one.kind, one.job_id) as home:
            for path, _, _ in os.walk(home, topdown=False):
                if path != home:
                    with suppress(OSError):
                        os.rmdir(path)
        with held_folder(one.root, one.kind) as kind:
            os.rmdir(os.path.join(kind, one.job_id))
