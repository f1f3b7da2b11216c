"""Several jobs in one worker: what keeps them apart, and what one of them must not do to the others."""

from __future__ import annotations

from .run import Mutant

_SLOTS = "tests/worker/test_concurrency.py::test_"

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
        "        return 0 if self._suspects else max(0, self._size - len(self._runs))\n",
        "        return max(0, self._size - len(self._runs))\n",
        (f"{_SLOTS}a_job_that_kills_its_worker_takes_no_innocent_job_with_it",),
    ),
    Mutant(
        "slots: a job that may have killed its worker joins others",
        "worker/worker.py",
        "        return bool(ready) and bool(self._slots) and ready[0].job.crashes >= ALONE_AFTER\n",
        "        return False\n",
        (f"{_SLOTS}a_job_that_kills_its_worker_takes_no_innocent_job_with_it",),
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
)
