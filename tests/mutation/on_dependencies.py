"""Jobs that wait for jobs: what keeps them waiting, and what lets them go."""

from __future__ import annotations

from .run import Mutant

_INDEX = "tests/index/test_dependencies.py::test_"
_RUN = "tests/worker/test_dependencies.py::test_"
_TREE = "tests/api/test_dependency_tree.py::test_"
_DOCTOR = "tests/doctor/test_dependencies.py::test_"
_DOWN = "tests/api/test_downstream.py::test_"

DEPENDENCIES = (
    Mutant(
        "after: the index decides alone",
        "storage/claim.py",
        "                verdict, decides = dependencies.judge(storage, job)\n",
        "                pass\n",
        (
            f"{_RUN}a_parent_put_back_before_the_child_began_is_waited_for_again",
            f"{_RUN}each_kind_of_condition_follows_the_end_of_its_parent",
        ),
    ),
    Mutant(
        "after: a parent that is gone counts as done",
        "job/conditions.py",
        "        if state == wanted:\n",
        "        if state in (wanted, None):\n",
        (f"{_INDEX}whatever_happens_to_rows_the_index_knows_who_may_start",),
    ),
    Mutant(
        "after: a parent that is moved by hand is not seen",
        "worker/upkeep.py",
        "            self._parents.look()\n",
        "            pass\n",
        (f"{_RUN}a_parent_given_up_by_hand_is_noticed_by_a_working_worker",),
    ),
    Mutant(
        "after: a job that is changed gets its place at once",
        "index/dependencies.py",
        "CREATE TRIGGER IF NOT EXISTS child_placed AFTER UPDATE OF ready_key, due, behind ON jobs\n    WHEN ",
        "CREATE TRIGGER IF NOT EXISTS child_placed AFTER UPDATE OF ready_key, due, behind ON jobs\n    WHEN 0 AND ",
        (f"{_INDEX}whatever_happens_to_rows_the_index_knows_who_may_start",),
    ),
    Mutant(
        "after: a child waits since it arrived",
        "index/dependencies.py",
        "coalesce(next_retry_at, run_at, 0), arrived, coalesce(",
        "coalesce(next_retry_at, run_at, 0), arrived, 0 * coalesce(",
        (f"{_INDEX}a_job_waits_since_its_last_parent_ended",),
    ),
    Mutant(
        "after: a parent is deleted while a child waits",
        "storage/retention.py",
        "    if runs is None or storage.index.is_needed(row):\n",
        "    if runs is None:\n",
        (f"{_RUN}old_records_are_kept_while_a_child_waits",),
    ),
    Mutant(
        "after: a parent is removed while a child waits",
        "api/removal.py",
        "        if not index.is_needed(row):\n",
        "        if True:\n",
        (f"{_RUN}a_parent_is_kept_while_a_child_waits",),
    ),
    Mutant(
        "after: a dropped file closes a ring",
        "intake/loader.py",
        "            if job.has_conditions:\n                return None",
        "            if False:\n                return None",
        (f"{_RUN}a_ring_of_dropped_files_ends_in_dead_with_its_last_file",),
    ),
    Mutant(
        "batch: the join counts as its own part",
        "index/row.py",
        "    return None if dependencies.waits_for_batch(job, job.batch) else job.batch\n",
        "    return job.batch\n",
        (f"{_RUN}a_join_waits_for_all_of_its_batch_and_is_no_part_of_it",),
    ),
    Mutant(
        "batch: a dead part is as good as a completed one",
        "index/dependencies.py",
        "        WHEN kind = 'after' THEN {dead} = 0 AND {done} >= least\n",
        "        WHEN kind = 'after' THEN {done} + {dead} >= least\n",
        (f"{_INDEX}whatever_happens_to_rows_the_index_knows_who_may_start",),
    ),
    Mutant(
        "downstream: the index forgets what dead jobs have waited for",
        "index/descendants.py",
        "        of_dead = conditions_of_dead(index) if self.dead else {}\n",
        "        of_dead: dict[str, list[tuple[str, str]]] = {}\n",
        (f"{_DOWN}all_that_a_dead_job_has_taken_with_it_come_back_in_order",),
    ),
    Mutant(
        "downstream: a job comes back before the one for which it waits",
        "index/descendants.py",
        "                    order.add(child, name)\n",
        "                    pass\n",
        ("tests/index/test_descendants.py::test_all_that_wait_for_a_job_are_found_and_come_after_it",),
    ),
    Mutant(
        "downstream: a job that somebody gave up runs again",
        "api/downstream.py",
        """        if row.state == "dead" and given_up([row]).keys() - undone:\n""",
        "        if False:\n",
        (f"{_DOWN}a_retry_undoes_a_cancel_of_the_same_jobs_and_no_other",),
    ),
    Mutant(
        "downstream: a cancel ends what may run whatever becomes of the parent",
        "index/descendants.py",
        """        only = f"AND verdict != 1 AND state IN {WAITING}" if self.waiting_only else ""\n""",
        """        only = ""\n""",
        ("tests/index/test_descendants.py::test_who_waits_no_more_is_not_behind_the_job",),
    ),
    Mutant(
        "downstream: a removal does not ask",
        "cli/commands/remove.py",
        "    if selected and not dry_run and not (ids and len(selected) == named):\n",
        "    if selected and not dry_run and not ids:\n",
        ("tests/cli/test_dependencies.py::test_a_removal_asks_before_it_takes_more_than_was_named",),
    ),
    Mutant(
        "stats: a job that was not run counts",
        "worker/maintenance.py",
        "    job.finished_at, job.next_retry_at = None, None\n",
        "    job.finished_at, job.next_retry_at = storage.now(), None\n",
        (f"{_RUN}a_job_that_was_not_run_counts_in_no_statistics",),
    ),
    Mutant(
        "after: each job that does not run waits for the disk",
        "worker/maintenance.py",
        "    if settle(storage, claim, state, pool):\n",
        "    if settle(storage, claim, state):\n",
        (f"{_RUN}jobs_that_do_not_run_share_their_waits_for_the_disk",),
    ),
    Mutant(
        "after: a job that runs after all says that it was not run",
        "job/record.py",
        "self.output = self.worker = self.not_run = None\n",
        "self.output = self.worker = None\n",
        (f"{_RUN}a_job_that_was_not_run_counts_in_no_statistics",),
    ),
    Mutant(
        "tree: a job that is reached twice is opened twice",
        "api/dependency_tree.py",
        "                if name in seen:\n",
        "                if False:\n",
        (f"{_TREE}both_trees_go_all_the_way",),
    ),
    Mutant(
        "tree: it has no bottom",
        "api/dependency_tree.py",
        "found[: 0 if depth >= DEEP else min(SIDE_BY_SIDE, left)]",
        "found[: min(SIDE_BY_SIDE, left)]",
        (f"{_TREE}a_chain_is_cut_where_it_gets_too_deep",),
    ),
    Mutant(
        "tree: what keeps a job waiting is among those that are left out",
        "api/dependency_tree.py",
        "        order = sorted(range(len(every)), key=is_met)\n",
        "        order = range(len(every))\n",
        (f"{_TREE}a_tree_of_ten_thousand_parents_fits_on_a_screen",),
    ),
    Mutant(
        "after: a job that was completed without a run is put back beside itself",
        "job/record.py",
        " and not self._was_left_out_after(earlier)",
        "",
        (
            "tests/storage/test_recovery.py::test_a_copy_of_a_job_that_was_completed_without_a_run_is_void",
            "tests/faults/test_crash_points.py::test_dying_at_any_step_loses_and_doubles_nothing[run-family]",
        ),
    ),
    Mutant(
        "doctor: a job that waits for others is taken for drift",
        "doctor/index_check.py",
        "    if row.conditions is not None and not row.held:\n",
        "    if False:\n",
        (f"{_DOCTOR}a_job_that_waits_for_others_is_no_fault",),
    ),
    Mutant(
        "doctor: an index that lets a job go too early is right",
        "doctor/index_check.py",
        "            return place == other\n",
        "            return True\n",
        (f"{_DOCTOR}an_index_that_lets_the_wrong_jobs_go_is_noticed",),
    ),
    Mutant(
        "doctor: a ring is not found",
        "doctor/dependencies.py",
        "    yield from _rings(case)\n",
        "",
        (f"{_DOCTOR}a_ring_that_no_claim_has_found_is_told",),
    ),
    Mutant(
        "doctor: a ring through a batch is not found",
        "index/waits.py",
        """            named.setdefault(batch, {})[job_id] = ""\n""",
        "            pass\n",
        (f"{_DOCTOR}a_ring_that_no_claim_has_found_is_told",),
    ),
    Mutant(
        "doctor: a lock file that was deleted counts",
        "doctor/worker_remains.py",
        "                if link.startswith(begin) and link.endswith(_DELETED):\n",
        "                if False:\n",
        (f"{_DOCTOR}a_run_that_no_limit_counts_any_more_is_told",),
    ),
    Mutant(
        "downstream: all waiting jobs are read again and again",
        "index/descendants.py",
        "FROM waits CROSS JOIN jobs",
        "FROM waits JOIN jobs",
        ("tests/index/test_descendants.py::test_the_search_reads_no_job_that_waits_for_something_else",),
    ),
    Mutant(
        "after: an option with an empty text is no option",
        "cli/options.py",
        "split() or [value]]",
        "split() or []]",
        ("tests/cli/test_dependencies.py::test_an_empty_parent_is_refused",),
    ),
    Mutant(
        "after: dead/ is not looked at while somebody changes done/",
        "worker/parent_scan.py",
        "                yield from self._intake.scan(place)\n",
        "                yield from self._intake.scan(place)\n                break\n",
        ("tests/worker/test_parent_scan.py::test_a_parent_in_dead_is_found_while_somebody_changes_done",),
    ),
    Mutant(
        "after: set lets a job wait for one that does not exist",
        "storage/edit_pending.py",
        "            dependencies.refuse_unknown(storage, wanted, before=job)\n",
        "",
        ("tests/cli/test_dependencies.py::test_set_changes_what_a_job_waits_for",),
    ),
    Mutant(
        "after: the hint at a child names a field that it does not have",
        "api/removal.py",
        'f"queuectl set {child} {field}="',
        'f"queuectl set {child} after="',
        ("tests/cli/test_dependencies.py::test_the_hint_at_what_keeps_a_parent_lets_it_go",),
    ),
)
