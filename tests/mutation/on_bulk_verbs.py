"""What a person orders for many jobs at once: cancel, remove, retry, purge, replace, and filters on text."""

from __future__ import annotations

from .run import Mutant

_CANCEL = "tests/api/test_cancel_many.py::test_"
_REMOVE = "tests/api/test_remove.py::test_"
_RETRY = "tests/cli/test_retry.py::test_"
_FILTER = "tests/index/test_filter.py::test_"
_LOST = "tests/cli/test_lost_output.py::test_"
_UNIQUE = "tests/storage/test_unique_keys.py::test_"
_WHOLE = "tests/api/test_all_or_nothing.py::test_"

MANY = (
    Mutant(
        "cancel: the first in the line is given up first",
        "index/row.py",
        "row.seq or 0), reverse=True\n",
        "row.seq or 0)\n",
        (f"{_CANCEL}the_last_in_the_line_is_given_up_first",),
    ),
    Mutant(
        "cancel: what runs is ended before what waits is given up",
        "api/cancel.py",
        "        self._cancel_waiting([row for row in rows.values() if row.state in WAITING])\n        running",
        "        running",
        (f"{_CANCEL}no_waiting_job_is_started_because_those_before_it_are_given_up",),
    ),
    Mutant(
        "cancel: one request is enough, whatever runs next",
        "api/cancel.py",
        "self._asked.get(row.id) != (worker, run):",
        "row.id not in self._asked:",
        (f"{_CANCEL}the_next_run_is_asked_to_end_if_the_request_came_too_late_for_the_last",),
    ),
    Mutant(
        "cancel: the second note replaces the first",
        "control/commands.py",
        '{"runs": {**before, **runs}}',
        '{"runs": {**runs}}',
        (f"{_CANCEL}two_cancels_reach_one_worker",),
    ),
    Mutant(
        "cancel: a job that succeeded counts as cancelled",
        "api/cancel.py",
        'elif row.state == "dead" and (row.last_error or "").startswith(CANCELLED):',
        "elif True:",
        (f"{_CANCEL}a_job_that_ends_by_itself_was_not_cancelled",),
    ),
    Mutant(
        "cancel: what the disk refuses stays in dead/",
        "storage/bulk_moves.py",
        "        files.move_to_free_name(target, storage.layout.pending, row.name)\n",
        "",
        (f"{_CANCEL}a_cancel_that_the_disk_refuses_in_the_middle_leaves_the_job_waiting",),
    ),
    Mutant(
        "bulk: the disk is waited for at each job",
        "storage/rewriting.py",
        "sync=len(ready) == 1)",
        "sync=True)",
        (f"{_CANCEL}many_are_given_up_and_sent_back_with_one_wait_for_the_disk",),
    ),
    Mutant(
        "bulk: the disk is waited for after each transaction",
        "storage/rewriting.py",
        "                put(part)\n            self",
        "                put(part)\n                self._sync_names(synced, many=True)\n            self",
        ("tests/api/test_bulk_waits.py::test_many_jobs_wait_for_the_disk_no_more_often_than_one",),
    ),
    Mutant(
        "cancel: what was edited just before is written over",
        "storage/bulk_moves.py",
        "        if change.was_changed(target):\n",
        "        if False:\n",
        (f"{_CANCEL}an_edit_just_before_a_cancel_is_kept",),
    ),
    Mutant(
        "a list: the temporary names of the last batch stay",
        "api/spool_enqueue.py",
        "            for folder in litter:\n",
        "            for folder in ():\n",
        ("tests/api/test_enqueue_many.py::test_the_temporary_names_of_a_batch_are_gone_soon_after_it",),
    ),
    Mutant(
        "a list: no batch deletes the temporary names of those before it",
        "storage/enqueue_batch.py",
        "        for folder in self._to_delete:\n",
        "        for folder in ():\n",
        ("tests/api/test_enqueue_many.py::test_the_temporary_names_of_a_batch_are_gone_soon_after_it",),
    ),
    Mutant(
        "one by one: a forked copy gives out the same ids",
        "api/spool_base.py",
        "        self._templates: Templates | None = None\n",
        '        self._templates: Templates | None = getattr(self, "_templates", None)\n',
        ("tests/api/test_enqueue_many.py::test_a_forked_process_draws_its_own_ids",),
    ),
    Mutant(
        "remove: a job that was taken counts as removed",
        "api/removal.py",
        "                return False  # a worker",
        "                pass  # a worker",
        (f"{_REMOVE}job_that_a_worker_has_just_taken_is_not_said_to_be_removed",),
    ),
    Mutant(
        "remove: the row of a job that was taken goes",
        "storage/dead_letters.py",
        "            storage.index.drop_if_at(row.id, row.place, row.name)\n",
        "            storage.index.drop(row.id)\n",
        (f"{_REMOVE}job_that_a_worker_has_just_taken_is_not_said_to_be_removed",),
    ),
    Mutant(
        "remove: what a worker has of a job comes back",
        "api/removal.py",
        "                    if row.id in claimed:\n                        holders.add(claimed[row.id])\n                    elif",
        "                    if",
        (
            f"{_REMOVE}job_of_which_a_dead_worker_has_a_file_does_not_come_back",
            f"{_REMOVE}job_that_a_living_worker_is_settling_is_waited_for",
        ),
    ),
    Mutant(
        "retry: all means cancelled ones, too",
        "api/retry.py",
        '    CANCELLED: f"somebody',
        '    "-": f"somebody',
        (
            f"{_RETRY}all_leaves_out_what_somebody_cancelled",
            "tests/api/test_rows.py::test_a_filter_retries_no_job_that_somebody_has_given_up",
        ),
    ),
    Mutant(
        "retry: a dry run does not look at the file",
        "cli/commands/retry.py",
        "dry_run=dry_run, would=would)",
        "dry_run=dry_run)",
        (f"{_RETRY}a_dry_run_refuses_what_the_retry_would_refuse",),
    ),
    Mutant(
        "retry: filters take completed jobs",
        "cli/commands/retry.py",
        ', chosen=("failed", "dead"))',
        ")",
        (f"{_RETRY}filters_select_dead_and_failed_jobs",),
    ),
    Mutant(
        "filter: only the letters of ASCII have two cases",
        "index/database.py",
        "return text.casefold() if isinstance(text, str) else None",
        "return text.lower() if isinstance(text, str) else None",
        (f"{_FILTER}text_is_found_in_upper_and_lower_case_of_any_language",),
    ),
    Mutant(
        "filter: of a long error only the beginning counts",
        "api/job_files.py",
        '        whole = getattr(load(spool, row), attribute) if len(stored) >= SHOWN else ""\n',
        '        whole = ""\n',
        (f"{_FILTER}text_is_found_in_upper_and_lower_case_of_any_language",),
    ),
    Mutant(
        "output: a closed pipe ends the work",
        "cli/lost_output.py",
        "    if not _keeps_working:\n        raise error\n",
        "    raise error\n",
        (f"{_LOST}bulk_commands_go_on_without_a_reader",),
    ),
    Mutant(
        "purge: the number to keep is counted among all jobs",
        "storage/retention.py",
        " if only is None or job_id in only\n    )",
        "\n    )",
        (
            "tests/storage/test_retention.py::test_a_number_to_keep_is_counted_among_the_jobs_that_are_described",
        ),
    ),
    Mutant(
        "purge: what a worker has of a job comes back",
        "storage/retention.py",
        ' and f"{row.id}.json" not in claimed:',
        ":",
        ("tests/storage/test_retention.py::test_a_job_of_which_a_worker_has_a_file_is_not_purged",),
    ),
    Mutant(
        "unique: who replaces begins at the end of the line",
        "storage/enqueue.py",
        "    if made.supersedes:\n",
        "    if False:\n",
        (f"{_UNIQUE}a_job_that_is_replaced_again_and_again_keeps_its_place",),
    ),
    Mutant(
        "all or nothing: the files are written while others wait",
        "api/enqueue_many.py",
        "        queuing.written()  # before",
        "        pass  # before",
        (f"{_WHOLE}nobody_waits_while_the_files_are_written",),
    ),
    Mutant(
        "all or nothing: Ctrl+Z keeps others waiting",
        "api/enqueue_many.py",
        "        suspension_deferred(),\n",
        "",
        (f"{_WHOLE}nobody_waits_while_the_files_are_written",),
    ),
)
