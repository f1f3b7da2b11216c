"""What is tried again, kept apart and deleted."""

from __future__ import annotations

from .run import Mutant

_RETRY = "tests/test_retry_policy.py::test_"
_EXPIRY = "tests/test_expiry.py::test_"

RETRIES = (
    Mutant(
        "retry: retry_on wins over give_up_on",
        "retry.py",
        "        if exit_code in (job.give_up_on or ()):",
        "        if exit_code in (job.give_up_on or ()) and exit_code not in (job.retry_on or ()):",
        (f"{_RETRY}exit_codes_decide_whether_it_is_tried_again",),
    ),
    Mutant(
        "retry: the code a shell gives a signal counts",
        "attempt.py",
        "exit_code=outcome.exit_code if outcome.ending == Ending.FAILED else None,",
        "exit_code=outcome.exit_code,",
        (f"{_RETRY}a_signal_a_timeout_and_no_start_are_tried_again",),
    ),
    Mutant(
        "retry: jitter passes the cap",
        "retry.py",
        "    return min(min(wait, cap / (1 + jitter)) * (1 + jitter * draw), cap)",
        "    return min(wait, cap) * (1 + jitter * draw)",
        (f"{_RETRY}jitter_lengthens_a_wait_and_never_passes_the_cap",),
    ),
    Mutant(
        "retry: all at the cap come back together",
        "retry.py",
        "min(wait, cap / (1 + jitter))",
        "wait",
        (f"{_RETRY}waits_at_the_cap_are_spread_too",),
    ),
    Mutant(
        "expiry: a worker runs what has expired",
        "worker.py",
        "        if expiry.mark(job, self._now()):",
        "        if False:",
        (f"{_EXPIRY}an_expired_job_is_not_run_and_not_charged",),
    ),
    Mutant(
        "expiry: what the index said is believed",
        "expiry.py",
        "            mover.bury(row, reason, if_still=partial(_is_over, row, now))",
        "            mover.bury(row, reason)",
        (f"{_EXPIRY}a_moment_that_was_moved_in_the_file_counts",),
    ),
    Mutant(
        "expiry: what was put back expires again",
        "job.py",
        "        if self.expired(put_back):\n            self.expires_at = None\n",
        "",
        (f"{_EXPIRY}who_puts_an_expired_job_back_wants_it_to_run",),
    ),
    Mutant(
        "expiry: all that wait are looked through",
        "lookups.py",
        "INDEXED BY jobs_expires WHERE",
        "WHERE",
        (f"{_EXPIRY}a_million_waiting_jobs_are_not_looked_through",),
    ),
)
"""Retries, and up to when a start is worth it."""
