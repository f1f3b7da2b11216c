"""Who may use a spool while it is in use, what a history says, and what a worker sees to beside its jobs."""

from __future__ import annotations

from .run import Mutant

_GUARD = "tests/control/test_permissions.py::test_"
_FOREIGN = "tests/storage/test_foreign_files.py::test_"
_MOUNTS = "tests/control/test_mounts.py::test_"
_READING = "tests/api/test_reading.py::test_"
_EXAMINATION = "tests/doctor/test_examination.py::test_"
_HISTORY = "tests/job/test_history.py::test_"
_CHORES = "tests/worker/test_maintenance.py::test_"
_POOL = "tests/worker/test_pool.py::test_"
_STATES = "tests/faults/test_found_by_states.py::test_"
_ONE_ID = "tests/storage/test_one_id.py::test_"
_DISK = "tests/faults/test_disk_errors.py::test_"

TRUST = (
    Mutant(
        "guard: one look at the start will do",
        "control/mounts.py",
        "    return lambda: safe.look() or obstacle(layout)\n",
        "    return lambda: obstacle(layout)\n",
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
        "api/spool_enqueue.py",
        "        access.refuse_others(self.layout)\n        self.layout.create()\n",
        "        self.layout.create()\n",
        (f"{_GUARD}root_hands_nothing_to_workers_who_cannot_read_it[enqueue true]",),
    ),
    Mutant(
        "guard: who may write a job file does not matter",
        "system/safe_open.py",
        "    if status.st_mode & OTHERS_WRITE and",
        "    if False and",
        (f"{_GUARD}a_job_file_that_others_may_write_is_not_run[new-0o666]",),
    ),
    Mutant(
        "guard: a job file stays as it was taken in",
        "storage/claim.py",
        "        safe_open.refuse_untrusted(f",
        "        str(f",
        (f"{_GUARD}a_job_file_that_others_may_write_is_not_run[known-0o666]",),
    ),
    Mutant(
        "reading: root writes wherever it looks",
        "api/access.py",
        "        permissions.refuse_links(layout)\n        return True\n",
        "        permissions.refuse_links(layout)\n",
        (f"{_READING}root_reads_another_users_spool_and_changes_nothing",),
    ),
    Mutant(
        "reading: links of a hostile owner are followed",
        "api/access.py",
        "        permissions.refuse_links(layout)\n        return True\n",
        "        return True\n",
        (f"{_READING}a_folder_that_is_a_link_is_not_read[pending]",),
    ),
    Mutant(
        "reading: a mistyped spool is made",
        "api/access.py",
        "    if not layout.exists():\n        return True\n",
        "",
        (f"{_READING}a_mistyped_spool_is_not_made_by_looking[list]",),
    ),
    Mutant(
        "index: written through a second name",
        "index/database.py",
        "    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1\n",
        "    return stat.S_ISREG(status.st_mode)\n",
        (f"{_EXAMINATION}a_second_name_of_the_index_is_not_written",),
    ),
    Mutant(
        "doctor: an examination opens the index as every command does",
        "index/peek.py",
        "        if in_use:\n",
        "        if True:\n",
        (f"{_EXAMINATION}the_journal_of_a_killed_process_is_read_and_left",),
    ),
    Mutant(
        "mounts: a worker starts on a spool that takes no outcome",
        "control/mounts.py",
        '        raise WorkerError(f"cannot run jobs',
        '        str(f"cannot run jobs',
        (f"{_MOUNTS}a_folder_mounted_on_its_own_is_refused_by_all_in_one_sentence[bind]",),
    ),
    Mutant(
        "mounts: only another disk counts",
        "control/mounts.py",
        "if is_elsewhere else files.refused_rename(layout.root, path)",
        "if is_elsewhere else None",
        (f"{_MOUNTS}a_folder_mounted_on_its_own_is_refused_by_all_in_one_sentence[bind]",),
    ),
    Mutant(
        "mounts: what could not be recorded is forgotten",
        "worker/settle_batch.py",
        "            run_lock.note_ended(",
        "            (lambda *_: None)(",
        (f"{_MOUNTS}a_worker_that_can_record_nothing_stops_when_asked[EXDEV]",),
    ),
    Mutant(
        "recovery: a run is known by the path of its spool",
        "storage/orphaned_runs.py",
        "    left = _ended(left, [orphaned_tree(one.by_id, None, _GRACE, one.session, look) for one in left])\n",
        "",
        (f"{_MOUNTS}a_run_is_known_by_whatever_path_the_spool_is_reached",),
    ),
    Mutant(
        "pool: a file of any mode is recycled",
        "storage/file_pool.py",
        "status.st_mode & _ACCESS == _AS_MADE or",
        "True or",
        (f"{_FOREIGN}a_job_that_opens_its_own_file_opens_that_of_no_other[666]",),
    ),
    Mutant(
        "output: a file that was moved away is still the worker's",
        "executor/capture.py",
        "not status.st_size and status.st_ctime_ns != changed",
        "False",
        (f"{_FOREIGN}output_is_kept_after_somebody_has_moved_the_file_away",),
    ),
    Mutant(
        "boot: the mark is opened whatever it is",
        "storage/power_loss.py",
        "        return safe_open.read_regular(path, _MARK_LIMIT)[0].decode()\n",
        "        return open(path).read()\n",
        ("tests/control/test_odd_files.py::test_an_odd_mark_of_the_boot_holds_no_worker_up",),
    ),
    Mutant(
        "output: it is cut through a link",
        "executor/capture.py",
        "        size = os.lstat(path).st_size\n        if size <= limit + len(note):\n            return size\n        fd = os.open(path, files.OVERWRITE)\n",
        "        size = os.stat(path).st_size\n        if size <= limit + len(note):\n            return size\n        fd = os.open(path, os.O_WRONLY)\n",
        (f"{_FOREIGN}output_is_cut_through_no_link",),
    ),
    Mutant(
        "pool: a file with a second name is recycled",
        "storage/file_pool.py",
        "    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_private:\n",
        "    if stat.S_ISREG(status.st_mode) and is_private:\n",
        (f"{_FOREIGN}a_snapshot_of_links_stays_as_it_was",),
    ),
    Mutant(
        "settle: whatever has the name is the claimed file",
        "storage/settle.py",
        "        claim.replaced_by = left.st_ino\n",
        "        pass\n",
        (f"{_FOREIGN}a_job_that_replaces_its_own_file_is_recorded_as_a_file[folder]",),
    ),
    Mutant(
        "output: written through a link",
        "executor/capture.py",
        "        _delete_if_shared(path)\n",
        "",
        (f"{_FOREIGN}a_second_name_in_place_of_the_output_is_deleted_first",),
    ),
    Mutant(
        "recovery: a copy of an ended job runs again",
        "storage/locate.py",
        "            if is_outcome or is_later(other, claimed, but):\n",
        "            if is_later(other, claimed, but):\n",
        (f"{_FOREIGN}a_copy_of_an_ended_job_in_a_dead_workers_folder_is_void[done]",),
    ),
    Mutant(
        "doctor: a repair reaches outside",
        "doctor/environment.py",
        "            inside = inside and _is_the_spools(case.layout, path)\n",
        "",
        (f"{_FOREIGN}a_repair_reaches_nothing_outside_the_spool[linked_settings]",),
    ),
    Mutant(
        "pool: the files of a linked folder are deleted",
        "storage/power_loss.py",
        "        if os.path.islink(folder):\n",
        "        if False:\n",
        (f"{_FOREIGN}a_repair_reaches_nothing_outside_the_spool[linked_pool]",),
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
        (f"{_STATES}a_copy_that_came_later_never_gets_the_id_of_a_job_that_is_read_with_care",),
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
        "            recovery.clear_dead_workers(self._layout, self._index, self._say_once, mine=worker)\n",
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
