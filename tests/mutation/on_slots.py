"""Several jobs in one worker: what keeps them apart, and what one of them must not do to the others."""

from __future__ import annotations

from .run import Mutant

_MANY = "tests/worker/test_many_at_once.py::test_"
_SLOTS = "tests/worker/test_concurrency.py::test_"
_TROUBLE = "tests/worker/test_slots_in_trouble.py::test_"
_SUSPECTS = "tests/worker/test_suspects.py::test_"

SLOTS = (
    Mutant(
        "slots: all runs write into the same files",
        "executor/base.py",
        '    files = slot_name(mine["QUEUECTL_WORKER"], slot)\n',
        '    files = mine["QUEUECTL_WORKER"]\n',
        (f"{_SLOTS}no_job_gets_the_output_of_another_from_its_slot",),
    ),
    Mutant(
        "slots: a job that may have killed its worker is joined by others",
        "worker/slots.py",
        "return 0 if self.suspects.hold else max(",
        "return max(",
        (f"{_SUSPECTS}those_without_end_start_one_after_the_other_and_stop_no_other_job",),
    ),
    Mutant(
        "slots: a job that may have killed its worker joins others",
        "worker/suspects.py",
        "        if not is_suspect(job) or not self._has_company():\n",
        "        if True:\n",
        (f"{_SLOTS}a_job_that_kills_its_worker_takes_no_innocent_job_with_it",),
    ),
    Mutant(
        "suspects: one that waits keeps the jobs behind it",
        "worker/worker.py",
        "            self._batch.end(busy=True)\n            return None\n",
        "            return None\n",
        (f"{_SUSPECTS}jobs_behind_one_that_waits_run_and_it_counts_as_pending",),
    ),
    Mutant(
        "suspects: one that waits is claimed again and again",
        "worker/suspects.py",
        "        if not self._waiting:\n            return self._index.ready(limit)\n",
        "        if True:\n            return self._index.ready(limit)\n",
        (f"{_SUSPECTS}jobs_behind_one_that_waits_run_and_it_counts_as_pending",),
    ),
    Mutant(
        "suspects: one without end stops all others",
        "worker/suspects.py",
        "        return run.began > self._clock() - APART\n",
        "        return True\n",
        (f"{_SUSPECTS}those_without_end_start_one_after_the_other_and_stop_no_other_job",),
    ),
    Mutant(
        "suspects: others pass for ever",
        "worker/suspects.py",
        "        return bool(self._waiting) and self._is_their_turn and self._has_company()\n",
        "        return False\n",
        (f"{_SUSPECTS}it_gets_its_turn_although_jobs_before_it_never_cease",),
    ),
    Mutant(
        "suspects: at its turn the more urgent ones go first",
        "worker/suspects.py",
        "        if (others and not self._is_their_turn) or self._has_company():\n",
        "        if others or self._has_company():\n",
        (f"{_SUSPECTS}it_gets_its_turn_although_jobs_before_it_never_cease",),
    ),
    Mutant(
        "slots: trees end one after the other",
        "worker/slots.py",
        "        for run in self:\n            run.stop()\n            if run.cannot_be_ended:\n",
        "        for run in [*self][:1]:\n            run.stop()\n            if run.cannot_be_ended:\n",
        (f"{_SLOTS}a_forced_stop_ends_all_trees_together",),
    ),
    Mutant(
        "slots: a smaller number is not followed",
        "worker/slots.py",
        "        if wanted != self._wanted:\n",
        "        if wanted > self._wanted:\n",
        (f"{_SLOTS}fewer_jobs_at_once_end_none_that_runs",),
    ),
    Mutant(
        "slots: a disk that refuses an outcome holds up timeouts",
        "worker/slots.py",
        "        until = min(time.monotonic() + seconds, self._next_deadline())\n        self._wake_up.wait(until - time.monotonic())\n        self._ended += self._poll()\n",
        "        self._wake_up.wait(seconds)\n",
        (f"{_SLOTS}an_outcome_that_the_disk_refuses_holds_up_no_timeout",),
    ),
    Mutant(
        "slots: more are begun than files can be opened for",
        "system/open_files.py",
        "    return min(wanted, max(1, (limit() - opened - FOR_A_WORKER) // FOR_A_RUN))\n",
        "    return wanted\n",
        (f"{_SLOTS}more_than_the_open_files_allow_is_refused_with_the_number_that_works",),
    ),
    Mutant(
        "slots: files of an earlier boot stay",
        "storage/recovery.py",
        "        run_lock.forget_slots(layout, worker)\n",
        "        pass\n",
        (f"{_SLOTS}a_slot_of_an_earlier_boot_casts_no_doubt_for_ever",),
    ),
    Mutant(
        "slots: a run file that cannot be read is left out",
        "control/run_lock.py",
        "is_whole=len(records) == len(found))",
        "is_whole=True)",
        (f"{_SLOTS}a_damaged_run_file_of_any_slot_proves_nothing",),
    ),
    Mutant(
        "slots: a cancel hits every job of the worker",
        "worker/job_run.py",
        "        if self.running is not None and job.id in cancels and cancels[job.id] == job.next_run:\n",
        "        if self.running is not None and cancels:\n",
        (f"{_SLOTS}a_timeout_and_a_cancel_among_many_hit_only_their_job",),
    ),
    Mutant(
        "many: each tree has a look at all processes of its own",
        "system/process_table.py",
        "        if self._table is None or self._table.began <= moment:\n",
        "        if True:\n",
        (f"{_MANY}a_forced_stop_of_many_shares_its_looks_at_the_machine",),
    ),
    Mutant(
        "many: a look from before the end proves the end",
        "system/process_table.py",
        "        if self._table is None or self._table.began <= moment:\n",
        "        if self._table is None:\n",
        ("tests/executor/test_local.py::test_a_child_born_of_the_term_handler_ends_too",),
    ),
    Mutant(
        "many: hundreds are recorded while others wait",
        "worker/slots.py",
        "self._ended[:TOGETHER], self._ended[TOGETHER:]",
        "self._ended, []",
        (f"{_MANY}what_ends_while_outcomes_are_recorded_waits_for_a_few_of_them",),
    ),
    Mutant(
        "many: timeouts wait for the start of all",
        "worker/worker.py",
        " or self._slots.is_late:",
        ":",
        (f"{_MANY}a_timeout_comes_in_time_while_many_are_started",),
    ),
    Mutant(
        "many: a run that is over is waited for again",
        "worker/slots.py",
        "        if run.is_over:\n            return\n",
        "",
        (f"{_SLOTS}an_outcome_that_the_disk_refuses_holds_up_no_timeout",),
    ),
    Mutant(
        "many: an end is noted when it is recorded",
        "worker/job_run.py",
        "            self._claim.ended_at = self._context.storage.now()\n",
        "",
        (f"{_SLOTS}an_outcome_that_the_disk_refuses_holds_up_no_timeout",),
    ),
    Mutant(
        "many: each silent job wakes the worker for itself",
        "executor/local.py",
        "(now // self._output_interval + 1) * self._output_interval",
        "now + self._output_interval",
        (f"{_MANY}sleeping_jobs_wake_their_worker_together",),
    ),
    Mutant(
        "many: a job holds the run lock of the one before",
        "worker/slots.py",
        "            self._newest.hide_lock()\n",
        "            pass\n",
        (f"{_MANY}a_run_that_lingers_holds_up_no_other_of_its_worker",),
    ),
    Mutant(
        "many: runs of a dead worker end one after the other",
        "storage/orphaned_runs.py",
        "_ended(left, [orphaned_tree(one.by_id, None, _GRACE, one.session, look) for one in left])",
        "[one for one in left if _ended([one], [orphaned_tree(one.by_id, None, _GRACE, one.session, look)])]",
        (f"{_MANY}runs_of_a_dead_worker_end_together",),
    ),
    Mutant(
        "many: what an exception breaks off gets its grace time",
        "worker/slots.py",
        "            run.stop(now=True)\n",
        "            run.stop()\n",
        (f"{_MANY}what_an_exception_breaks_off_ends_together",),
    ),
    Mutant(
        "many: who follows an output reads all run files",
        "control/run_lock.py",
        "        if known is not None and known.is_current(job):\n",
        "        if False:\n",
        (f"{_MANY}who_follows_an_output_reads_the_file_of_its_slot_alone",),
    ),
    Mutant(
        "many: the slot that was asked about last is trusted",
        "control/run_lock.py",
        "        if known is not None and known.is_current(job):\n",
        "        if known is not None:\n",
        (f"{_MANY}who_follows_an_output_reads_the_file_of_its_slot_alone",),
    ),
    Mutant(
        "trouble: the note of ended runs takes the place of a run",
        "control/run_lock.py",
        '        path = layout.worker_file(slot_name(worker, _SLOT_OF_ENDED), "run")\n',
        '        path = layout.worker_file(worker, "run")\n        os.unlink(path)\n',
        (f"{_TROUBLE}a_note_of_ended_runs_hides_no_run_that_goes_on",),
    ),
)
