"""What reaches the disk, in which order, and that nothing lands on anything."""

from __future__ import annotations

from .run import Mutant

ORDER = "tests/storage/test_write_order.py"


def _order(test: str) -> str:
    return f"{ORDER}::test_{test}"


_ENQUEUE = _order("enqueue_syncs_the_bytes_before_the_name_and_the_name_before_it_returns")
_MANY = _order("many_are_synced_before_any_of_them_has_a_name")
_SETTLE = _order("an_outcome_is_on_the_disk_before_the_claim_goes")
_AT_ONCE = _order("an_outcome_that_cannot_wait_is_synced_at_once")
_HELD = _order("a_claimed_file_is_held_until_its_outcome_is_synced")
_RETRY = _order("back_from_dead_is_mended_where_it_lies_then_moved_then_synced")
_STARTED = _order("a_command_that_must_not_run_twice_is_known_to_have_started")
_RECOVER = "tests/storage/test_recovery.py::test_"
_HOSTILE = "tests/intake/test_hostile_files.py::test_"
_POOL = "tests/worker/test_pool.py::test_"
_HAND = "tests/faults/test_by_hand.py::test_"
_RACES = "tests/faults/test_claim_races.py::test_"

SYNCS = (
    Mutant(
        "sync: no file is ever synced",
        "system/files.py",
        "        os.fsync(fd)\n\n\ndef sync_data",
        "        pass\n\n\ndef sync_data",
        (_ENQUEUE,),
    ),
    Mutant(
        "sync: no folder is ever synced",
        "system/files.py",
        "    try:\n        os.fsync(fd)\n    finally:",
        "    try:\n        pass\n    finally:",
        (_ENQUEUE,),
    ),
    Mutant(
        "sync: syncfs is not called",
        "system/files.py",
        "if _syncfs(fd) != 0:",
        "if _syncfs is None:",
        (_MANY,),
    ),
    Mutant(
        "sync: a failed syncfs is no error",
        "system/files.py",
        "if _syncfs(fd) != 0:",
        "if _syncfs(fd) > 0:",
        (_order("a_sync_of_all_that_fails_is_an_error"),),
    ),
    Mutant(
        "sync: new files are not",
        "system/files.py",
        "        if sync:\n            sync_file(fd)",
        "",
        (_order("a_setting_is_on_the_disk"),),
    ),
    Mutant(
        "sync: a replaced file is not",
        "system/files.py",
        "write_new(scratch, data, sync=True)",
        "write_new(scratch, data, sync=False)",
        (_order("a_setting_is_on_the_disk"),),
    ),
    Mutant(
        "sync: the folder of a replaced file is not",
        "system/files.py",
        "    sync_folder(folder)\n\n\ndef write_afresh",
        "\n\ndef write_afresh",
        (_order("a_setting_is_on_the_disk"),),
    ),
    Mutant(
        "sync: many files one by one are not",
        "system/files.py",
        "                sync_file(fd)\n            finally",
        "                pass\n            finally",
        (_MANY,),
    ),
    Mutant(
        "sync: a queued job's bytes are not",
        "storage/enqueue.py",
        "            files.sync_file(fd)\n        files.sync_folder(storage",
        "            pass\n        files.sync_folder(storage",
        (_ENQUEUE,),
    ),
    Mutant(
        "sync: a queued job's bytes do not go before its name",
        "storage/enqueue.py",
        "            files.sync_data(fd)\n",
        "            pass\n",
        (_ENQUEUE,),
    ),
    Mutant(
        "sync: a queued job's name is not",
        "storage/enqueue.py",
        "        files.sync_folder(storage.layout.pending)\n    except OSError as error:\n        take_back(storage, batch",
        "        pass\n    except OSError as error:\n        take_back(storage, batch",
        (_ENQUEUE,),
    ),
    Mutant(
        "sync: a batch's bytes are not",
        "storage/enqueue_batch.py",
        "            files.sync_files(self._scratch.folder, [scratch for scratch, _ in named])\n",
        "            pass\n",
        (_MANY,),
    ),
    Mutant(
        "sync: an outcome's bytes are not",
        "storage/settle.py",
        "    files.write_new(scratch, job.to_bytes(), sync=True)\n    return",
        "    files.write_new(scratch, job.to_bytes(), sync=False)\n    return",
        (_SETTLE,),
    ),
    Mutant(
        "sync: an outcome's name is not",
        "storage/settle.py",
        "        files.sync_folder(folder)\n    os.unlink",
        "        pass\n    os.unlink",
        (_SETTLE,),
    ),
    Mutant(
        "sync: an outcome that cannot wait is not",
        "storage/settle.py",
        "        files.sync_filesystem(folder)\n",
        "        pass\n",
        (_AT_ONCE,),
    ),
    Mutant(
        "sync: an outcome that cannot wait waits",
        "worker/settle_batch.py",
        'at_once = any(claim.job.on_crash == "dead" or ',
        "at_once = any(",
        (_STARTED,),
    ),
    Mutant(
        "sync: a start that must be known is not",
        "worker/job_run.py",
        "                sync_claim(storage, claim)\n",
        "                pass\n",
        (_STARTED,),
    ),
    Mutant(
        "sync: the claim of such a start is not",
        "storage/claim.py",
        "        files.sync_folder(os.path.dirname(claim.path))\n",
        "",
        (_STARTED,),
    ),
    Mutant(
        "sync: the worker's folder of such a start is not",
        "storage/claim.py",
        "        files.sync_folder(storage.layout.processing)\n",
        "",
        (_STARTED,),
    ),
    Mutant(
        "sync: the place such a start left is not",
        "storage/claim.py",
        "        files.sync_folder(storage.layout.processing)\n        files.sync_folder(storage.layout.pending)\n",
        "        files.sync_folder(storage.layout.processing)\n",
        (_STARTED,),
    ),
    Mutant(
        "sync: files of running jobs are replaced by unsynced ones",
        "system/files.py",
        "        sync_files(folder, list(scratch.values()))\n",
        "",
        ("tests/system/test_files.py::test_files_that_cannot_be_synced_are_not_replaced",),
    ),
    Mutant(
        "running: a file that was deleted meanwhile is made again",
        "system/files.py",
        "            if os.path.lexists(target):\n                rename_over(",
        "            if True:\n                rename_over(",
        ("tests/system/test_files.py::test_many_files_are_replaced_with_two_waits",),
    ),
    Mutant(
        "running: each file is noted by itself",
        "worker/slots.py",
        "            note_running(context.storage, notes)\n",
        "            for claim in notes:\n                note_running(context.storage, [claim])\n",
        (
            "tests/worker/test_many_at_once.py::test_files_of_many_running_jobs_are_noted_with_two_waits_for_the_disk",
        ),
    ),
    Mutant(
        "sync: held files become spares unsynced",
        "storage/file_pool.py",
        "            files.sync_filesystem(batch.folder)\n",
        "            pass\n",
        (_HELD,),
    ),
    Mutant(
        "sync: outcomes one by one are not",
        "storage/file_pool.py",
        "            files.sync_file(fd)\n",
        "            pass\n",
        (_HELD,),
    ),
    Mutant(
        "sync: names of outcomes one by one are not",
        "storage/file_pool.py",
        "    for folder in folders:\n        files.sync_folder(folder)\n",
        "",
        (_HELD,),
    ),
    Mutant(
        "sync: the reserve has no blocks",
        "storage/file_pool.py",
        "files.write_new(path, bytes(RESERVE), sync=True)",
        "files.write_new(path, bytes(RESERVE), sync=False)",
        (_order("the_reserve_for_a_full_disk_has_its_blocks"),),
    ),
    Mutant(
        "sync: held files of the dead are swept unsynced",
        "storage/power_loss.py",
        "                files.sync_filesystem(folder)\n            remove",
        "                pass\n            remove",
        (_order("held_files_of_a_dead_worker_go_only_when_all_is_synced"),),
    ),
    Mutant(
        "sync: restored jobs are not",
        "storage/power_loss.py",
        "    files.sync_folder(layout.pending)\n    for folder in folders:",
        "    for folder in folders:",
        (_order("after_a_power_cut_a_job_is_back_on_the_disk_before_its_held_copies_go"),),
    ),
    Mutant(
        "sync: outcomes wait for the end of a long job",
        "worker/upkeep.py",
        "            pool.flush()  # else a long job",
        "            pass  # else a long job",
        ("tests/faults/test_power_cut.py::test_what_was_settled_is_synced_within_a_second_of_a_long_job",),
    ),
    Mutant(
        "sync: a copy left by a crash goes before",
        "storage/recovery.py",
        "        files.sync_filesystem(layout.root)  # the later",
        "        pass  # the later",
        (_order("a_copy_left_by_a_crash_goes_only_when_the_later_one_is_synced"),),
    ),
    Mutant(
        "sync: a retried job's new name is not",
        "storage/bulk_moves.py",
        "synced=[PENDING, *places],",
        "synced=places,",
        (_RETRY,),
    ),
    Mutant(
        "sync: a retried job's old name is not",
        "storage/bulk_moves.py",
        "synced=[PENDING, *places],",
        "synced=[PENDING],",
        (_RETRY,),
    ),
    Mutant(
        "sync: deletions are not",
        "api/spool_remove.py",
        "                files.sync_folder(folder)\n",
        "                pass\n",
        (_order("what_is_deleted_stays_deleted"),),
    ),
    Mutant(
        "sync: a folder put aside into is not",
        "storage/quarantine.py",
        "    files.sync_folder(folder(layout))\n",
        "",
        (_order("what_is_put_aside_is_there_before_it_is_gone_here"),),
    ),
    Mutant(
        "sync: a refused enqueue stays",
        "storage/enqueue.py",
        "    except OSError as error:\n        take_back(storage, batch, error)\n        raise\n",
        "    except OSError:\n        raise\n",
        ("tests/faults/test_disk_errors.py::test_enqueue_is_refused_cleanly_or_done",),
    ),
)
"""Each wait for the disk."""

ORDERS = (
    Mutant(
        "order: a claimed file is written at once",
        "storage/file_pool.py",
        "        batch.count += 1\n        if not ours",
        "        batch.count += 1\n        self._free.append((batch.folder, [name]))\n        if not ours",
        ("tests/storage/test_power_loss.py", _HELD),
    ),
    Mutant(
        "order: a stranger's file is written over",
        "storage/file_pool.py",
        "            batch.not_ours.append(name)\n",
        "            pass\n",
        (_HELD, f"{_HOSTILE}a_hard_link_kept_outside_reaches_no_outcome"),
    ),
    Mutant(
        "order: a file with a second name counts as ours",
        "storage/claim.py",
        "(status.st_ino, status.st_nlink) == (row.inode, 1)",
        "status.st_ino == row.inode",
        (
            "tests/storage/test_power_loss.py::test_a_queued_file_that_somebody_linked_to_is_not_ours_to_write",
        ),
    ),
    Mutant(
        "order: the claim goes before its outcome is synced",
        "storage/settle.py",
        "    folder = storage.layout.folder(claim.state)\n    if all_synced:",
        "    folder = storage.layout.folder(claim.state)\n    os.unlink(claim.path)\n    if all_synced:",
        (_SETTLE,),
    ),
    Mutant(
        "order: a retry moves first and mends then",
        "storage/bulk_moves.py",
        "    files.rename_over(change.scratch, change.path)\n    with",
        "    with",
        (_RETRY, "tests/cli/test_dlq.py::test_retry_gives_fresh_attempts_and_keeps_the_history"),
    ),
    Mutant(
        "order: a retry brings back what was deleted meanwhile",
        "storage/bulk_moves.py",
        "    if change.was_changed(change.path):\n        raise just_moved(row.id)\n",
        "",
        (
            "tests/storage/test_one_id.py::test_a_dead_job_that_goes_or_changes_while_it_is_sent_back_is_left_alone",
        ),
    ),
    Mutant(
        "cost: each job that is given up has pending/ compared",
        "storage/bulk_moves.py",
        "    with ours:\n        name = files.move_to_free_name(change.path, folder",
        "    if True:\n        name = files.move_to_free_name(change.path, folder",
        ("tests/worker/test_system_calls.py::test_many_jobs_given_up_or_sent_back_compare_no_folder",),
    ),
    Mutant(
        "order: held copies push one another out",
        "storage/file_pool.py",
        'name = f"{job_id}~{batch.count}.json"',
        'name = f"{job_id}~0.json"',
        ("tests/storage/test_power_loss.py",),
    ),
    Mutant(
        "order: settling twice makes two files",
        "storage/settle.py",
        "_commit(storage, [claim for claim in claims if not claim.settled], pool, then, put_back)",
        "_commit(storage, claims, pool, then, put_back)",
        ("tests/storage/test_one_id.py",),
    ),
    Mutant(
        "order: a late outcome counts",
        "storage/settle.py",
        "    except FileNotFoundError:\n        os.unlink(scratch)\n        return None\n",
        "    except FileNotFoundError:\n        left = os.lstat(scratch)\n",
        (
            f"{_HAND}a_running_job_whose_file_is_deleted_is_forgotten",
            f"{_RECOVER}a_late_result_changes_nothing",
        ),
    ),
    Mutant(
        "order: what is claimed is not read again",
        "storage/claim.py",
        "if job.id == row.id and not job.hold and job.is_due(storage.now()):",
        "if True:",
        (f"{_RACES}what_is_claimed_is_read_again",),
    ),
    Mutant(
        "order: a copy left by a crash runs again",
        "storage/recovery.py",
        "    if is_settled(layout, job, but=path):",
        "    if False:",
        (f"{_RECOVER}a_copy_left_by_a_crash_is_void",),
    ),
    Mutant(
        "recover: the jobs of an engine are taken back as those of a dead worker",
        "storage/recovery.py",
        "        if is_engine(worker):\n            continue\n",
        "",
        (f"{_RECOVER}nobody_takes_back_the_jobs_of_an_engine",),
    ),
    Mutant(
        "doctor: the claim of an engine is moved away under its job",
        "doctor/job_files.py",
        "(is_engine(worker) or self._case.is_alive(worker))",
        "self._case.is_alive(worker)",
        (f"{_RECOVER}nobody_takes_back_the_jobs_of_an_engine",),
    ),
    Mutant(
        "order: any file of the same id settles a job",
        "storage/locate.py",
        "            if is_outcome or is_later(other, claimed, but):\n",
        "            if True:\n",
        (f"{_RECOVER}a_foreign_file_of_the_same_id_frees_nothing",),
    ),
    Mutant(
        "order: an outcome that the disk refuses is dropped",
        "worker/settle_batch.py",
        "        except OSError as error:\n            return error\n",
        "        except OSError as error:\n            del self.finished[first:end]\n            return error\n",
        (f"{_POOL}a_spool_that_is_read_only_for_a_moment_loses_nothing",),
    ),
    Mutant(
        "order: a full disk takes the output first",
        "storage/settle.py",
        "        if error.errno not in FULL or not job.output:\n            raise\n",
        "        raise\n",
        ("tests/storage/test_power_loss.py::test_an_outcome_too_long_for_the_disk_leaves_its_output_out",),
    ),
    Mutant(
        "order: no reserve for a full disk",
        "storage/file_pool.py",
        "            if error.errno not in FULL or self._reserve is None or len(data) > RESERVE:\n                raise\n",
        "            raise\n",
        ("tests/storage/test_power_loss.py::test_on_a_full_disk_an_outcome_goes_into_the_reserve",),
    ),
)
"""What comes before what."""

CLOBBER = (
    Mutant(
        "clobber: renames land on what is there",
        "system/files.py",
        "_RENAME_NOREPLACE = 1",
        "_RENAME_NOREPLACE = 0",
        ("tests/system/test_files.py::test_a_move_never_clobbers",),
    ),
    Mutant(
        "clobber: without renameat2, too",
        "system/files.py",
        "        os.link(source, target, follow_symlinks=False)\n",
        "        os.replace(source, target)\n        return\n",
        ("tests/system/test_files.py::test_a_move_never_clobbers",),
    ),
    Mutant(
        "clobber: without links, too",
        "system/files.py",
        "        if os.path.lexists(target):\n            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None\n",
        "",
        ("tests/system/test_files.py::test_a_move_never_clobbers",),
    ),
    Mutant(
        "clobber: new files are written over old ones",
        "system/files.py",
        "os.O_CREAT | os.O_EXCL | O_CLOEXEC",
        "os.O_CREAT | O_CLOEXEC",
        ("tests/system/test_files.py::test_a_new_file_is_ours_alone",),
    ),
    Mutant(
        "clobber: an id is not looked for",
        "storage/enqueue.py",
        "        locate.refuse_taken(storage, made.id)\n",
        "        pass\n",
        ("tests/storage/test_one_id.py::test_an_id_is_taken_wherever_its_job_lies",),
    ),
    Mutant(
        "clobber: an id is looked for outside the transaction",
        "storage/enqueue.py",
        "        with storage.index.moving(PENDING):\n            publish(storage, scratch, made)\n",
        "        if made.chosen:\n            from queuectl.storage import locate\n\n            locate.refuse_taken(storage, made.id)\n        made.chosen = False\n        with storage.index.moving(PENDING):\n            publish(storage, scratch, made)\n",
        ("tests/storage/test_one_id.py",),
    ),
    Mutant(
        "clobber: running jobs are not looked for",
        "storage/locate.py",
        '            return "processing"\n',
        "            pass\n",
        ("tests/storage/test_one_id.py",),
    ),
    Mutant(
        "clobber: a claim lands on a job in hand",
        "storage/claim.py",
        "                files.move_into_own(f",
        "                os.rename(f",
        (f"{_RACES}a_claim_never_lands_on_a_job_in_hand",),
    ),
    Mutant(
        "clobber: an id of a dropped file may be taken",
        "intake/admission.py",
        '        taken = locate.state_of(self.storage, job.id, but=path)\n        if taken == "processing',
        '        taken = None\n        if taken == "processing',
        ("tests/intake/test_reconcile.py::test_the_same_id_ten_times_is_one_job_and_nine_refusals",),
    ),
    Mutant(
        "clobber: a claim that goes while it is looked at is another job",
        "intake/admission.py",
        '            taken = locate.state_of(self.storage, job.id, but=path)\n        if taken == "pending',
        '        if taken == "pending',
        ("tests/storage/test_one_id.py::test_a_job_taken_back_is_no_duplicate_of_its_own_claim",),
    ),
)
"""Nothing lands on anything."""
