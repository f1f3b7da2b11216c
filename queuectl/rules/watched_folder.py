"""One rule that watches a folder: when its folder is looked at, which files are complete, and their jobs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from typing import TYPE_CHECKING

from queuectl.config import stamp
from queuectl.errors import InvalidJob, SpoolError
from queuectl.fast_start.dataclass import dataclass
from queuectl.index.filter import Filter
from queuectl.rules import folder_look, job_queueing, seen_files
from queuectl.rules.file_claims import FileClaims
from queuectl.rules.file_jobs import FILE
from queuectl.rules.folder_look import FolderLook
from queuectl.rules.seen_files import SeenFiles
from queuectl.system import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config.settings import JobDefaults
    from queuectl.rules.claimed_files import ClaimedFile
    from queuectl.rules.file_trigger import FileTrigger
    from queuectl.rules.folder_look import Found
    from queuectl.rules.rule import Rule
    from queuectl.storage.transitions import Storage

LOOK_AGAIN = 30.0
"""Seconds after which a folder is looked at although nothing has told of a change. A file that is written anew in its place
changes no time of the folder."""

REST = 10.0
"""A look is followed by a rest of so many times its length: a folder with very many files costs a tenth of a core at most,
however often it changes. Where nothing changes, it is REST_QUIET."""
REST_QUIET = 100.0

SOON = 60.0
"""Seconds since its last change for which a file that is not complete is looked at each second by itself; later with the
whole folder."""

_WAITED_FOR = 10.0
"""Seconds for which a draining worker waits at most until a file has been unchanged for long enough."""

_EACH_SECOND = 1.0
_ROOM_AGAIN = 0.5
"""Seconds after which is looked whether fewer jobs of the rule wait."""

_LOCK_AGAIN = 0.1

_MOVE_AGAIN = 10.0
"""Seconds until files are tried again that could not be moved."""

_REFUSED_IN_A_ROW = 3
"""Files that are tried one after the other although none can be moved."""

_MOST_FOLDERS = 200
"""Folders whose times are compared each second. With more of them, the whole is looked at from time to time."""

_JUDGED_AT_ONCE = 16

_AT_ONCE = 64
"""Files that are taken together, with one wait for the disk."""


@dataclass(slots=True)
class Incomplete:
    """A file that is not complete yet.

    Attributes:
        one: as it was seen last.
        first: when it was first seen, by the monotonic clock.
        since: since when it is as it is.
        due: when it is to be looked at again.
        reason: what is missing.
    """

    one: Found
    first: float
    since: float
    due: float
    reason: str


class WatchedFolder:
    """What the worker that follows the rules knows of one folder.

    Args:
        trigger: of the rule.
        defaults: the values of fields that the rule does not give.
        monotonic: the monotonic clock.
    """

    def __init__(
        self,
        rule: Rule,
        trigger: FileTrigger,
        storage: Storage,
        defaults: JobDefaults,
        monotonic: Callable[[], float],
    ) -> None:
        self.rule, self.trigger = rule, trigger
        self._unreadable: str | None = None
        self._storage, self._defaults, self._monotonic = storage, defaults, monotonic
        self._seen = SeenFiles(storage.layout.rule_seen(rule.name))
        self._claims = FileClaims(rule, trigger, storage, defaults, self._seen)
        self._look: Iterator[None] | None = None
        self._spent = 0.0
        self._known: int | None = None
        self._times: list[tuple[str, stamp.Stamp | None]] = []
        self._incomplete: dict[str, Incomplete] = {}
        self._complete: list[Found] = []
        self._is_hinted, self._is_full, self._is_remote = True, False, False
        self._not_before = self._room_at = -math.inf
        self._next = -math.inf

    @property
    def problem(self) -> str | None:
        """Why the folder cannot be looked at, or its files cannot be taken."""
        return self._unreadable or self._claims.problem

    @property
    def is_away(self) -> bool:
        """Whether the folder is not there, or cannot be read."""
        return self._unreadable is not None

    # -- when ------------------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether there is something to look at, or to take, now."""
        now = self._monotonic()
        if self._look is not None or self._may_take(now) or self._next_incomplete() <= now:
            return True
        return now >= self._not_before and self._is_look_due(now)

    def due_in(self) -> float:
        """Return the seconds until something is due although the folder does not change."""
        now = self._monotonic()
        at = min(max(self._not_before, -math.inf if self._is_hinted else self._next), self._next_incomplete())
        if self._look is not None:
            at = now
        elif self._complete:
            at = min(at, self._room_at)
        return max(0.0, at - now)

    def has_work(self) -> bool:
        """Whether a draining worker must stay.

        A look is under way, or complete files have room, or a file needs nothing but a moment of rest.
        """
        now = self._monotonic()
        if self._look is not None or (self._complete and not self._claims.has_unqueued and self._has_room()):
            return True
        if self._is_hinted and now >= self._not_before:
            return True
        limit = min(self.trigger.settle, _WAITED_FOR) + _EACH_SECOND
        return any(
            one.reason == folder_look.QUIET and now - one.first <= limit for one in self._incomplete.values()
        )

    def hint(self) -> None:
        """Note that something may have changed."""
        self._is_hinted = True

    @property
    def watched(self) -> list[str]:
        """The folders of which the kernel can report changes; none if they are too many, or on another machine."""
        few = not self._is_remote and len(self._times) <= _MOST_FOLDERS
        return [path for path, _ in self._times] if few else []

    def _may_take(self, now: float) -> bool:
        return bool(self._complete) and now >= self._room_at and not self._claims.has_unqueued

    def _next_incomplete(self) -> float:
        return min((one.due for one in self._incomplete.values()), default=math.inf)

    def _has_changed(self) -> bool:
        if self._is_remote or len(self._times) > _MOST_FOLDERS:
            return False
        return any(stamp.of(path) != seen for path, seen in self._times)

    # -- look ------------------------------------------------------------------------------------------------------

    def look(self, until: float) -> None:
        """Begin a look at the folder or go on with it, and look again at files that were not complete.

        Args:
            until: the monotonic moment at which to stop.

        Raises:
            OSError: the folder of claimed files cannot be read.
        """
        now = self._monotonic()
        if self._look is None and now >= self._not_before and self._is_look_due(now):
            self._seen.refresh()
            self._is_hinted, self._spent = False, 0.0
            self._look = self._steps()
        if self._look is None:
            self._look_at_incomplete(now, until)
            return
        try:
            is_over = all(self._monotonic() <= until for _ in self._look)
        except BaseException:
            self._look, self._next = None, now + LOOK_AGAIN
            raise
        self._spent += self._monotonic() - now
        if is_over:
            self._look = None
            self._not_before = self._monotonic() + REST * self._spent
            wait = self.trigger.poll if self._is_remote else LOOK_AGAIN
            self._next = self._monotonic() + max(wait, REST_QUIET * self._spent)
            if self._claims.gone or self._claims.has_unqueued:
                self._next = min(self._next, now + _EACH_SECOND)

    def _is_look_due(self, now: float) -> bool:
        # Each file that is taken out of the folder changes it: no look for each, while others are left to be taken.
        return self._is_hinted or now >= self._next or (not self._complete and self._has_changed())

    def _steps(self) -> Iterator[None]:
        """Look at the whole folder, and yield after each few files."""
        self._is_remote = mounts.leads_into(self.trigger.folder, mounts.hanging_points())
        may_forget = self._seen.may_forget(self._known)
        look = FolderLook(self.trigger, self._seen.knows, keeps_known=may_forget)
        yield from look.steps()
        self._times, self._unreadable = look.folders, look.problem
        before, self._incomplete, self._complete = self._incomplete, {}, []
        for number, one in enumerate(look.found, 1):
            self._judge(one, before.get(one.below), self._monotonic())
            if number % _JUDGED_AT_ONCE == 0:
                yield
        self._complete.sort(key=lambda one: (one.modified, one.below), reverse=True)
        if look.problem is None:
            yield from self._claims.follow()
            if may_forget:
                self._seen.forget_gone(look.known, look.passed_over, look.identities, self._claims.claimed)
            self._known = look.number_known + len(self._claims.claimed)

    def _judge(self, one: Found, before: Incomplete | None, now: float) -> None:
        """Put a file among those that are complete, or that are not yet."""
        is_same = before is not None and before.one.identity == one.identity
        since = before.since if before is not None and is_same else now
        reason = folder_look.what_is_missing(one, self.trigger, self._unchanged_for(one, since, now, is_same))
        if (
            reason is None and before is not None
        ):  # else it is asked when the file is taken: that costs most of a look
            reason = folder_look.in_use(os.path.join(self.trigger.folder, one.below))
        if reason is None:
            self._complete.append(one)
            self._incomplete.pop(one.below, None)
            return
        first = before.first if before is not None else now
        due = now + _EACH_SECOND if now - since < SOON and one.kind is None else math.inf
        if reason == folder_look.QUIET:
            due = min(due, max(since + self.trigger.settle, now + 0.05))
        self._incomplete[one.below] = Incomplete(one, first, since, due, reason)

    def _unchanged_for(self, one: Found, since: float, now: float, is_same: bool) -> float | None:
        """Return for how long a file is surely as it is. Its own times tell, if it is this machine that writes them."""
        age = self._storage.now() - folder_look.latest_change(one.changed) / 1e9
        if not self._is_remote and age >= self.trigger.settle:
            return age
        return now - since if is_same else None

    def _look_at_incomplete(self, now: float, until: float) -> None:
        for number, (below, known) in enumerate(list(self._incomplete.items()), 1):
            if number % _JUDGED_AT_ONCE == 0 and self._monotonic() > until:
                return
            if known.due <= now:
                one = folder_look.find(self.trigger, below)
                if one is None:
                    del self._incomplete[below]
                else:
                    self._judge(one, known, now)

    # -- take ------------------------------------------------------------------------------------------------------

    def can_take(self) -> bool:
        """Whether there are complete files, and few enough jobs of the rule wait."""
        now = self._monotonic()
        if self._look is not None or not self._may_take(now):
            return False
        return self._has_room()

    def _has_room(self) -> bool:
        # Else it is counted by `take`, for which the index is made to agree with the folders.
        return not (self._is_full and self._storage.index.usable) or self._room() > 0

    def _room(self) -> int:
        which = Filter(states=("pending", "failed"), rule=self.rule.name, limit=self.trigger.at_most)
        waiting = -(-self._storage.index.count(which) // len(self.rule.jobs))
        self._is_full = waiting >= self.trigger.at_most
        if self._is_full:
            self._room_at = self._monotonic() + _ROOM_AGAIN
        return self.trigger.at_most - waiting

    def take(self, until: float) -> None:
        """Queue jobs for complete files, the oldest first.

        Args:
            until: the monotonic moment at which to stop; some are taken in any case.

        Raises:
            QueuectlError, OSError: the disk refused; what is not noted is found again.
        """
        room = self._room()
        while self._complete and room > 0 and not self._claims.has_unqueued:
            number = min(room, _AT_ONCE)
            part = self._complete[-number:][::-1]
            del self._complete[-number:]
            room -= number
            try:
                self._take(part)
            except BaseException:
                self._is_hinted = True  # the look finds those again that were not taken
                self._complete.clear()
                raise
            if self._monotonic() > until:
                return

    def wait_for_lock(self) -> None:
        """Try again in a moment, as another producer is deciding about unique keys."""
        self._room_at = self._monotonic() + _LOCK_AGAIN

    def _take(self, part: list[Found]) -> None:
        queue = job_queueing.FileBatch(self._storage, self._defaults, self.rule)
        claimed: list[ClaimedFile] = []
        left: list[tuple[Found, list[str]]] = []
        inodes: set[int] = set()
        for one in part:
            now = self._monotonic()
            again = folder_look.find(self.trigger, one.below)
            if again is None or again.inode in inodes or self._seen.knows(again):
                continue  # gone, or a second name of a file: so some SFTP servers rename
            if again.identity != one.identity:
                self._judge(again, None, now)
                continue
            path = os.path.join(self.trigger.folder, one.below)
            if reason := folder_look.in_use(path):
                self._incomplete[one.below] = self._later(one, reason, now + _EACH_SECOND)
                continue
            if self.trigger.moves:
                if (moved := self._claim(one)) is not None:
                    claimed.append(moved)
                continue
            try:
                left.append((one, queue.add(path, one.below, occurrence_of(one))))
            except InvalidJob as error:  # as of a name that is too long for the unique key; the others go on
                self._incomplete[one.below] = self._later(one, f"no valid job: {error.message}", math.inf)
                continue
            inodes.add(one.inode)
        claims = self._claims.add_to(queue, claimed)
        skipped = queue.finish()
        lines = self._claims.lines(claims, skipped)
        for one, ids in left:
            if taken := next((skipped[job_id] for job_id in ids if job_id in skipped), None):
                reason = f"job {taken.job_id} has its unique key"
                self._incomplete[one.below] = self._later(one, reason, self._monotonic() + _EACH_SECOND)
            else:
                lines.append(seen_files.line(one))
        if self._claims.has_unqueued:
            self._next = min(self._next, self._monotonic() + _EACH_SECOND)
        self._seen.add(lines)

    def _later(self, one: Found, reason: str, due: float) -> Incomplete:
        now = self._monotonic()
        return Incomplete(one, now, now, due, reason)

    def _claim(self, one: Found) -> ClaimedFile | None:
        """Take a file out of the folder; None: it was not taken.

        Raises:
            SpoolError: none of several could be moved.
        """
        try:
            return self._claims.claim(one)
        except OSError as error:
            self._claims.note_problem(one.below, error)
        self._incomplete[one.below] = self._later(one, "it cannot be moved", math.inf)
        if self._claims.refused >= _REFUSED_IN_A_ROW:
            self._claims.refused = 0
            self._not_before = self._monotonic() + _MOVE_AGAIN
            raise SpoolError(self._claims.problem or "")
        return None


def occurrence_of(one: Found) -> str:
    """Return what stands for a file in the id of its job: the same file gives the same id."""
    text = json.dumps([one.below, one.inode, one.size, one.modified])
    digest = hashlib.sha256(text.encode()).digest()
    return FILE + base64.b32encode(digest[:10]).decode().lower()[:13]
