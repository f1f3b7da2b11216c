"""Pipelines and batches: what is checked before the first job is queued, and what people are told of a batch."""

from __future__ import annotations

from .run import Mutant

_INPUT = "tests/cli/test_pipelines.py::test_"
_SHOWN = "tests/cli/test_batch.py::test_"
_WAIT = "tests/cli/test_wait_for_others.py::test_"

BATCHES = (
    Mutant(
        "after: half of a wrong pipeline is queued",
        "api/enqueue_dependent.py",
        "            _Check(spool, common, seen, before).of(found)\n",
        "            pass\n",
        (f"{_INPUT}half_a_pipeline_is_never_queued",),
    ),
    Mutant(
        "after: a file is not looked through for conditions",
        "cli/job_reader.py",
        "                if _CONDITIONS.search(text):\n",
        "                if False:\n",
        (f"{_INPUT}a_file_that_breaks_off_queues_no_half_of_a_pipeline",),
    ),
    Mutant(
        "after: a list is queued in batches before it is checked",
        "api/spool_enqueue.py",
        "size = None if enqueue_dependent.is_pipeline(jobs, shared) else BATCH",
        "size = BATCH",
        (f"{_INPUT}a_long_list_is_checked_to_its_end",),
    ),
    Mutant(
        "after: a ring through a batch is not seen",
        "api/enqueue_dependent.py",
        "        self._graph.update(self._batches)\n",
        "",
        (f"{_INPUT}a_ring_through_a_batch_is_refused",),
    ),
    Mutant(
        "after: a ring through a job of the spool is not seen",
        "api/enqueue_dependent.py",
        "                self._graph[job_id] = self._waits_of(job_id)\n",
        "                self._graph[job_id] = []\n",
        (f"{_INPUT}a_ring_through_a_job_of_the_spool_is_refused",),
    ),
    Mutant(
        "prefix: what the jobs wait for keeps its name",
        "cli/enqueue_sources.py",
        "[new.get(one, one) if isinstance(one, str) else one for one in value]",
        "value",
        (f"{_INPUT}a_pipeline_is_queued_under_new_ids_each_day",),
    ),
    Mutant(
        "batch: a job behind a blocked part is not blocked",
        "index/dependencies.py",
        "JOIN waits ON waits.parent IN (blocked.id, 'batch:' || blocked.member)",
        "JOIN waits ON waits.parent = blocked.id",
        (f"{_SHOWN}a_job_behind_a_batch_with_a_blocked_part_is_blocked",),
    ),
    Mutant(
        "batch: show says of a batch with a blocked part that all is well",
        "api/dependencies.py",
        "    blocked = not waiting or ",
        "    blocked = not waiting and ",
        (f"{_SHOWN}a_job_behind_a_batch_with_a_blocked_part_is_blocked",),
    ),
    Mutant(
        "batch: a mistyped name is an empty batch",
        "cli/commands/batch.py",
        "    if not batch.jobs:\n",
        "    if False:\n",
        (f"{_SHOWN}a_batch_that_nobody_has_is_an_error",),
    ),
    Mutant(
        "batch: names are sought in the column of file names",
        "index/batches.py",
        "AND batch > one) FROM found",
        "AND batch > name) FROM found",
        (f"{_SHOWN}numbers_come_from_the_sql_index_alone",),
    ),
    Mutant(
        "wait: a dead parent does not end a wait for success",
        "api/waiting.py",
        "        if self._success:\n            yield",
        "        if False:\n            yield",
        (f"{_WAIT}a_wait_for_success_ends_when_a_parent_is_dead",),
    ),
    Mutant(
        "wait: nobody is told what blocks the job",
        "api/waiting.py",
        "    if found_cause := _blocked(spool, ids):\n",
        "    if found_cause := None:\n",
        (f"{_WAIT}a_missing_parent_may_still_come",),
    ),
    Mutant(
        "wait: a missing parent ends a wait for success",
        "index/dependencies.py",
        "AND (parents.state = 'dead' OR",
        "AND (coalesce(parents.state, 'dead') = 'dead' OR",
        (f"{_WAIT}a_missing_parent_may_still_come",),
    ),
    Mutant(
        "wait: a batch is over when the jobs of its beginning are",
        "api/spool_result.py",
        "tell=tell, more=more)",
        "tell=tell)",
        (f"{_WAIT}a_wait_for_a_batch_ends_with_its_last_job",),
    ),
    Mutant(
        "wait: a job that came into a batch and died meanwhile is not told",
        "api/waiting.py",
        "where=Filter(batch=batch))]",
        'where=Filter(batch=batch, states="pending"))]',
        (f"{_WAIT}a_job_that_came_into_a_batch_and_died_meanwhile_is_told",),
    ),
    Mutant(
        "wait: a mistyped batch is over at once",
        "api/waiting.py",
        "    if not found:\n        raise JobError",
        "    if False:\n        raise JobError",
        (f"{_WAIT}a_wait_for_a_mistyped_batch_is_refused",),
    ),
    Mutant(
        "batch: nobody is told that a name was used before",
        "index/batches.py",
        "        if (finished or updated or moment) < moment\n",
        "        if False\n",
        (f"{_SHOWN}a_batch_that_was_used_yesterday_is_told",),
    ),
    Mutant(
        "batch: a run that is under way is taken for an earlier one",
        "cli/enqueue_answer.py",
        "now - _LONG_AGO",
        "now + _LONG_AGO",
        (f"{_SHOWN}a_batch_that_is_under_way_is_not_told",),
    ),
    Mutant(
        "after: a rebuild takes in a ring of dropped files",
        "intake/admission.py",
        '                self.unchecked.append(job.id or "")\n',
        "                pass\n",
        ("tests/worker/test_parents_in_trouble.py::test_a_ring_is_found_whatever_becomes_of_the_index",),
    ),
    Mutant(
        "enqueue: nobody is told that a pipeline waits for a skipped job",
        "cli/commands/enqueue_many.py",
        "[job_id for job_id in self._skipped_ids if job_id in self._parents]",
        "[]",
        ("tests/cli/test_pipelines.py::test_a_pipeline_that_waits_for_a_skipped_job_says_so",),
    ),
)
