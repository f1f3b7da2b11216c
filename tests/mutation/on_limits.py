"""Limits of queues, rates and resources: what keeps them, and what keeps the jobs behind them moving."""

from __future__ import annotations

from .run import Mutant

_LANES = "tests/index/test_lanes.py::test_"
_PERMITS = "tests/control/test_permits.py::test_"
_RATE = "tests/control/test_start_rate.py::test_"
_LIMITS = "tests/worker/test_limits.py::test_"

LIMITS = (
    Mutant(
        "lanes: each claim reads the jobs of all lanes",
        "index/queries.py",
        "SELECT min(lane) FROM jobs WHERE ready_key IS NOT NULL AND lane > found.lane) FROM found",
        "SELECT min(lane) FROM jobs WHERE ready_key IS NOT NULL AND +lane > found.lane) FROM found",
        (f"{_LANES}finding_the_lanes_does_not_read_their_jobs",),
    ),
    Mutant(
        "lanes: a job that is edited keeps its lane",
        "storage/claim.py",
        "(job.unique, lane_of(job)) != (row.unique_key, row.lane)",
        "job.unique != row.unique_key",
        ("tests/worker/test_limits.py::test_a_queue_written_into_a_waiting_file_counts_at_the_claim",),
    ),
    Mutant(
        "permits: a lowered limit is not seen",
        "control/permits.py",
        "                if len(numbers) < amount or self._exceeds(files, most):\n",
        "                if len(numbers) < amount:\n",
        (f"{_PERMITS}after_a_lower_limit_none_is_given_until_few_are_left",),
    ),
    Mutant(
        "permits: the next job keeps a place that is gone",
        "worker/limits.py",
        "        if reuse and self._permits.may_keep(permit, queue, limit, self._settings().resources):\n",
        "        if reuse:\n",
        (f"{_LIMITS}a_changed_limit_takes_effect_on_living_workers",),
    ),
    Mutant(
        "permits: what was taken is kept when a part is missing",
        "control/permits.py",
        "                    permit.release()\n                    return name\n",
        "                    return name\n",
        (f"{_PERMITS}all_that_is_needed_is_taken_or_nothing",),
    ),
    Mutant(
        "permits: a job does not inherit them",
        "executor/base.py",
        "        permit_fds=permit.descriptors if permit else (),\n",
        "",
        (f"{_LIMITS}the_next_job_waits_for_the_processes_of_a_killed_worker",),
    ),
    Mutant(
        "permits: a daemon keeps the place of its job",
        "worker/job_run.py",
        "reuse = outcome is None or not outcome.leftovers",
        "reuse = True",
        (f"{_LIMITS}the_place_of_a_job_with_a_daemon_is_not_handed_on",),
    ),
    Mutant(
        "permits: nobody is told that one was given back",
        "control/permits.py",
        "                os.utime(path)\n",
        "                pass\n",
        (f"{_LIMITS}a_worker_that_waits_for_a_place_is_told_although_a_daemon_has_the_file_open",),
    ),
    Mutant(
        "permits: one given back before the watch is not seen",
        "worker/permit_watch.py",
        "        if self._is_on:\n            self._limits.reopen()\n        return self._is_on\n",
        "        return False\n",
        (f"{_LIMITS}a_place_that_becomes_free_just_before_the_watch_is_seen",),
    ),
    Mutant(
        "permits: unused ones are kept",
        "worker/limits.py",
        "                while len(spare) > waiting[lane]:\n",
        "                while False:\n",
        (f"{_LIMITS}a_stopped_worker_gives_back_all_places",),
    ),
    Mutant(
        "limits: jobs start as if each slot had a permit",
        "worker/limits.py",
        "            may_follow = len(admitted) >= room and taken > 0\n",
        "            may_follow = taken > 0\n",
        (f"{_LIMITS}jobs_that_could_not_start_are_not_claimed",),
    ),
    Mutant(
        "limits: short jobs are claimed one by one",
        "worker/limits.py",
        "            may_follow = len(admitted) >= room and taken > 0\n",
        "            may_follow = False\n",
        (f"{_LIMITS}short_jobs_of_a_queue_are_claimed_several_at_a_time",),
    ),
    Mutant(
        "limits: a large job waits for ever",
        "worker/limits.py",
        "        if self._passed and rows:\n",
        "        if False:\n",
        (f"{_LIMITS}a_large_job_is_passed_over_for_a_while_and_then_what_it_needs_is_kept",),
    ),
    Mutant(
        "limits: what can never start keeps what it needs",
        "worker/limits.py",
        "                and all(number <= there.get(name, 0) for name, number in needs.items())\n",
        "",
        (f"{_LIMITS}a_job_that_needs_more_than_there_is_keeps_nothing_from_others",),
    ),
    Mutant(
        "limits: a paused queue is served",
        "worker/limits.py",
        "        if not self._choice.serves(queue) or self._queues.is_closed(queue):\n",
        "        if not self._choice.serves(queue):\n",
        (f"{_LIMITS}nothing_of_a_paused_queue_begins_until_the_file_is_deleted",),
    ),
    Mutant(
        "rates: a start that did not happen is lost",
        "worker/limits.py",
        "                starts.give_back(moment)\n",
        "                pass\n",
        (f"{_LIMITS}a_job_that_was_put_back_costs_no_start",),
    ),
    Mutant(
        "rates: several jobs are claimed with one start",
        "worker/limits.py",
        "            if settings.rate is not None:\n                break\n",
        "",
        (f"{_LIMITS}no_span_has_more_starts_than_its_rate",),
    ),
    Mutant(
        "rates: a clock that was set back stops the queue",
        "control/start_rate.py",
        "sorted(min(moment, now) for moment in noted)",
        "sorted(noted)",
        (f"{_RATE}a_clock_set_back_costs_one_span_and_no_more",),
    ),
    Mutant(
        "rates: a refusal does not remember that the clock was set back",
        "control/start_rate.py",
        "            if known != noted:\n",
        "            if not is_full:\n",
        (f"{_RATE}a_clock_set_back_costs_one_span_and_no_more",),
    ),
)
