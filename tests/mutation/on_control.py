"""What waits, holds, pauses and changes jobs."""

from __future__ import annotations

from .run import Mutant

_HOLD = "tests/api/test_hold.py::test_"
_ORDERS = "tests/control/test_signals.py::test_"
_VERSIONS = "tests/worker/test_other_versions.py::test_"
_PAUSE = "tests/control/test_pause.py::test_"
_SET = "tests/api/test_set.py::test_"
_EDIT = "tests/cli/test_edit.py::test_"
_WAIT = "tests/cli/test_wait.py::test_"

CONTROL = (
    Mutant(
        "amend: whatever lies there is written over",
        "storage/edit_pending.py",
        "        elif change.was_changed(change.scratch):",
        "        elif False:",
        (f"{_HOLD}edit_by_somebody_else_is_not_overwritten[True]",),
    ),
    Mutant(
        "amend: a look is enough where files cannot change places",
        "storage/edit_pending.py",
        "            if not storage.index.in_transaction or change.was_changed(change.path):\n                raise just_changed(row.id)\n",
        "",
        (f"{_HOLD}edit_by_somebody_else_is_not_overwritten[False]",),
    ),
    Mutant(
        "amend: what was edited meanwhile does not matter",
        "storage/edit_pending.py",
        "        if data != before:\n            raise just_changed(row.id)\n",
        "",
        (f"{_EDIT}job_that_somebody_else_changes_meanwhile_keeps_that_change",),
    ),
    Mutant(
        "amend: a held job has waited",
        "storage/edit_pending.py",
        "now if row.held and not job.hold else row.arrived",
        "row.arrived",
        (f"{_HOLD}released_job_has_not_waited[False]",),
    ),
    Mutant(
        "intake: a held job has waited",
        "intake/admission.py",
        "            if not old.held:",
        "            if True:",
        (f"{_HOLD}released_job_has_not_waited[True]",),
    ),
    Mutant(
        "amend: a key may be taken by changing a job",
        "storage/edit_pending.py",
        "        if others:\n            raise KeyTaken",
        "        if False:\n            raise KeyTaken",
        (f"{_SET}unique_key_that_another_job_has_is_refused",),
    ),
    Mutant(
        "amend: a failed job waits on whatever run_at says",
        "storage/edit_pending.py",
        "            wanted.next_retry_at = wanted.run_at or storage.now()",
        "            pass",
        (f"{_SET}failed_job_is_tried_again_when_run_at_says",),
    ),
    Mutant(
        "bury: a hold outlives a cancel",
        "storage/bulk_moves.py",
        "    job.hold = False",
        "    pass",
        (f"{_HOLD}held_job_that_was_cancelled_runs_when_it_is_retried",),
    ),
    Mutant(
        "wake: events that cannot be read are forgotten",
        "system/watcher.py",
        "            self._is_lost = True  # a scan",
        "            pass  # a scan",
        ("tests/worker/test_wake_up.py::test_events_that_cannot_be_read_count_as_lost_and_end_nothing",),
    ),
    Mutant(
        "moves: a job is claimed onto its own claimed file",
        "storage/settle.py",
        "            if then and not refused and PENDING not in places:",
        "            if then and not refused:",
        (
            "tests/storage/test_write_order.py::test_a_job_that_waits_again_is_not_claimed_in_the_transaction_that_settles_it",
        ),
    ),
    Mutant(
        "worker: what was claimed ahead is started in a paused spool",
        "worker/worker.py",
        "(self.flags.stopping or self._readiness.blocked)",
        "self.flags.stopping",
        (f"{_PAUSE}job_claimed_ahead_is_put_back",),
    ),
    Mutant(
        "start: a worker starts beside one of another version",
        "control/registry.py",
        "    if others:\n        names",
        "    if False:\n        names",
        (f"{_VERSIONS}a_worker_does_not_start_beside_one_of_another_version",),
    ),
    Mutant(
        "start: of two versions that start together none sees the other",
        "control/registration.py",
        "            registry.refuse_another_version(self.layout)",
        "            pass",
        (f"{_VERSIONS}of_two_versions_that_start_together_one_sees_the_other",),
    ),
    Mutant(
        "worker: a draining worker stays in a paused spool",
        "worker/worker.py",
        "return self._readiness.is_paused or self._is_drained()",
        "return self._is_drained()",
        (f"{_PAUSE}worker_that_is_to_leave_when_done_leaves_a_paused_spool",),
    ),
    Mutant(
        "orders: a worker that is told to look does so at its next look",
        "worker/upkeep.py",
        "        if now < self.due_at and not self._flags.look_requested:",
        "        if now < self.due_at:",
        (f"{_ORDERS}pause_and_its_end_reach_an_idle_worker_at_once",),
    ),
    Mutant(
        "orders: nobody is told of a cancel",
        "control/commands.py",
        "    wake(layout, name)\n",
        "",
        (f"{_ORDERS}cancel_ends_a_running_job_at_once",),
    ),
    Mutant(
        "orders: the end of a pause is not told",
        "control/pause.py",
        "    if was_paused:\n        commands.wake(layout)\n",
        "",
        (f"{_ORDERS}pause_and_its_end_reach_an_idle_worker_at_once",),
    ),
    Mutant(
        "orders: a worker that would die of the signal gets it",
        "control/commands.py",
        ' and record.get("hurries") is True:',
        ":",
        (f"{_ORDERS}only_the_worker_itself_is_signalled[an older worker]",),
    ),
    Mutant(
        "orders: a worker in a program gets the signal",
        "control/registration.py",
        '            "hurries": handles_wake_signal,',
        '            "hurries": True,',
        (f"{_ORDERS}worker_in_a_program_gets_no_signal",),
    ),
    Mutant(
        "pause: nobody is waited for",
        "control/pause.py",
        "    while (unaware := ",
        "    while False and (unaware := ",
        (f"{_PAUSE}worker_that_does_not_answer_is_named",),
    ),
    Mutant(
        "scan: a new index is not told of edits",
        "worker/edit_scan.py",
        "self._index_file, self._watch.is_edited = self._intake.index.inode, True",
        "self._index_file = self._intake.index.inode",
        (
            "tests/worker/test_scan_scheduler.py::test_an_edit_that_was_told_to_a_lost_index_is_told_to_the_next",
        ),
    ),
    Mutant(
        "wait: what is being moved is removed",
        "api/waiting.py",
        "            elif now - self._missing.setdefault(job_id, now) >= _REMOVED_AFTER:",
        "            elif True:",
        (f"{_WAIT}job_that_is_nowhere_for_a_moment_is_not_removed",),
    ),
    Mutant(
        "wait: only what ends is looked for",
        "api/waiting.py",
        " or now >= self._read_index_at",
        "",
        (f"{_WAIT}removed_job_is_not_waited_for[rm]",),
    ),
    Mutant(
        "enqueue --wait: Ctrl+C leaves the job",
        "cli/commands/enqueue_wait.py",
        "            self._spool.cancel(self._job_id, timeout=0.1)",
        "            pass",
        (f"{_WAIT}ctrl_c_ends_the_job_that_is_waited_for",),
    ),
)
