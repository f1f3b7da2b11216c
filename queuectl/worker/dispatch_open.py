"""How a dispatcher opens the shared folder: at its start, after it has refused, and when a setting has changed."""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from queuectl.engine import packs, place
from queuectl.engine.tracker import Tracker
from queuectl.engine.verdict import Limits
from queuectl.storage import locate
from queuectl.worker import dispatch_check
from queuectl.worker.share import Share, is_fault_of_the_share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.config.settings import Settings
    from queuectl.engine.base import Connection
    from queuectl.worker.dispatcher import Dispatcher
    from queuectl.worker.health import FaultBarrier

OPEN_AGAIN = 5.0
"""Seconds until the share is tried again after it has refused."""


class Opening:
    """Opens the shared folder of one dispatcher.

    Args:
        connect: makes the connection to the engine from the id of the spool and the options for each sbatch.
        beat: seconds between two signs of life of a runner.
        wake: ends the wait of the main thread.

    Attributes:
        trouble: why it could not be used the last time; None: nothing was wrong.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        connect: Callable[[str, Sequence[str]], Connection],
        beat: float,
        wake: Callable[[], None],
        barrier: FaultBarrier,
    ) -> None:
        self._dispatcher, self._connect, self._beat = dispatcher, connect, beat
        self._wake, self._barrier = wake, barrier
        self._opened_with: tuple[object, ...] | None = None
        self._open_at = 0.0
        self.trouble: Exception | None = None
        self._told: tuple[str, str] | None = None

    def look_after(self) -> None:
        """Open the share, anew if it has refused, or if a setting has changed that counts when it is opened."""
        if self._dispatcher.share is not None:
            self._close_if_needed(self._dispatcher.share)
        now = time.monotonic()
        if self._dispatcher.share is None and now >= self._open_at:
            self._open_at = now + OPEN_AGAIN
            with self._barrier:
                self._open()

    def _close_if_needed(self, share: Share) -> None:
        if share.fault is not None and not is_fault_of_the_share(share.fault):
            raise share.fault
        if share.fault is None:
            if share.summary is not None:
                self.trouble = self._told = None
            if not self._must_open_anew(share):
                return
            self._open_at = 0.0
        share.close()
        # Not before nothing of the old one gets to run any more: it could hand over what the new one puts back.
        if share.has_ended:
            self.trouble, self._dispatcher.share = share.fault, None
            if share.fault is not None:
                self._tell(share.fault)

    def _tell(self, fault: Exception) -> None:
        """Log a fault, but not again at each try. Its path may be another one each time, that of a new file."""
        text = dispatch_check.fault_of(fault)
        told = text.rpartition("/")[0], text.rpartition(": ")[2]
        if told != self._told:
            self._told = told
            self._barrier.say_once(f"cannot use slurm_dir: {text}")

    def _must_open_anew(self, share: Share) -> bool:
        """Whether other settings count now. Another folder counts when nothing is out in this one any more."""
        if _what_counts(self._dispatcher.settings) == self._opened_with:
            return False
        if not self.has_moved:
            return True
        summary, has_jobs = share.summary, self._dispatcher.handover.jobs > 0
        if not has_jobs and share.is_up_to_date and summary is not None and summary.over:
            with self._barrier:
                self._dispatcher.handover.clear()  # at once, as nothing may be handed over before
        return not (has_jobs or (summary is not None and summary.packs > 0))

    @property
    def has_moved(self) -> bool:
        """Whether slurm_dir is another folder than the one that is used."""
        return self._opened_with is not None and self._opened_with[0] != self._dispatcher.settings.slurm_dir

    def _open(self) -> None:
        """Open it, and find what an earlier dispatcher has handed over.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        one = self._dispatcher
        settings = one.settings
        used_by = one.name if locate.claimed_by(one.layout, one.name) else None
        share = Share(
            partial(self._make_tracker, settings, used_by),
            lambda: dispatch_check.danger(settings.slurm_dir or "", one.layout, one.name),
            self._wake,
        )
        one.begin_anew(share.post)
        one.handover.adopt()
        self._opened_with = _what_counts(settings)
        one.share = share
        share.start()

    def _make_tracker(self, settings: Settings, used_by: str | None) -> Tracker:
        """In the thread of the share: make all that stands there.

        Raises:
            OSError, SpoolError: the share refuses, or it is not the right one.
        """
        one = self._dispatcher
        folder = dispatch_check.folder_in(settings)
        spool, root = place.prepare(folder, one.layout, socket.gethostname(), used_by=used_by)
        place.remember(one.layout.claims(one.name), root)
        before, one.connection = one.connection, self._connect(spool, settings.slurm_options or ())
        if before is not None:
            before.close()
        limits = Limits(self._beat, settings.slurm_fence, settings.kill_grace)
        return Tracker(root, packs.write_script(root), one.connection, limits, settings.log_limit)


def _what_counts(settings: Settings) -> tuple[object, ...]:
    """The settings that count when the share is opened."""
    options = tuple(settings.slurm_options or ())
    return settings.slurm_dir, options, settings.slurm_fence, settings.kill_grace, settings.log_limit
