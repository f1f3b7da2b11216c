"""Who starts workers, who stops them, and what they wait for."""

from __future__ import annotations

from .run import Mutant

_SUPERVISOR = "tests/worker/test_supervisor.py::test_"
_OWN = "tests/control/test_own_job.py::test_"
_SPACES = "tests/control/test_namespaces.py::test_"
_LINES = "tests/system/test_line_output.py::test_"
_IDENTITY = "tests/control/test_identity.py::test_"
_ODD = "tests/control/test_odd_files.py::test_"

WORKERS = (
    Mutant(
        "start: nobody sees a worker before it is ready",
        "worker/pool.py",
        '_CAN_HAND_OVER = sys.platform != "win32"\n',
        "_CAN_HAND_OVER = False\n",
        (f"{_SUPERVISOR}stop_ends_and_counts_workers_that_are_still_starting",),
    ),
    Mutant(
        "start: a stop before the name is taken is forgotten",
        "worker/worker.py",
        "        self.flags.stopping |= commands.is_stop_of_all_after(self.layout, launch.since)",
        "        pass",
        (f"{_SUPERVISOR}worker_whose_start_was_asked_for_before_a_stop_takes_no_job",),
    ),
    Mutant(
        "start: a script that has stopped workers is older than the stop",
        "control/commands.py",
        "if is_by_script or _came_after(note, started) else started",
        "if _came_after(note, started) else started",
        (f"{_SUPERVISOR}script_that_stops_workers_and_becomes_one_works",),
    ),
    Mutant(
        "start: what was typed after a stop is older than it",
        "control/commands.py",
        "if is_by_script or _came_after(note, started) else started",
        "if is_by_script else started",
        (f"{_SUPERVISOR}the_command_that_was_typed_last_holds",),
    ),
    Mutant(
        "start: a script that becomes the stop was asked for first",
        "control/commands.py",
        'return is_later and note.get("pid") not in by',
        "return is_later",
        (f"{_SUPERVISOR}a_script_that_starts_workers_and_becomes_the_stop_stops_them",),
    ),
    Mutant(
        "start: a child without its parent works",
        "worker/process.py",
        "    if not parent.is_running():\n        return False",
        "    if False:\n        return False",
        (f"{_SUPERVISOR}child_without_its_parent_takes_no_job",),
        equal="the first round of the worker asks again, before it takes a job; this only saves the start",
    ),
    Mutant(
        "supervisor: signals are handled after the start",
        "worker/supervisor.py",
        "        self._handle_signals()\n        # All names",
        "        # All names",
        (f"{_SUPERVISOR}signal_amid_the_start_leaves_no_worker[2]",),
    ),
    Mutant(
        "supervisor: a worker that dies is not replaced",
        "worker/supervisor.py",
        "        slot.next_start = now + brake",
        "        slot.next_start = None",
        (f"{_SUPERVISOR}worker_that_is_killed_is_replaced_and_mentioned",),
    ),
    Mutant(
        "supervisor: it goes on for ever",
        "worker/supervisor.py",
        "            self._failed = True\n",
        "            pass\n",
        (f"{_SUPERVISOR}supervisor_that_cannot_keep_its_workers_leaves_with_a_failure",),
    ),
    Mutant(
        "stop: a suspended worker is left suspended",
        "worker/stopping.py",
        "            asked.process.send(signal.SIGCONT)",
        "            pass",
        (f"{_SUPERVISOR}forced_stop_ends_a_worker_that_is_suspended",),
        equal="it is killed some seconds later, and its job is taken back as well",
    ),
    Mutant(
        "stop: who leaves as it is asked does not count",
        "worker/stopping.py",
        '        if is_asked or not (names or is_locked(layout.worker_file(info.name, "lock"))):\n',
        "        if is_asked:\n",
        (f"{_SUPERVISOR}a_worker_that_leaves_between_the_look_and_the_question_counts_as_stopped",),
    ),
    Mutant(
        "stop: nobody is killed",
        "worker/stopping.py",
        "asked.was_killed |= asked.process.send(signal.SIGKILL)",
        "pass",
        (f"{_SUPERVISOR}forced_stop_kills_a_worker_that_does_not_obey",),
    ),
    Mutant(
        "stop: who was killed keeps its job",
        "worker/stopping.py",
        "        recovery.recover_claims(storage, known, lambda _: None, busy=names)",
        "        pass",
        (f"{_SUPERVISOR}forced_stop_kills_a_worker_that_does_not_obey",),
    ),
    Mutant(
        "lines: they wait for their reader",
        "system/line_output.py",
        "        if self._is_file:",
        "        if True:",
        (
            f"{_LINES}lines_that_nobody_takes_are_counted_and_said",
            f"{_SUPERVISOR}output_that_nobody_reads_holds_no_job_up",
        ),
    ),
    Mutant(
        "lines: all are kept",
        "system/line_output.py",
        "        if self._size + len(data) > BACKLOG:",
        "        if False:",
        (f"{_LINES}lines_that_nobody_takes_are_counted_and_said",),
    ),
    Mutant(
        "own job: the variables are enough",
        "control/own_job.py",
        """        if is_here and os.path.exists(""",
        """        if is_here or os.path.exists(""",
        (f"{_OWN}variables_of_a_job_that_has_ended_mean_nothing",),
    ),
    Mutant(
        "own job: drain waits for it",
        "control/pause.py",
        "    own_job.refuse_to_wait(",
        "    str(",
        (f"{_OWN}drain_in_a_job_pauses_nothing",),
    ),
    Mutant(
        "containers: what cannot be seen is gone",
        "system/process.py",
        "        return not self.namespace or (self.namespace == pid_namespace() and _is_proc_ours())",
        "        return True",
        (f"{_SPACES}process_of_another_namespace_is_neither_alive_nor_gone",),
    ),
    Mutant(
        "containers: process 1 reaps nothing",
        "worker/supervisor.py",
        "                self._reap_orphans()\n",
        "                pass\n",
        (f"{_SPACES}as_process_1_it_reaps_what_a_job_leaves_behind",),
    ),
    Mutant(
        "locks: a forked child keeps them",
        "system/locks.py",
        "    os.register_at_fork(after_in_child=_close_in_child)",
        "    pass",
        (f"{_IDENTITY}a_child_of_a_program_does_not_keep_its_workers_locks",),
    ),
    Mutant(
        "runner: every thread sets signals",
        "executor/local.py",
        " or threading.current_thread() is not threading.main_thread():",
        ":",
        (
            "tests/executor/test_local.py::test_a_worker_in_a_thread_lives_with_a_program_that_ignores_its_children",
        ),
    ),
    Mutant(
        "stop: a bad setting is in the way",
        "cli/commands/worker.py",
        "    except ConfigError as error:\n        render.note",
        "    except ZeroDivisionError as error:\n        render.note",
        ("tests/cli/test_worker.py::test_workers_can_be_stopped_whatever_the_settings_say",),
    ),
    Mutant(
        "names: one with odd files is taken",
        "control/registration.py",
        "        if registry.unusable_files(layout, name):",
        "        if False:",
        (f"{_ODD}a_name_whose_files_are_odd_is_left_out",),
    ),
    Mutant(
        "record: nobody writes it again",
        "control/registration.py",
        "        if self._record and self._stamp() != self._written:",
        "        if False:",
        (f"{_ODD}worker_whose_record_is_overwritten_can_be_stopped",),
    ),
    Mutant(
        "recover: what cannot be ended is tried each second",
        "worker/maintenance.py",
        "        if now - began > SLOW_TAKE_BACK and ",
        "        if False and ",
        ("tests/worker/test_job_run.py::test_what_a_dead_worker_left_and_cannot_be_ended_holds_up_no_job",),
    ),
    Mutant(
        "recover: the run of a dead worker is waited for as long as an own one",
        "system/process_tree.py",
        ", patience=ORPHAN_PATIENCE",
        "",
        ("tests/worker/test_job_run.py::test_what_a_dead_worker_left_and_cannot_be_ended_holds_up_no_job",),
    ),
    Mutant(
        "recover: one odd lock ends the look at all",
        "storage/recovery.py",
        'its lock cannot be opened: {reason}")\n        return None\n',
        'its lock cannot be opened: {reason}")\n        raise\n',
        ("tests/control/test_odd_files.py::test_an_odd_lock_keeps_nothing_else_from_being_done",),
    ),
    Mutant(
        "stop: who was still starting is asked again and again",
        "worker/stopping.py",
        "                asked.info = present\n",
        "                pass\n",
        ("tests/worker/test_pool.py::test_a_worker_that_was_still_starting_is_asked_to_stop_once",),
    ),
    Mutant(
        "upkeep: a record that cannot be written ends the round",
        "worker/upkeep.py",
        "        with self.barrier:\n            self.maintenance.take_back(",
        "        with self.barrier:\n            self._registration and self._registration.restore()\n            self.maintenance.take_back(",
        ("tests/control/test_odd_files.py::test_a_worker_whose_record_cannot_be_written_does_all_the_rest",),
    ),
    Mutant(
        "registration: an odd record keeps the folder locked",
        "control/registration.py",
        "            with suppress(OSError):\n                self._delete(kind)\n        if self._folder",
        "            self._delete(kind)\n        if self._folder",
        (f"{_ODD}a_worker_that_leaves_gives_its_name_back_whatever_has_its_records_name",),
    ),
    Mutant(
        "run file: any number is a moment",
        "control/run_lock.py",
        "    times.within_years(moment, text)\n",
        "",
        (
            f"{_ODD}an_odd_moment_of_an_ended_run_ends_no_worker",
            f"{_ODD}an_odd_moment_in_a_run_file_ends_no_command",
        ),
    ),
)
"""Who starts and stops."""
