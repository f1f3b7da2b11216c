"""Who may use a spool while it is in use, what a history says, and what a worker sees to beside its jobs."""

from __future__ import annotations

from .run import Mutant

_GUARD = "tests/control/test_permissions.py::test_"
_HISTORY = "tests/job/test_history.py::test_"
_CHORES = "tests/worker/test_maintenance.py::test_"
_POOL = "tests/worker/test_pool.py::test_"
_ONE_ID = "tests/storage/test_one_id.py::test_"
_DISK = "tests/faults/test_disk_errors.py::test_"

TRUST = (
    Mutant(
        "guard: one look at the start will do",
        "worker/worker.py",
        "self._tell_readiness, safe.look, self._pause.look,",
        "self._tell_readiness, lambda: None, self._pause.look,",
        (f"{_GUARD}a_spool_opened_under_its_workers_stops_them[group]",),
    ),
    Mutant(
        "guard: folders above are not watched",
        "control/permissions.py",
        "in (*self.above, *self.within, *claims):",
        "in (*self.within, *claims):",
        (f"{_GUARD}a_spool_opened_under_its_workers_stops_them[above]",),
    ),
    Mutant(
        "guard: root hands jobs to anybody",
        "api/spool.py",
        "        self.layout.create()\n        self._refuse_root()\n",
        "        self.layout.create()\n",
        (f"{_GUARD}root_hands_nothing_to_workers_who_cannot_read_it[enqueue true]",),
    ),
    Mutant(
        "history: without an end",
        "job/record.py",
        "        if surplus > 0:\n",
        "        if False:\n",
        (f"{_HISTORY}the_first_and_the_last_runs_are_kept_and_the_rest_is_counted",),
    ),
    Mutant(
        "history: what was left out is not counted",
        "job/record.py",
        "        return len(self.history) + self.history_left_out\n",
        "        return len(self.history)\n",
        (f"{_HISTORY}run_numbers_go_on_past_the_bound",),
    ),
    Mutant(
        "history: an error of any length",
        "job/outcome.py",
        "error if len(error) <= _ERROR_KEPT else",
        "error if True else",
        (f"{_HISTORY}what_a_run_has_to_say_is_bounded_too",),
    ),
    Mutant(
        "enqueue: what runs is said to be refused",
        "storage/enqueue.py",
        "    if left:\n        raise QueuedUnsafely",
        "    if False:\n        raise QueuedUnsafely",
        (f"{_DISK}what_a_worker_took_before_the_disk_refused_is_not_said_to_be_refused[one]",),
    ),
    Mutant(
        "enqueue: damage found on the way is fatal",
        "storage/locate.py",
        "    except sqlite3.Error as error:\n        storage.index.broken",
        "    except ZeroDivisionError as error:\n        storage.index.broken",
        ("tests/index/test_index.py::test_damage_in_the_middle_of_an_enqueue_costs_nothing",),
    ),
    Mutant(
        "index: anything is a row",
        "index/queries.py",
        "    if shape not in _shapes:\n",
        "    if False:\n",
        ("tests/index/test_index.py::test_an_invalid_row_is_damage_and_ends_no_worker",),
    ),
    Mutant(
        "index: anything is a moment",
        "index/queries.py",
        "None if found[1] is None else _number(found[1])",
        "found[1]",
        ("tests/index/test_index.py::test_an_invalid_due_time_is_damage",),
    ),
    Mutant(
        "stop: the name is enough",
        "worker/stopping.py",
        "or asked.process is None or not asked.process.is_running()",
        "or True",
        (f"{_POOL}stop_waits_for_the_process_and_not_for_its_name",),
    ),
    Mutant(
        "id: a stranger may be first",
        "intake/loader.py",
        '        if job_id != name[: -len(".json")] and holds_id(',
        "        if False and holds_id(",
        (f"{_ONE_ID}of_two_files_seen_at_once_the_one_called_by_the_id_is_the_job",),
    ),
    Mutant(
        "read: refused once is refused for good",
        "intake/dropped_file.py",
        "isinstance(error, PermissionError) and not os.access(path, os.R_OK)",
        "isinstance(error, PermissionError)",
        (f"{_DISK}a_file_that_could_not_be_read_once_is_not_given_up",),
    ),
    Mutant(
        "chores: young leftovers go too",
        "worker/maintenance.py",
        "now - touched > STALE\n",
        "now - touched > 1\n",
        (f"{_CHORES}workers_sweep_what_killed_producers_left_a_day_ago",),
    ),
    Mutant(
        "chores: anything goes",
        "worker/maintenance.py",
        "            if is_batch or files.is_temporary_name(entry.name):\n",
        "            if True:\n",
        (f"{_CHORES}workers_sweep_what_killed_producers_left_a_day_ago",),
    ),
    Mutant(
        "chores: once in memory, always",
        "worker/maintenance.py",
        "        self._return_to_file(now)\n",
        "",
        (f"{_CHORES}a_worker_returns_to_the_file_when_it_can_be_kept_again",),
    ),
    Mutant(
        "chores: the file knows all",
        "index/freshness.py",
        "            self._unconfirmed.update((PENDING, DONE, DEAD))\n",
        "            pass\n",
        (f"{_CHORES}what_was_moved_meanwhile_is_found_when_it_returns",),
    ),
    Mutant(
        "chores: the dead have told all, beside us",
        "worker/maintenance.py",
        "            recovery.clear_dead_workers(self._layout, self._index, mine=worker)\n",
        "",
        (f"{_CHORES}the_last_move_of_a_worker_that_died_is_found[lives beside it]",),
    ),
    Mutant(
        "chores: the dead have told all, before us",
        "worker/maintenance.py",
        "            recovery.distrust_if_rebuilt(self._index, died_at_start)\n",
        "            pass\n",
        (f"{_CHORES}the_last_move_of_a_worker_that_died_is_found[takes its name]",),
    ),
    Mutant(
        "chores: no doubt",
        "worker/maintenance.py",
        "                self._index.mark_stale(PENDING)\n",
        "                pass\n",
        (f"{_CHORES}a_job_that_the_index_lost_runs_in_the_end",),
    ),
    Mutant(
        "chores: damage shows when it shows",
        "worker/maintenance.py",
        "        self._check_index()\n",
        "",
        (f"{_CHORES}a_worker_that_starts_finds_damage",),
    ),
)
"""What stands between a spool and those who mean it no good, or no harm."""
