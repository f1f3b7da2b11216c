"""Who holds what, who is who, and how runs end."""

from __future__ import annotations

from .run import Mutant

_RECOVER = "tests/storage/test_recovery.py::test_"
_INDEX = "tests/index/test_index.py::test_"
_RACES = "tests/faults/test_claim_races.py::test_"
_RUNNER = "tests/executor/test_local.py::test_"
_POOL = "tests/worker/test_pool.py::test_"
_BOUNDS = "tests/worker/test_bounds.py::test_"

LOCKS = (
    Mutant(
        "lock: nobody ever holds one",
        "system/locks.py",
        "        lock = Lock.on_read_only_file(path)\n    if lock is None:\n        return True\n",
        "        lock = Lock.on_read_only_file(path)\n    if lock is None:\n        return False\n",
        (f"{_POOL}start_stop_and_list_agree_from_different_folders",),
    ),
    Mutant(
        "lock: everybody gets it",
        "system/locks.py",
        "            while not _take(fd):",
        "            while False:",
        (
            "tests/config/test_settings.py::test_twenty_sets_at_once_all_take_effect",
            f"{_POOL}start_stop_and_list_agree_from_different_folders",
        ),
    ),
    Mutant(
        "lock: a living worker is taken for dead",
        "storage/recovery.py",
        '            lock = Lock.acquire(layout.worker_file(worker, "lock"))',
        '            lock = Lock.acquire(layout.worker_file(worker, "other"))',
        ("tests/control/test_identity.py::test_either_lock_of_a_living_worker_keeps_its_job",),
    ),
    Mutant(
        "lock: the lock of a folder says nothing",
        "storage/recovery.py",
        "                    if is_folder_locked(layout.claims(worker)):\n                        continue",
        "                    if False:\n                        continue",
        ("tests/control/test_identity.py::test_either_lock_of_a_living_worker_keeps_its_job",),
    ),
    Mutant(
        "lock: a worker does not hold its folder",
        "control/registry.py",
        "            self._folder = Lock.on_folder(path)\n",
        "            pass\n",
        ("tests/control/test_identity.py::test_either_lock_of_a_living_worker_keeps_its_job",),
    ),
    Mutant(
        "lock: a deleted lock file is not made again",
        "control/registry.py",
        "        if not self._lock.is_on(path):\n",
        "        if False:\n",
        ("tests/control/test_identity.py::test_a_deleted_lock_file_is_made_and_held_again",),
    ),
    Mutant(
        "lock: the run lock says nothing",
        "storage/recovery.py",
        " and not is_locked(lock)",
        "",
        ("tests/faults/test_processes.py::test_a_run_that_cannot_be_found_is_waited_for",),
    ),
    Mutant(
        "lock: who holds the run lock is not ended",
        "storage/recovery.py",
        " and terminate_lock_holders(lock, _GRACE)",
        "",
        ("tests/control/test_identity.py::test_a_run_without_marks_is_found_by_its_lock",),
    ),
    Mutant(
        "lock: a job does not hold the run lock",
        "executor/spawn.py",
        "        os.set_inheritable(attempt.lock_fd, True)\n",
        "        pass\n",
        ("tests/faults/test_processes.py::test_a_run_that_cannot_be_found_is_waited_for",),
    ),
    Mutant(
        "lock: a job without a shell does not hold it",
        "executor/spawn.py",
        "() if attempt.lock_fd is None else (attempt.lock_fd,)",
        "()",
        (f"{_RUNNER}the_lock_is_inherited_and_nothing_else",),
    ),
    Mutant(
        "lock: the old run is not ended",
        "storage/recovery.py",
        "terminate_tree(marks, None, _GRACE) and",
        "",
        ("tests/control/test_identity.py::test_a_run_without_its_lock_is_found_by_its_marks",),
    ),
    Mutant(
        "lock: nobody asks about the old run",
        "storage/recovery.py",
        "    if not end_run(layout, job, worker, known):",
        "    if False:",
        (f"{_RECOVER}the_old_run_is_over_before_the_new_one_begins",),
    ),
    Mutant(
        "lock: a background child of another run is ended",
        "storage/recovery.py",
        "            return True\n        marks[",
        "            pass\n        marks[",
        ("tests/control/test_identity.py::test_a_run_without_its_lock_is_found_by_its_marks",),
    ),
    Mutant(
        "lock: the name of an orphaned run is taken",
        "control/registry.py",
        "if lock is not None and _is_in_use(layout, name):",
        "if False:",
        ("tests/faults/test_processes.py::test_a_run_that_cannot_be_found_is_waited_for",),
    ),
    Mutant(
        "lock: settings are changed without one",
        "config/settings.py",
        "        lock = Lock.acquire(lock_path, patience=_LOCK_TIMEOUT)\n",
        "        lock = Lock.acquire(lock_path + str(os.getpid()), patience=_LOCK_TIMEOUT)\n",
        ("tests/config/test_settings.py::test_twenty_sets_at_once_all_take_effect",),
    ),
    Mutant(
        "lock: let go of by closing only",
        "system/locks.py",
        "        unlock_descriptor(self.fd)\n        os.close(self.fd)\n",
        "        os.close(self.fd)\n",
        ("tests/control/test_identity.py",),
    ),
    Mutant(
        "lock: all restore at once",
        "storage/power_loss.py",
        'lock = Lock.acquire(os.path.join(layout.data, "restore.lock"), patience=60)',
        'lock = Lock.acquire(os.path.join(layout.data, f"restore.{os.getpid()}"), patience=60)',
        ("tests/storage/test_power_loss.py::test_one_process_restores_at_a_time",),
    ),
    Mutant(
        "lock: all scan at once",
        "worker/scan_scheduler.py",
        "        self._lock = self._lock or Lock.acquire(self._lock_path)\n",
        "        self._lock = self._lock or Lock.acquire(self._lock_path + str(os.getpid()))\n",
        (f"{_RACES}five_hundred_jobs_over_two_pools_run_once_each",),
        equal="each file is taken in within a transaction that looks anew; the lock only saves the work",
    ),
    Mutant(
        "lock: the drop folder is emptied by all at once",
        "worker/scan_scheduler.py",
        "        lock = Lock.acquire(self._lock_path)\n        if lock is not None:\n            try:\n                drops",
        "        lock = Lock.acquire(self._lock_path + str(os.getpid()))\n        if lock is not None:\n            try:\n                drops",
        ("tests/intake/test_drop_folder.py::test_a_running_worker_takes_them_within_moments",),
        equal="queueing an id twice is refused by the transaction; the lock only saves the work",
    ),
)
"""Who holds what."""

IDENTITY = (
    Mutant(
        "boot: the index of another boot is believed",
        "index/database.py",
        'self.meta("schema") == SCHEMA and self.meta("boot") == self.boot',
        'self.meta("schema") == SCHEMA',
        (f"{_INDEX}an_index_from_before_the_boot_is_rebuilt",),
    ),
    Mutant(
        "boot: held files of this boot are restored",
        "storage/power_loss.py",
        "(found := _FOLDER.fullmatch(name)) and found[2] not in (None, short(boot))",
        "(found := _FOLDER.fullmatch(name)) and found[2]",
        ("tests/storage/test_power_loss.py",),
    ),
    Mutant(
        "boot: held files of another boot are swept",
        "storage/power_loss.py",
        "found[1] == worker and found[2] in (None, short(boot))",
        "found[1] == worker",
        ("tests/storage/test_power_loss.py",),
    ),
    Mutant(
        "boot: a process of another boot is ours",
        "system/process.py",
        "        if self.boot != boot_id():\n            return False\n",
        "",
        ("tests/control/test_identity.py", f"{_POOL}a_stranger_in_a_worker_record_is_left_alone"),
    ),
    Mutant(
        "pid: a number is enough",
        "system/process.py",
        "started is not None and abs(started - self.started) < 0.05",
        "started is not None",
        ("tests/control/test_identity.py::test_a_process_of_another_boot_is_gone",),
    ),
    Mutant(
        "pid: signals go without a look",
        "system/process.py",
        "            if not self.is_running():\n                return False\n            signal",
        "            signal",
        ("tests/control/test_identity.py::test_a_process_that_is_not_the_one_meant_gets_no_signal",),
    ),
    Mutant(
        "note: any stop note counts",
        "control/commands.py",
        'if note.get("pid") == me.pid and note.get("process_started") == me.started:',
        "if note:",
        ("tests/control/test_identity.py", f"{_POOL}a_stop_is_not_undone_by_the_next_start"),
    ),
    Mutant(
        "note: a number is enough",
        "control/commands.py",
        ' and note.get("process_started") == me.started:',
        ":",
        ("tests/control/test_identity.py",),
    ),
    Mutant(
        "note: any cancel note counts",
        "control/commands.py",
        'note.get("job") == job_id and ',
        "",
        ("tests/control/test_identity.py",),
    ),
    Mutant(
        "marks: one is enough",
        "system/process_tree.py",
        "all(environ.get(name) == value",
        "any(environ.get(name) == value",
        ("tests/control/test_identity.py::test_a_run_with_other_marks_is_left_in_peace",),
    ),
    Mutant(
        "marks: none are looked for",
        "system/process_tree.py",
        'if marks and _has_marks(one.info["environ"], marks)',
        "if False",
        (f"{_RUNNER}a_dead_workers_run_is_found_and_ended",),
    ),
    Mutant(
        "marks: a leader's number is trusted",
        "system/process_tree.py",
        "        if is_child or session & found:\n",
        "        if True:\n",
        (f"{_RUNNER}a_number_that_belongs_to_somebody_else_is_left_in_peace",),
    ),
)
"""Who is who."""

ENDS = (
    Mutant(
        "end: no KILL after the grace time",
        "system/process_tree.py",
        "        elif now >= self._kill_at:\n",
        "        elif False:\n",
        (f"{_RUNNER}a_job_that_ignores_term_is_killed_after_the_grace_time",),
    ),
    Mutant(
        "end: no CONT",
        "system/process_tree.py",
        "        self._signal_group(signal.SIGCONT)\n        self._send(self._outside, signal.SIGCONT)\n",
        "",
        (f"{_RUNNER}a_stopped_job_ends_too",),
    ),
    Mutant(
        "end: no TERM",
        "system/process_tree.py",
        "        self._signal_group(signal.SIGTERM)\n",
        "",
        (f"{_RUNNER}a_job_gets_its_grace_time_and_one_term",),
    ),
    Mutant(
        "end: who ended during the search was ended by us",
        "executor/local.py",
        "        if self._has_ended_itself():\n            return\n        self._ignores_term",
        "        self._ignores_term",
        (f"{_RUNNER}a_job_that_ends_during_the_search_for_its_processes_keeps_its_result",),
    ),
    Mutant(
        "end: a success in spite of TERM is a stop",
        "executor/local.py",
        "        if code == 0 and self._ignores_term and",
        "        if False and",
        (f"{_RUNNER}a_job_that_ignores_the_wish_and_ends_well_is_done",),
    ),
    Mutant(
        "end: only the group",
        "system/process_tree.py",
        "        self._send(self._tree, _KILL)\n\n",
        "\n",
        ("tests/control/test_identity.py::test_what_left_the_group_and_ignores_term_is_killed",),
    ),
    Mutant(
        "end: no second look",
        "system/process_tree.py",
        "            self._tree = self._find()\n            if not self._tree:\n                self._signal_group(_KILL)\n                return True\n",
        "            return True\n",
        (f"{_RUNNER}a_child_born_of_the_term_handler_ends_too",),
    ),
    Mutant(
        "end: no session of its own",
        "executor/spawn.py",
        "        setsid=True,\n",
        "",
        ("tests/control/test_identity.py::test_a_job_that_kills_its_group_ends_itself_only",),
    ),
    Mutant(
        "end: no timeout",
        "executor/local.py",
        "        self._deadline = began + attempt.timeout if attempt.timeout else None\n",
        "        self._deadline = None\n",
        ("tests/worker/test_job_run.py::test_timeout_of_its_own_is_worded_plainly",),
    ),
    Mutant(
        "end: a lost exit code is a success",
        "executor/spawn.py",
        "            return self._ended(None)\n",
        "            return self._ended(0)\n",
        (f"{_RUNNER}a_lost_exit_code_is_not_called_a_success",),
    ),
    Mutant(
        "end: a flood is not cut",
        "executor/local.py",
        "            is_near_limit |= cut(path, limit) > limit // 4\n",
        "            pass\n",
        (f"{_RUNNER}a_flood_of_output_stays_in_bounds",),
    ),
    Mutant(
        "end: descriptors of the worker are inherited",
        "worker/process.py",
        "    process.keep_descriptors_private()\n",
        "",
        (f"{_POOL}a_job_inherits_nothing_of_its_worker",),
    ),
    Mutant(
        "crash: no limit of deaths",
        "job/outcome.py",
        '    if job.on_crash == "dead" or job.crashes >= limit:',
        '    if job.on_crash == "dead":',
        (f"{_RECOVER}a_job_that_kills_its_workers_is_given_up",),
    ),
    Mutant(
        "crash: deaths far apart add up",
        "job/outcome.py",
        "        job.crashes = 0\n",
        "",
        (f"{_RECOVER}deaths_far_apart_do_not_add_up",),
    ),
    Mutant(
        "crash: a death is an attempt",
        "job/outcome.py",
        "    job.crashes += 1\n",
        "    job.crashes += 1\n    job.attempts += 1\n",
        ("tests/worker/test_retry.py::test_death_of_a_worker_costs_no_attempt",),
    ),
    Mutant(
        "crash: what must not run twice does",
        "job/outcome.py",
        '    if job.on_crash == "dead" or job.crashes',
        "    if job.crashes",
        (f"{_BOUNDS}a_command_that_must_not_run_twice_does_not",),
    ),
    Mutant(
        "stop: force is an attempt",
        "job/outcome.py",
        "    uncharged = outcome.ending == Ending.STOPPED\n",
        "    uncharged = False\n",
        (f"{_POOL}force_ends_the_tree_and_puts_the_job_back_uncharged",),
    ),
    Mutant(
        "room: no floor",
        "worker/prefetch.py",
        "        while not (self._readiness.blocked or self._unread) and",
        "        while not self._unread and",
        (f"{_BOUNDS}workers_pause_without_room_and_go_on_by_themselves[below the floor]",),
    ),
)
"""How runs end, and how often they may begin."""
