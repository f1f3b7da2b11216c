"""Takes files out of a watched folder, with `source: move` or `delete`, and lets them follow their jobs.

A file is taken by a rename into a folder of its job's id, and then the job is queued, and then that is noted. After a crash
between these the next look finds the file there, and goes on.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
from queuectl.index.filter import Filter
from queuectl.rules import claimed_files, folder_look, job_queueing, seen_files
from queuectl.rules.claimed_files import ClaimedFile
from queuectl.rules.file_jobs import FILE
from queuectl.storage import locate
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from queuectl.config.settings import JobDefaults
    from queuectl.rules.file_trigger import FileTrigger
    from queuectl.rules.folder_look import Found
    from queuectl.rules.rule import Rule
    from queuectl.rules.seen_files import SeenFiles
    from queuectl.storage.transitions import Storage

_AT_ONCE = 16
"""Jobs whose state is looked for between two looks at the clock."""

_MARK = 4
"""Characters in the id of a job that stand for the spool that has taken its file."""


class FileClaims:
    """The files that one rule has taken out of its folder.

    Attributes:
        problem: why a file could not be moved.
        refused: how many in a row could not.
        has_unqueued: the disk, the settings or an earlier job with the same unique key have kept out jobs of files that
            were taken. No others are taken before these.
        claimed: the jobs that had a file at the last look.
        gone: the jobs with a file that were not found at the last look. They may have been just between two folders.
    """

    def __init__(
        self, rule: Rule, trigger: FileTrigger, storage: Storage, defaults: JobDefaults, seen: SeenFiles
    ) -> None:
        self._rule, self._trigger, self._storage = rule, trigger, storage
        self._defaults, self._seen = defaults, seen
        self.problem: str | None = None
        self.refused = 0
        self.has_unqueued = False
        self.gone: set[str] = set()
        self.claimed: list[str] = []
        self._mark = _mark_of(storage.layout.root)

    def claim(self, one: Found) -> ClaimedFile | None:
        """Take a file out of the folder; None: it is gone, or another one lies there now.

        Raises:
            OSError: it cannot be moved. It makes no job then: it would make one again and again.
        """
        job_id = f"{self._rule.name}.{FILE}{self._mark}{files.token()[: 13 - _MARK]}"
        kind = claimed_files.FOLDER_OF[self._trigger.source]
        moved = ClaimedFile(self._trigger.folder, kind, job_id, one.below)
        try:
            claimed_files.take(moved, self._companion_of(one.below))
        except FileNotFoundError:
            return None
        self.refused, self.problem = 0, None
        found = folder_look.find(self._trigger, os.path.join(kind, job_id, one.below))
        if found is None or (found.inode, found.size, found.modified) != (one.inode, one.size, one.modified):
            claimed_files.put_back(moved)  # somebody has replaced it just now: it is judged itself
            return None
        return moved

    def note_problem(self, below: str, error: OSError) -> None:
        """Note that a file cannot be moved."""
        self.refused += 1
        reason = (error.strerror or str(error)).lower()
        shown = files.printable_name(below)
        self.problem = (
            f"{shown} cannot be moved in {self._trigger.folder}: {reason}; source: leave lets it stay"
        )

    def _companion_of(self, below: str) -> str | None:
        folder, name = os.path.split(below)
        companion = self._trigger.companion_of(name)
        return None if companion is None else os.path.join(folder, companion)

    def add_to(self, batch: job_queueing.FileBatch, claimed: list[ClaimedFile]) -> dict[str, list[str]]:
        """Add the jobs of files that were taken to those that will be queued; returns the ids of the jobs of each claim.

        Raises:
            QueuectlError, OSError: the disk refused; the next look goes on.
        """
        self.has_unqueued = bool(claimed)
        if claimed and self._defaults.settings.durability == "full":
            claimed_files.sync(claimed)
        claims = {}
        for one in claimed:
            try:
                claims[one.job_id] = batch.add(one.path, one.below, one.job_id.partition(".")[2])
            except InvalidJob as error:  # as of a name that is too long for the unique key
                self._finish([one], "gone")
                self.problem = f"{files.printable_name(one.below)} makes no valid job: {error.message}"
        return claims

    def lines(self, claims: dict[str, list[str]], skipped: Container[str]) -> list[list[str]]:
        """Return the lines about the files whose jobs are queued. The others are tried again at the next look."""
        queued = [job_id for job_id, ids in claims.items() if not any(one in skipped for one in ids)]
        self.has_unqueued = len(queued) < len(claims)
        return list(map(seen_files.claim, queued))

    def follow(self) -> Iterator[None]:
        """Let files follow their jobs, where the worker of the job could not do it, and queue what has no job yet.

        It yields after each few files.

        Raises:
            QueuectlError, OSError, sqlite3.Error: the disk or the index refused; the next look goes on.
        """
        homes = claimed_files.homes(self._trigger.folder, f"{self._rule.name}.{FILE}")
        self.claimed = [job_id for _, job_id in homes]
        unqueued: list[ClaimedFile] = []
        lines: list[list[str]] = []
        before, self.gone = self.gone, set()
        waiting = self._waiting() if homes else set()
        over: list[tuple[list[ClaimedFile], str]] = []
        for number, (kind, job_id) in enumerate(homes, 1):
            is_noted = job_id in self._seen.claims
            if is_noted and job_id in waiting:
                continue
            if number % _AT_ONCE == 0:
                yield
            state = locate.state_of(self._storage, job_id)
            found = claimed_files.claims(self._trigger.folder, kind, job_id)
            if state in ("completed", "dead") or (state is None and is_noted and job_id in before):
                over.append((found, state or "gone"))
            elif state is None and is_noted:
                self.gone.add(job_id)
            elif state is None and job_id.startswith(f"{self._rule.name}.{FILE}{self._mark}"):
                unqueued += filter(self._is_main, found)
            elif state is not None and not is_noted:
                lines.append(seen_files.claim(job_id))
        yield from self._finish_all(over)
        for one in unqueued:
            claimed_files.take_companion(one, self._companion_of(one.below))
        batch = job_queueing.FileBatch(self._storage, self._defaults, self._rule)
        claims = self.add_to(batch, unqueued)
        lines += self.lines(claims, batch.finish())
        if lines:
            self._seen.add(lines)

    def _finish_all(self, over: list[tuple[list[ClaimedFile], str]]) -> Iterator[None]:
        """Let the files of jobs that are over go. Only what had ended before the disk was told to keep it is among them."""
        if over:
            self._keep_ends()
        for number, (found, state) in enumerate(over, 1):
            self._finish(found, state)
            if number % _AT_ONCE == 0:
                yield

    def _keep_ends(self) -> None:
        """Have the disk keep the ends of jobs before their files go: their worker may have died before it did."""
        if self._defaults.settings.durability == "full":
            files.sync_filesystem(self._storage.layout.pending)

    def _waiting(self) -> set[str]:
        """Return the jobs of the rule that are not over. Their files are where they belong."""
        index = self._storage.index
        if not index.usable:
            return set()
        states, root = ("pending", "failed", "processing"), self._storage.layout.root
        rows = index.select(Filter(states=states, rule=self._rule.name))
        return {row.id for row in rows if os.path.lexists(os.path.join(root, row.place, row.name))}

    def _is_main(self, one: ClaimedFile) -> bool:
        """Whether this is the file itself, and not its companion."""
        return not self._trigger.companion_finder()(os.path.basename(one.below))

    def _finish(self, found: list[ClaimedFile], state: str) -> None:
        if not found:
            return
        one = found[0]  # the others are in the same folder
        try:
            if state == "completed" and one.kind == claimed_files.TO_DELETE:
                self._delete(one)
            else:
                claimed_files.finish(one, state)
            if locate.state_of(self._storage, one.job_id) in ("pending", "failed", "processing"):
                claimed_files.restore(one)  # somebody has put the job back meanwhile
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.problem = f"the file of job {one.job_id} cannot be moved: {reason}"

    def _delete(self, one: ClaimedFile) -> None:
        """Delete the file of a job that is done, and its companion, but nothing that its command has put beside them.

        Raises:
            OSError: its record cannot be read, or something cannot be moved.
        """
        found = self._source_of(one.job_id)
        if (
            found is not None
        ):  # else the record is gone, too: better to keep the file than to guess which one it is
            claimed_files.finish(found, "completed")
        claimed_files.clear(one, None if found is None else self._companion_of(found.below))

    def _source_of(self, job_id: str) -> ClaimedFile | None:
        """Return the file of a job, as its record tells it; None: no record of it can be read."""
        found = filter(None, map(locate.read_job, locate.paths_of(self._storage.layout, job_id)))
        return next((claimed_files.of(job) for job in found), None)


def _mark_of(root: str) -> str:
    """Return what stands for a spool in the ids of its jobs.

    Two spools may have the same rule, as on two computers that share a folder. A file that one of them has taken has no job
    in the other one, which must not queue one for it.
    """
    place = f"{platform.node()}:{os.path.realpath(root)}"
    return base64.b32encode(hashlib.sha256(os.fsencode(place)).digest()).decode().lower()[:_MARK]
