"""`worker stop` waits as long as what it stops may take, and says what it waits for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from queuectl.config.change import set_value
from queuectl.control import registry
from queuectl.control.registration import Registration
from queuectl.worker import dispatch_stop, stopping

if TYPE_CHECKING:
    from queuectl.layout import Layout

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="dispatchers run where Slurm does")


def test_a_forced_stop_is_not_given_up_while_a_cluster_may_still_obey(layout: Layout) -> None:
    """Without the controller a runner sees the order at its next beat. "still running" would be said too early."""
    set_value(layout, "kill_grace", "60")
    worker = Registration.acquire(layout)
    worker.announce("program")
    assert stopping.forced_patience(layout) == 0
    dispatcher = Registration.acquire_named(layout, "slurm")
    dispatcher.announce("program")
    assert stopping.forced_patience(layout) > 60 + dispatch_stop.FORCE_PATIENCE
    dispatcher.release()
    worker.release()


def test_a_worker_that_has_given_its_name_back_is_not_said_to_start(layout: Layout) -> None:
    """Its process ends a moment later, and is waited for."""
    made = Registration.acquire_named(layout, "slurm")
    made.announce("program")
    [info] = registry.live_workers(layout)
    asked = stopping._Asked(info, None, None, None)
    assert stopping._current(layout, [asked]) == [info]
    made.release()
    [left] = stopping._current(layout, [asked])
    assert (left.name, left.mode, left.stopping, left.engine) == ("slurm", "program", True, None)
