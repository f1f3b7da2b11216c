"""What comes too late, what others leave behind, and what somebody deletes."""

from __future__ import annotations

from .run import Mutant

_LATE = "tests/faults/test_too_late.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"late: {name}", file, old, new, tuple(f"{_LATE}{test}" for test in tests))


LATE = (
    Mutant(
        "late: a cancel is for every run of its job",
        "control/commands.py",
        "return cancel_requests(layout, name).get(job_id) == run",
        "return job_id in cancel_requests(layout, name)",
        ("tests/control/test_identity.py::test_a_cancel_note_is_for_one_run",),
    ),
    _mutant(
        "a job that failed as it was cancelled is tried again",
        "worker/job_run.py",
        '            outcome.ending, outcome.error = Ending.CANCELLED, "Cancelled"',
        "            pass",
        "a_job_that_fails_as_it_is_cancelled_is_not_tried_again",
    ),
    _mutant(
        "a cancel is lost while a failure is recorded",
        "worker/settle_batch.py",
        "                put_back=self._obey_late_cancels,\n",
        "",
        "a_cancel_that_comes_while_a_failure_is_recorded_is_kept",
    ),
    _mutant(
        "the run that was signed last is the one that is cancelled",
        "api/cancel.py",
        "            return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).runs + 1\n",
        "            return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).runs\n",
        "a_cancel_is_for_the_run_that_comes_and_not_for_the_last_one",
    ),
    _mutant(
        "a worker that leaves takes a cancel along",
        "control/registration.py",
        '        for kind in ("json", "stop"):',
        '        for kind in ("json", "stop", "cancel"):',
        "a_cancel_is_for_the_run_that_comes_and_not_for_the_last_one",
    ),
    _mutant(
        "one file that cannot be read keeps all lost jobs from coming back",
        "storage/power_loss.py",
        "            refused.append(error)\n            kept.add",
        "            raise\n            kept.add",
        "one_odd_file_keeps_no_lost_job_from_coming_back[a file that cannot be read]",
    ),
    _mutant(
        "a dead worker's cancel is forgotten",
        "storage/recovery.py",
        "    if not over and commands.is_cancel_requested(",
        "    if False and commands.is_cancel_requested(",
        "a_job_that_was_cancelled_is_not_run_again_for_a_dead_worker[before its worker died]",
    ),
    _mutant(
        "whoever takes a name takes away the cancel of the one before",
        "control/registration.py",
        '            self._delete("stop")\n',
        '            self._delete("stop"); self._delete("cancel")\n',
        "a_job_that_was_cancelled_is_not_run_again_for_a_dead_worker[before all had died]",
    ),
    _mutant(
        "any pause that a worker knows of will do",
        "control/pause.py",
        "if found.mark in marks.split():",
        "if marks:",
        "a_worker_that_knows_of_an_earlier_pause_is_waited_for",
    ),
    _mutant(
        "a stop note is believed to be read",
        "control/pause.py",
        "    return any(worker.name == name for worker",
        "    return any(worker.name == name and not worker.stopping for worker",
        "a_worker_that_is_told_to_stop_may_start_a_job_until_it_reads_that",
    ),
    _mutant(
        "what cannot be given back is begun",
        "worker/claiming.py",
        "        if not self._prefetch.ready or self._upkeep.readiness.blocked:\n            return None\n",
        "        if not self._prefetch.ready:\n            return None\n",
        "what_cannot_be_given_back_is_not_begun_in_a_paused_spool[refused]",
    ),
    _mutant(
        "a claim alone is the sign of a power cut",
        "storage/power_loss.py",
        "        _leave_mark(mark, boot)\n        return 0",
        "        return 0",
        "a_file_under_the_name_of_a_running_job_outlives_the_index[job-the index and the run file]",
    ),
    _mutant(
        "what nobody can read is deleted",
        "storage/power_loss.py",
        "                quarantine.put(layout, path, why, inode=status.st_ino, now=time.time())",
        "                os.unlink(path)",
        "a_file_under_the_name_of_a_running_job_outlives_the_index[rubbish-data/]",
    ),
    _mutant(
        "what a dead worker held stays until its name is taken",
        "storage/recovery.py",
        "                    sweep(layout, worker, index.boot)\n                    _deregister(layout, index, worker)\n            finally",
        "                    _deregister(layout, index, worker)\n            finally",
        "what_a_dead_worker_held_goes_while_the_machine_runs",
    ),
    _mutant(
        "a scratch file keeps a dead worker's folder",
        "storage/recovery.py",
        "            os.unlink(os.path.join(folder, name))\n        os.rmdir",
        "            pass\n        os.rmdir",
        "the_name_plate_of_a_dead_worker_comes_down[a scratch file]",
    ),
    _mutant(
        "an outcome is known by the index alone",
        "storage/recovery.py",
        "    if over is None and not is_dated:",
        "    if False:",
        "with_its_index_a_dead_worker_loses_no_outcome",
    ),
    Mutant(
        "late: an outcome is looked for under one name only",
        "storage/locate.py",
        "        if other is not None and other.id == claimed.id and is_later(other, claimed, but):",
        "        if False:",
        ("tests/storage/test_recovery.py::test_a_copy_is_void_whatever_name_the_outcome_got[done]",),
    ),
    _mutant(
        "a deleted folder is waited for",
        "worker/settle_batch.py",
        "                if not self._make_folders():\n",
        "                if True:\n",
        "a_folder_deleted_under_a_running_job_is_made_again[done]",
    ),
    _mutant(
        "output goes with the folder of the logs",
        "storage/job_logs.py",
        "            os.mkdir(os.path.dirname(target), 0o700)  # somebody deleted it",
        "            raise",
        "a_folder_deleted_under_a_running_job_is_made_again[logs]",
    ),
    _mutant(
        "workers are known by the clock",
        "system/process.py",
        '    if sys.platform == "linux":\n        known = proc_stat(pid)',
        "    if False:\n        known = proc_stat(pid)",
        "workers_are_known_after_the_clock_was_set",
    ),
    _mutant(
        "a process that cannot be copied fails",
        "system/fork.py",
        "    except OSError:  # no memory",
        "    except ZeroDivisionError:  # no memory",
        "a_process_that_cannot_be_copied_does_the_work_itself",
    ),
    _mutant(
        "looking takes the right to write",
        "system/locks.py",
        "        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):\n            raise",
        "        raise",
        "who_may_only_read_sees_the_workers",
    ),
    _mutant(
        "a claim during a look is dropped",
        "intake/claims.py",
        "                continue  # claimed since",
        "                pass  # claimed since",
        "a_job_claimed_during_a_look_is_still_there",
    ),
    _mutant(
        "a claim is told of whatever has its number",
        "index/index.py",
        ' WHERE seq = ? AND id = ?"""\n_UPDATE',
        ' WHERE seq = ? AND id IS NOT ?"""\n_UPDATE',
        "a_claim_is_told_of_the_job_alone_that_it_is_about",
    ),
)
