"""When the index may be believed, and what may come in."""

from __future__ import annotations

from .run import Mutant

_INDEX = "tests/test_index.py::test_"
_HOSTILE = "tests/test_hostile_files.py::test_"
_HAND = "tests/test_by_hand.py::test_"
_GUARD = "tests/test_guard.py::test_"
_BOUNDS = "tests/test_bounds.py::test_"

MIRROR = (
    Mutant(
        "index: writes go into a file that is gone",
        "index.py",
        '        if not self._is_the_file_there():\n            self.broken = "the index file was replaced"\n            return False\n',
        "",
        ("tests/test_belief.py::test_nothing_is_written_into_a_file_that_is_gone",),
    ),
    Mutant(
        "index: what a replaced file was told is forgotten",
        "index.py",
        "        self._untold.update(places)\n",
        "",
        ("tests/test_belief.py::test_a_move_told_to_a_file_that_was_replaced_is_found",),
    ),
    Mutant(
        "index: a move believes a stale stamp",
        "stamps.py",
        "WHERE place = ? AND mtime = ? AND inode = ?",
        "WHERE place = ? AND coalesce(?, ?)",
        ("tests/test_belief.py::test_a_move_of_ours_does_not_vouch_for_a_strangers",),
    ),
    Mutant(
        "index: a claim believes what it found afterwards",
        "stamps.py",
        ' AND mtime = ? AND inode = ?",\n                (after[0], time.time_ns(), place, *before),',
        '",\n                (after[0], time.time_ns(), place),',
        ("tests/test_belief.py::test_a_move_of_ours_does_not_vouch_for_a_strangers",),
    ),
    Mutant(
        "index: moves carry no stamp",
        "stamps.py",
        "                index.carry(place, before)\n",
        "                pass\n",
        ("tests/test_belief.py::test_a_move_of_ours_is_vouched_for",),
    ),
    Mutant(
        "index: a young stamp is believed",
        "stamps.py",
        "return stamped - mtime >= YOUNG or now_ns - mtime < YOUNG or self._has_fine_times()",
        "return True",
        ("tests/test_belief.py::test_a_stamp_of_the_present_is_not_believed_for_long",),
    ),
    Mutant(
        "index: any folder of that time is the same",
        "stamps.py",
        "or found[:2] != self.look(place)",
        "or found[0] != (self.look(place) or [0])[0]",
        (f"{_INDEX}a_folder_put_in_anothers_place_is_noticed",),
    ),
    Mutant(
        "index: what is known to be wrong is believed",
        "stamps.py",
        '        self._attempt("UPDATE folders SET whole = 0, scan = NULL WHERE place = ?", (place,))\n',
        "        pass\n",
        ("tests/test_belief.py::test_what_is_known_to_be_wrong_is_looked_at",),
    ),
    Mutant(
        "index: a scan vouches for another's stamp",
        "stamps.py",
        "WHERE place = ? AND scan = ?",
        "WHERE place = ? AND coalesce(?, 1)",
        ("tests/test_one_id.py",),
    ),
    Mutant(
        "index: half a scan counts as whole",
        "intake.py",
        "            whole = present == self.index.count_at(place)\n",
        "            whole = True\n",
        (f"{_HAND}drop_is_enqueue_and_delete_is_forget",),
    ),
    Mutant(
        "index: incomplete files are forgotten",
        "intake.py",
        "            if stamped and not unfinished:\n                with",
        "            if stamped:\n                with",
        ("tests/test_intake.py::test_a_half_written_file_is_never_taken",),
    ),
    Mutant(
        "index: damage is no reason to begin anew",
        "index.py",
        "            self._start_over()\n            trusted = False\n",
        "            raise\n",
        ("tests/test_belief.py::test_a_damaged_file_makes_room_for_a_new_one",),
    ),
    Mutant(
        "index: no look before a claim that shares the settle's transaction",
        "lookout.py",
        "        return self._intake.pending_agrees()\n",
        "        return True\n",
        ("tests/test_belief.py::test_a_busy_worker_looks_before_each_claim",),
    ),
    Mutant(
        "index: a look out of caution takes all the time",
        "lookout.py",
        "            return now < self._rest_until\n",
        "            return False\n",
        ("tests/test_belief.py::test_a_look_out_of_caution_rests_and_gives_way_to_a_real_one",),
    ),
    Mutant(
        "index: a look stands still while a long job runs",
        "worker.py",
        "                self._lookout.go_on()\n",
        "                pass\n",
        ("tests/test_belief.py::test_a_look_goes_on_while_a_long_job_runs",),
    ),
    Mutant(
        "index: a look for edits takes all the time",
        "lookout.py",
        "        if began < self._edits_at or not self._intake.index.usable:\n",
        "        if not self._intake.index.usable:\n",
        ("tests/test_belief.py::test_a_long_look_for_edits_does_not_hold_the_jobs_up",),
    ),
    Mutant(
        "index: no look beside our own moves",
        "lookout.py",
        "overdue = self.unsure and now >= self._safety_at",
        "overdue = False",
        ("tests/test_belief.py::test_a_worker_that_moves_looks_again_though_nothing_shows",),
    ),
)
"""When the index may be believed."""

INTAKE = (
    Mutant(
        "settings: today's count for what was accepted",
        "row.py",
        "                if getattr(job, name) is None:\n                    setattr(job, name, value)\n",
        "                pass\n",
        (
            "tests/test_retry.py::test_settings_are_copied_when_a_job_is_accepted",
            "tests/test_retry.py::test_running_worker_takes_a_new_setting_for_the_very_next_drop",
        ),
    ),
    Mutant(
        "settings: not copied at acceptance",
        "reader.py",
        "        settings = self._accept(job) if place == PENDING else None\n",
        "        settings = None\n",
        ("tests/test_retry.py::test_settings_are_copied_when_a_job_is_accepted",),
    ),
    Mutant(
        "half-written: a writer is not noticed",
        "foreign.py",
        "if status is None or files.open_for_writing_elsewhere(path):",
        "if status is None:",
        ("tests/test_intake.py::test_a_half_written_file_is_never_taken",),
    ),
    Mutant(
        "half-written: no time to settle",
        "foreign.py",
        "return abs(now - changed // 1000) < settle_time * 1e6",
        "return False",
        ("tests/test_intake.py::test_an_incomplete_file_counts_as_complete_only_when_it_has_stood_still",),
    ),
    Mutant(
        "half-written: a clock set back",
        "foreign.py",
        "return abs(now - changed // 1000)",
        "return (now - changed // 1000)",
        ("tests/test_intake.py::test_an_incomplete_file_counts_as_complete_only_when_it_has_stood_still",),
    ),
    Mutant(
        "half-written: a fault of the disk buries",
        "foreign.py",
        "        found.gone = True  # a passing",
        "        pass  # a passing",
        ("tests/test_intake.py::test_a_fault_of_the_disk_buries_nothing_and_is_looked_at_again",),
    ),
    Mutant(
        "hostile: links are followed",
        "files.py",
        '_BINARY | getattr(os, "O_NOFOLLOW", 0) |',
        "_BINARY |",
        (f"{_HOSTILE}a_hostile_file_ends_in_dead_untouched",),
    ),
    Mutant(
        "hostile: a FIFO blocks",
        "files.py",
        'getattr(os, "O_NONBLOCK", 0)',
        "0",
        ("tests/test_files.py::test_what_is_no_plain_file_is_refused_at_once",),
    ),
    Mutant(
        "hostile: anything may be read",
        "files.py",
        "        if not stat.S_ISREG(status.st_mode):\n",
        "        if False:\n",
        ("tests/test_files.py::test_what_is_no_plain_file_is_refused_at_once",),
    ),
    Mutant(
        "hostile: any size may be read",
        "files.py",
        "        if status.st_size > limit:\n",
        "        if False:\n",
        ("tests/test_files.py::test_one_byte_more_than_the_limit_is_not_read",),
    ),
    Mutant(
        "hostile: a growing file is read to its end",
        "files.py",
        "            if len(data) > limit:\n",
        "            if False:\n",
        ("tests/test_files.py::test_a_file_that_grows_while_it_is_read_is_too_large",),
    ),
    Mutant(
        "hostile: a new job may be of any size",
        "foreign.py",
        "        if size > jobs.SIZE_LIMIT:\n",
        "        if False:\n",
        (f"{_BOUNDS}a_job_above_the_limit_is_refused",),
    ),
    Mutant(
        "hostile: keys may stand twice",
        "strict_json.py",
        "    if len(found) != len(pairs):\n",
        "    if False:\n",
        ("tests/test_job.py",),
    ),
    Mutant(
        "hostile: any depth",
        "strict_json.py",
        "            if depth > DEPTH_LIMIT:\n",
        "            if False:\n",
        ("tests/test_job.py",),
    ),
    Mutant(
        "strangers: their files are taken in",
        "foreign.py",
        "        if not strangers and files.is_strangers(found.status):\n",
        "        if False:\n",
        (f"{_GUARD}a_file_of_a_stranger_is_not_run",),
    ),
    Mutant(
        "strangers: their files are claimed",
        "moves.py",
        "            if files.is_strangers(status):\n",
        "            if False:\n",
        (f"{_GUARD}a_file_of_a_stranger_is_not_run",),
    ),
    Mutant(
        "strangers: their claims are run again",
        "recover.py",
        "        if files.is_strangers(status):\n",
        "        if False:\n",
        (f"{_GUARD}a_strangers_claim_is_not_run_again",),
    ),
    Mutant(
        "strangers: a retry makes them ours",
        "hand_moves.py",
        "        if files.is_strangers(status):\n",
        "        if False:\n",
        (f"{_GUARD}a_file_of_a_stranger_is_not_run",),
    ),
    Mutant(
        "guard: any spool will do",
        "worker.py",
        "        guard.refuse_unsafe(self.layout)\n",
        "",
        (f"{_GUARD}a_worker_refuses_and_the_hint_mends_it",),
    ),
    Mutant(
        "guard: folders above do not matter",
        "guard.py",
        "    yield from unsafe_way(layout.root)\n",
        "",
        (f"{_GUARD}a_folder_above_that_others_can_write_is_refused",),
    ),
    Mutant(
        "incoming: anybody may",
        "incoming.py",
        '        elif owner not in (settings.incoming_users or "").split():',
        "        elif False:",
        ("tests/test_incoming.py::test_a_user_who_is_not_allowed_is_refused",),
    ),
    Mutant(
        "incoming: a link to somebody's file",
        "incoming.py",
        "        if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:\n",
        "        if False:\n",
        ("tests/test_incoming.py::test_what_is_no_job_is_refused_and_taken_away",),
    ),
)
"""What may come in."""
