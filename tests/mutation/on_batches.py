"""Pipelines and batches: what is checked before the first job is queued, and what people are told of a batch."""

from __future__ import annotations

from .run import Mutant

_INPUT = "tests/cli/test_pipelines.py::test_"

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
        "size = None if isinstance(jobs, list | tuple) else BATCH",
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
)
