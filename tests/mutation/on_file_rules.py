"""Rules that watch folders: each file whole, and once, whatever writes it and whoever is killed."""

from __future__ import annotations

from .run import Mutant

_RULES = "tests/rules/test_file_rules.py::test_"
_FILE = "tests/rules/test_file_rule_file.py::test_"
_IDLE = "tests/worker/test_idle.py::test_"
_TYPED = "tests/cli/test_file_rule.py::test_"
_SEEN = "tests/rules/test_seen_files.py::test_"
_MOVED = "tests/rules/test_moved_files.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"file rules: {name}", file, old, new, tests)


FILE_RULES = (
    _mutant(
        "the names of unfinished files are taken",
        "rules/file_trigger.py",
        "            if is_unfinished(name) or (",
        "            if (",
        f"{_FILE}the_names_of_unfinished_files_are_never_meant",
    ),
    _mutant(
        "a coarse time of a file is taken at its word",
        "rules/folder_look.py",
        "    return changed + step\n",
        "    return changed\n",
        "tests/rules/test_folders_by_others.py::test_where_times_are_coarse_a_file_is_not_older_than_it_may_be",
    ),
    _mutant(
        "the disk is told to keep the ends before all of them are known",
        "rules/file_claims.py",
        '                over.append((found, state or "gone"))\n',
        '                over or self._keep_ends()\n                over.append(([], "gone"))\n'
        '                self._finish(found, state or "gone")\n',
        f"{_MOVED}no_file_goes_whose_job_has_ended_after_the_disk_was_told_to_keep_the_ends",
    ),
    _mutant(
        "a companion is taken for a file",
        "rules/file_trigger.py",
        "            return not is_companion(name)\n",
        "            return True\n",
        f"{_FILE}a_pattern_and_the_companions_decide_which_names_are_meant",
    ),
    _mutant(
        "the spool itself is watched",
        "rules/rule_file.py",
        "and trigger.overlaps(layout)",
        "and False",
        f"{_FILE}no_rule_watches_the_spool_itself",
    ),
    _mutant(
        "an empty file is complete",
        "rules/folder_look.py",
        "    if one.size == 0:\n",
        "    if False:\n",
        f"{_RULES}an_empty_file_waits_until_it_has_data",
    ),
    _mutant(
        "a file need not rest",
        "rules/folder_look.py",
        "    if trigger.settle and (",
        "    if False and (",
        f"{_RULES}a_file_is_taken_only_after_it_has_been_unchanged_for_the_settle_time",
    ),
    _mutant(
        "a file that somebody writes is complete",
        "rules/watched_folder.py",
        "            if reason := folder_look.in_use(path):\n",
        "            if reason := None:\n",
        f"{_RULES}a_file_that_is_open_for_writing_is_not_taken_however_long_its_writer_pauses",
    ),
    _mutant(
        "a time that lies ahead of the clock counts as old",
        "rules/watched_folder.py",
        "        if not self._is_remote and age >= self.trigger.settle:\n",
        "        if not self._is_remote and abs(age) >= self.trigger.settle:\n",
        f"{_RULES}where_the_clock_of_the_files_is_wrong_two_looks_decide",
    ),
    _mutant(
        "the clock of another machine is believed",
        "rules/watched_folder.py",
        "        if not self._is_remote and age >= self.trigger.settle:\n",
        "        if age >= self.trigger.settle:\n",
        f"{_RULES}a_remote_folder_is_looked_at_at_each_poll_and_decided_by_two_looks",
    ),
    _mutant(
        "the id of a job does not come from its file",
        "rules/watched_folder.py",
        "    digest = hashlib.sha256(text.encode()).digest()\n",
        "    digest = os.urandom(32)\n",
        f"{_RULES}a_job_that_was_queued_and_not_noted_is_found_by_its_id",
    ),
    _mutant(
        "a file that its unique key keeps out is noted as taken",
        "rules/watched_folder.py",
        "            if taken := next((skipped[job_id] for job_id in ids if job_id in skipped), None):\n",
        "            if taken := None:\n",
        f"{_RULES}files_of_one_unique_key_are_taken_one_after_the_other",
    ),
    _mutant(
        "what was taken is not noted",
        "rules/watched_folder.py",
        "                lines.append(seen_files.line(one))\n",
        "                pass\n",
        f"{_RULES}a_file_whose_job_was_purged_is_not_taken_again_before_the_list_is_deleted",
    ),
    _mutant(
        "a file with another inode is another file",
        "rules/seen_files.py",
        " or hash((*what, one.below)) in self._known\n",
        "\n",
        f"{_RULES}a_folder_that_is_mounted_again_with_other_inodes_makes_nothing_twice",
    ),
    _mutant(
        "a renamed file is another file",
        "rules/seen_files.py",
        "        return hash((*what, one.inode)) in self._known or ",
        "        return ",
        f"{_RULES}renaming_and_changing_the_mode_make_no_new_job_but_touching_and_replacing_do",
    ),
    _mutant(
        "the list forgets what is not mounted",
        "rules/seen_files.py",
        "((one[4], one[5]) not in folders or",
        "(False or",
        f"{_RULES}the_list_of_files_forgets_what_is_gone_but_not_what_is_not_mounted",
    ),
    _mutant(
        "all files wait at once",
        "rules/watched_folder.py",
        "            number = min(room, _AT_ONCE)\n",
        "            number = _AT_ONCE\n",
        f"{_RULES}of_very_many_files_only_so_many_wait_at_once_and_all_are_taken",
    ),
    _mutant(
        "a look goes on until it is done",
        "rules/watched_folder.py",
        "            is_over = all(self._monotonic() <= until for _ in self._look)\n",
        "            is_over = all(True for _ in self._look)\n",
        f"{_RULES}a_look_at_a_huge_folder_is_done_in_slices",
    ),
    _mutant(
        "a link in place of taken/ is followed",
        "rules/claimed_files.py",
        "    if not stat.S_ISDIR(os.lstat(path).st_mode):\n",
        "    if not os.path.isdir(path):\n",
        f"{_RULES}a_link_in_place_of_the_folder_for_taken_files_leads_nothing_away",
    ),
    _mutant(
        "a link in place of a folder for taken files is followed",
        "system/safe_open.py",
        "            inner = os.open(name, _FOLDER, dir_fd=fd)\n",
        "            inner = os.open(name, os.O_RDONLY, dir_fd=fd)\n",
        f"{_MOVED}a_link_that_somebody_puts_in_the_way_leads_to_no_file_of_the_worker",
    ),
    _mutant(
        "what lies beside a file is deleted with it",
        "rules/claimed_files.py",
        "        _delete(one, companion)\n    _move_to_done(one)\n",
        "        _delete(one, companion)\n    for below in _files_of(one):\n        _delete(one, below)\n",
        f"{_MOVED}what_a_command_writes_beside_a_file_that_is_deleted_is_kept",
    ),
    _mutant(
        "a file that another spool has taken is queued, too",
        "rules/file_claims.py",
        ' and job_id.startswith(f"{self._rule.name}.{FILE}{self._mark}"):\n',
        ":\n",
        f"{_MOVED}a_file_that_the_same_rule_of_another_spool_has_taken_makes_no_second_job",
    ),
    _mutant(
        "a draining worker leaves the files behind for which there was no room",
        "rules/watched_folder.py",
        "self._complete and not self._claims.has_unqueued and self._has_room()",
        "self._complete and not self._is_full",
        f"{_RULES}a_draining_worker_stays_for_the_files_that_at_most_has_left",
    ),
    _mutant(
        "the files of a folder that cannot be read are forgotten",
        "rules/folder_look.py",
        "                with os.scandir(path) as entries:\n                    yield from",
        "                self.identities.add(identity)\n                with os.scandir(path) as entries:\n                    yield from",
        f"{_SEEN}the_files_of_a_folder_that_could_not_be_read_for_a_while_are_not_taken_again",
    ),
    _mutant(
        "the files whose names a rule does not mean now are forgotten",
        "rules/seen_files.py",
        " or one[0] in passed_over)",
        ")",
        f"{_SEEN}the_files_whose_names_a_rule_did_not_mean_for_a_while_are_not_taken_again",
    ),
    _mutant(
        "all files are taken out of the folder while a job has their unique key",
        "rules/file_claims.py",
        "        self.has_unqueued = len(queued) < len(claims)\n",
        "        self.has_unqueued = False\n",
        f"{_MOVED}while_a_job_has_the_unique_key_few_files_are_taken_out_of_the_folder",
    ),
    _mutant(
        "nobody is told of files with the names of unfinished ones",
        "rules/folder_look.py",
        'self.unfinished += name[0] != "." and is_unfinished(name)',
        "pass",
        f"{_TYPED}show_tells_what_it_would_take_and_what_the_others_wait_for",
    ),
    _mutant(
        "a file that was replaced while it was taken is queued",
        "rules/file_claims.py",
        "            claimed_files.put_back(moved)  # somebody has replaced it just now: it is judged itself\n            return None\n",
        "            pass\n",
        f"{_RULES}a_file_that_is_replaced_while_it_is_taken_is_judged_itself",
    ),
    _mutant(
        "a file without a job is left in taken/",
        "rules/file_claims.py",
        "                unqueued += filter(self._is_main, found)\n",
        "                pass\n",
        f"{_RULES}a_file_that_was_taken_before_a_crash_is_queued_at_the_next_look",
    ),
    _mutant(
        "the file of a deleted job is queued again",
        "rules/file_claims.py",
        "            elif state is None and is_noted:\n                self.gone.add(job_id)\n",
        "",
        f"{_RULES}a_file_whose_job_somebody_deleted_goes_to_failed_and_makes_no_new_job",
    ),
    _mutant(
        "while jobs are refused more and more files are taken",
        "rules/watched_folder.py",
        "        while self._complete and room > 0 and not self._claims.has_unqueued:\n",
        "        while self._complete and room > 0:\n",
        f"{_MOVED}while_a_job_has_the_unique_key_few_files_are_taken_out_of_the_folder",
    ),
    _mutant(
        "a file of which no job can be made keeps all others waiting",
        "rules/watched_folder.py",
        "            except InvalidJob as error:",
        "            except PermissionError as error:",
        f"{_RULES}a_file_of_which_no_job_can_be_made_keeps_no_other_one_waiting",
    ),
    _mutant(
        "the worker leaves the file of its job where it is",
        "worker/settle_batch.py",
        "                if claim.job.source is not None:\n",
        "                if False:\n",
        f"{_TYPED}the_worker_of_a_job_moves_its_file_also_when_the_rule_is_gone",
    ),
    _mutant(
        "a dead job that runs again does not find its file",
        "worker/job_run.py",
        "            if job.source is not None:\n",
        "            if False:\n",
        f"{_TYPED}a_dead_job_that_runs_again_gets_its_file_back",
    ),
    _mutant(
        "a draining worker leaves files behind",
        "rules/scheduler.py",
        "plans.is_due() or (files is not None and files.has_work)",
        "plans.is_due()",
        f"{_TYPED}a_draining_worker_takes_what_is_there_before_it_leaves",
    ),
    _mutant(
        "a sleeping worker does not watch the folders of rules",
        "worker/idle.py",
        "        more += [(path, watcher.FOR_RULES) for path in self._rules.watched]\n",
        "",
        f"{_IDLE}a_file_that_is_written_in_place_in_a_watched_folder_ends_the_sleep",
    ),
    _mutant(
        "an event in a folder that a rule watches makes nobody look into it",
        "worker/idle.py",
        "                self._rules.look_again()\n",
        "                pass\n",
        f"{_IDLE}a_file_that_is_written_in_place_in_a_watched_folder_ends_the_sleep",
    ),
    _mutant(
        "rule run queues a job for no file",
        "api/spool_rule.py",
        '        if one.kind == "file":\n',
        "        if False:\n",
        f"{_TYPED}run_is_refused_as_there_is_no_file_to_run_it_for",
    ),
    _mutant(
        "a file goes before the disk has the end of its job",
        "worker/settle_batch.py",
        " or source_files.is_taken(claim.job) for claim in part)",
        " for claim in part)",
        "tests/rules/test_moved_files.py::test_the_disk_has_the_end_of_a_job_before_its_file_goes",
    ),
)
