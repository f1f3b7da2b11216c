"""Short jobs that a worker claims several at a time."""

from __future__ import annotations

from .run import Mutant

_PREFETCH = "tests/worker/test_prefetch.py::test_"
_KILLED = f"{_PREFETCH}a_worker_that_is_killed_loses_no_outcome_and_charges_no_job_it_had_not_begun"
_LONG = f"{_PREFETCH}a_long_job_keeps_nobody_waiting_behind_it"
_FRAGILE = f"{_PREFETCH}a_job_that_must_not_run_twice_is_never_claimed_beside_another"
_STOPS = f"{_PREFETCH}a_worker_that_stops_puts_back_what_it_has_not_begun"
_SHORT = f"{_PREFETCH}more_are_claimed_only_while_jobs_are_short_and_many_wait"

PREFETCH = (
    Mutant(
        "prefetch: what is over is not written down",
        "worker/settle_batch.py",
        "        self.run_file_lines.append(run_lock.line(claim.job, claim.run, claim.ended_at, duration))\n",
        "",
        (_KILLED,),
    ),
    Mutant(
        "prefetch: what is over and written down is run again",
        "storage/recovery.py",
        "    if over:\n",
        "    if False:\n",
        (_KILLED,),
    ),
    Mutant(
        "prefetch: what a run printed is forgotten with its worker",
        "storage/recovery.py",
        "        job_logs.recall_output(layout, job, limit=settings.output_limit)\n",
        "",
        (_KILLED,),
    ),
    Mutant(
        "prefetch: what had not begun is charged",
        "storage/recovery.py",
        "    if never_began:",
        "    if False:",
        (_KILLED,),
    ),
    Mutant(
        "prefetch: the run file of another boot is believed",
        "control/run_lock.py",
        "            one.boot == boot and not one.names",
        "            not one.names",
        (f"{_PREFETCH}after_a_power_cut_what_was_claimed_counts_as_begun",),
    ),
    Mutant(
        "prefetch: what is left of a longer run file is believed",
        "control/run_lock.py",
        "_parsed(lines[at]) for at in range(int(number)))",
        "_parsed(line) for line in lines if line.strip())",
        (f"{_PREFETCH}a_run_file_tells_what_runs_what_is_over_and_what_never_began",),
    ),
    Mutant(
        "prefetch: a long job keeps what is claimed beside it",
        "worker/job_run.py",
        "        if now >= self._long_at:",
        "        if False:",
        (_LONG,),
    ),
    Mutant(
        "prefetch: one that must not run twice is claimed beside others",
        "worker/prefetch.py",
        "        if len(self.ready) > 1:\n            self._keep_fragile_alone()\n",
        "",
        (_FRAGILE,),
    ),
    Mutant(
        "prefetch: one with a unique key is claimed beside others",
        "worker/prefetch.py",
        "        return rows[: max(1, keyed)]",
        "        return rows",
        (f"{_PREFETCH}one_with_a_unique_key_is_claimed_alone",),
    ),
    Mutant(
        "prefetch: an urgent job waits for all that are claimed",
        "worker/claiming.py",
        "            elif self._scheduler.has_news:\n",
        "            elif False:\n",
        (f"{_PREFETCH}an_urgent_job_goes_before_those_claimed",),
    ),
    Mutant(
        "prefetch: a worker that stops keeps what it has not begun",
        "worker/worker.py",
        "            if self._batch.is_open and (self.flags.stopping or self._readiness.blocked):",
        "            if self._batch.is_open and self._readiness.blocked:",
        (_STOPS,),
    ),
    Mutant(
        "prefetch: a paused worker goes on with what it has claimed",
        "worker/worker.py",
        "            if self._batch.is_open and (self.flags.stopping or self._readiness.blocked):",
        "            if self._batch.is_open and self.flags.stopping:",
        (_STOPS,),
    ),
    Mutant(
        "prefetch: a job in hand is started although it is cancelled",
        "worker/upkeep.py",
        "            batch.give_up_cancelled()\n",
        "            pass\n",
        (f"{_PREFETCH}a_claimed_job_that_is_cancelled_is_not_run_later",),
    ),
    Mutant(
        "prefetch: an outcome waits for a job that was not run",
        "worker/claiming.py",
        "        self._batch.settle_all()\n        if not self._index.usable:",
        "        if not self._index.usable:",
        (f"{_PREFETCH}an_outcome_is_recorded_when_all_that_was_claimed_with_it_has_expired",),
    ),
    Mutant(
        "prefetch: many are claimed though jobs are long",
        "worker/prefetch.py",
        "        single = self._single_claims or not 0 < pace < LONG_JOB\n",
        "        single = bool(self._single_claims)\n",
        (_SHORT,),
    ),
    Mutant(
        "prefetch: a wait for the disk makes a job long",
        "worker/settle_batch.py",
        "        self._prefetch.note_runs_ended()\n",
        "",
        (f"{_PREFETCH}a_slow_record_of_an_end_makes_no_job_long",),
    ),
    Mutant(
        "prefetch: more is claimed than a spell of work",
        "worker/prefetch.py",
        "max(1, min(2 * self._size, MAX_BATCH, int(BATCH_SECONDS / pace)))",
        "max(1, min(2 * self._size, MAX_BATCH))",
        (_SHORT,),
    ),
    Mutant(
        "prefetch: one worker claims the last jobs",
        "worker/prefetch.py",
        "size = max(1, min(size, self._index.count_ready(size * WAITING_SHARE) // WAITING_SHARE))",
        "pass",
        (f"{_PREFETCH}the_last_waiting_jobs_are_left_for_all_workers",),
    ),
    Mutant(
        "prefetch: one outcome that is refused rolls back those before it",
        "storage/settle.py",
        "                    refused = error  # the index must still learn of the files that were moved before\n",
        "                    raise error from None\n",
        (
            "tests/worker/test_prefetch.py::test_an_outcome_that_is_refused_keeps_the_index_right_about_the_others",
        ),
    ),
)
