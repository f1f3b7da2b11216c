"""What a program relies on that uses queuectl from Python."""

from __future__ import annotations

from .run import Mutant

_SHARED = "tests/api/test_shared_spool.py::test_"

PYTHON = (
    Mutant(
        "python: two threads are in one connection of SQLite",
        "api/spool_base.py",
        "        with self._lock:\n            return method(self, *args, **kwargs)\n",
        "        return method(self, *args, **kwargs)\n",
        (f"{_SHARED}eight_threads_share_a_spool_and_each_gets_its_own_answers",),
    ),
    Mutant(
        "python: a forked process uses the connection and the lock of its parent",
        "api/spool_base.py",
        "            spool._connect(spool._index.boot)\n",
        "            pass\n",
        (f"{_SHARED}a_forked_process_goes_on_with_the_spool_of_its_parent",),
    ),
    Mutant(
        "python: a Spool refers to itself",
        "api/spool_base.py",
        "        self._storage.refresh = _weakly(self, SpoolBase._mirror)\n",
        "        self._storage.refresh = self._mirror\n",
        (f"{_SHARED}a_forgotten_spool_closes_its_files_without_the_garbage_collector",),
    ),
    Mutant(
        "python: a progress function keeps its Spool alive",
        "api/spool_base.py",
        "            raise\n        finally:\n            self._intake.report = None\n",
        "            raise\n        finally:\n            pass\n",
        (f"{_SHARED}a_forgotten_spool_closes_its_files_without_the_garbage_collector",),
    ),
    Mutant(
        "python: the source of a stream is read under the lock",
        "api/spool_enqueue.py",
        "                jobs, failure = prepare_batch(source, common, self._job_defaults(), BATCH)\n",
        "                with self._lock:\n                    jobs, failure = prepare_batch(source, common, self._job_defaults(), BATCH)\n",
        (f"{_SHARED}the_source_of_a_stream_may_wait_for_another_thread",),
    ),
    Mutant(
        "python: an error is pickled by its message alone",
        "errors.py",
        "    def __reduce__(self)",
        "    def _reduce(self)",
        ("tests/test_errors.py::test_an_error_reaches_another_process_with_its_fields",),
    ),
    Mutant(
        "python: a function for events gets the record itself",
        "worker/events.py",
        "        seen = copy.copy(job)  #",
        "        seen = job  #",
        ("tests/worker/test_events.py::test_what_the_function_does_touches_no_job",),
    ),
    Mutant(
        "python: one id is taken for several of one letter",
        "api/listing.py",
        "    if isinstance(ids, str | bytes):\n",
        "    if False:\n",
        ("tests/api/test_rows.py::test_one_id_is_not_several",),
    ),
    Mutant(
        "python: the index's microseconds are handed out",
        "api/row.py",
        "    return None if micros is None else micros / 1e6\n",
        "    return micros\n",
        ("tests/api/test_rows.py::test_a_row_says_what_the_job_says",),
    ),
    Mutant(
        "python: a mistyped keyword is a field of its own",
        "api/spool_enqueue.py",
        "    job_fields.refuse_unknown(call, fields, job_fields.NAMES)\n",
        "",
        ("tests/api/test_python_values.py::test_a_mistyped_keyword_is_a_type_error",),
    ),
    Mutant(
        "python: a job of a deleted folder runs at home",
        "api/enqueue.py",
        '        raise InvalidJob("the current folder was deleted; give an absolute path", field="cwd") from None\n',
        "        return path\n",
        ("tests/api/test_python_values.py::test_jobs_of_a_deleted_folder_are_refused",),
    ),
    Mutant(
        "python: a text is a list of states",
        "index/filter.py",
        "    found = (value,) if isinstance(value, kind) else tuple(value)\n",
        "    found = tuple(value)\n",
        ("tests/index/test_filter_values.py::test_one_value_is_one_and_a_moment_may_be_a_datetime",),
    ),
    Mutant(
        "python: what a program prints of a job has its secrets",
        "job/record.py",
        '        shown = masked(fields, KNOWN) | masked({"command": self.command})\n',
        "        shown = fields\n",
        ("tests/api/test_python_values.py::test_what_a_program_prints_of_a_job_has_no_secrets",),
    ),
    Mutant(
        "pages: of jobs that ended in one moment, some are left out",
        "index/paging.py",
        '    "finished": _Order(("finished_at", "seq"), ',
        '    "finished": _Order(("finished_at",), ',
        ("tests/api/test_paging.py::test_pages_make_up_the_list",),
    ),
    Mutant(
        "pages: jobs without a time of their end are left out",
        "index/paging.py",
        "    if order.rest is None:\n",
        "    if True:\n",
        ("tests/api/test_paging.py::test_pages_make_up_the_list",),
    ),
    Mutant(
        "pages: a search goes on however long it takes",
        "api/paging.py",
        "        if part.reached is not None and is_time_up():\n",
        "        if False:\n",
        (
            "tests/api/test_paging.py::test_a_search_that_finds_nothing_ends_when_the_patience_does_and_goes_on",
        ),
    ),
)
