"""Rules: each moment once, whatever was missed, paused, killed or set back; and who may write rules."""

from __future__ import annotations

from .run import Mutant

_MOMENTS = "tests/rules/test_occurrences.py::test_"
_TIME = "tests/rules/test_time_rules.py::test_"
_DISK = "tests/rules/test_rule_files_on_disk.py::test_"
_TROUBLE = "tests/rules/test_rules_in_trouble.py::test_"
_FILE = "tests/rules/test_rule_file.py::test_"
_TYPED = "tests/cli/test_rule.py::test_"

RULES = (
    Mutant(
        "rules: in the second of two equal hours the time of the first is due again",
        "rules/occurrences.py",
        "            if at > last:\n",
        "            if at != last:\n",
        (f"{_MOMENTS}in_the_second_of_two_equal_hours_the_time_of_the_first_has_passed",),
    ),
    Mutant(
        "rules: looking back misses a time of the first of two equal hours",
        "rules/occurrences.py",
        "        local = later if is_near_change else self._local(moment + 1)\n",
        "        local = self._local(moment + 1)\n",
        (f"{_MOMENTS}in_the_second_of_two_equal_hours_the_time_of_the_first_has_passed",),
    ),
    Mutant(
        "rules: six fields are taken for seconds",
        "rules/occurrences.py",
        "    if len(parts) != len(_FIELDS):\n",
        "    if len(parts) < len(_FIELDS):\n",
        (f"{_MOMENTS}what_is_no_cron_expression_is_refused_with_the_field_that_is_wrong",),
    ),
    Mutant(
        "rules: noted before it is queued",
        "rules/plans.py",
        "            for moment in chosen:\n",
        "            note.done = chosen[-1] if chosen else note.done\n"
        "            rule_note.write(self._layout, rule.name, note)\n"
        "            for moment in chosen:\n",
        (f"{_TIME}it_is_queued_before_it_is_noted",),
    ),
    Mutant(
        "rules: what was queued is not noted",
        "rules/plans.py",
        "                note.done = moment\n",
        "                pass\n",
        (f"{_TIME}a_job_whose_record_was_purged_is_not_run_again",),
    ),
    Mutant(
        "rules: a job that is queued but not noted counts as skipped",
        "rules/queueing.py",
        "    if not missing:\n        return None\n",
        "",
        (f"{_TIME}a_job_that_was_queued_but_not_noted_is_not_queued_twice",),
    ),
    Mutant(
        "rules: once catches up all that was missed",
        "rules/plans.py",
        "        return on_time or due[-1:]\n",
        "        return due\n",
        (f"{_TIME}after_a_week_without_workers_the_last_moment_is_run_once",),
    ),
    Mutant(
        "rules: what one busy second brings counts as missed",
        "rules/plans.py",
        "now - moment <= ON_TIME]",
        "now - moment <= 0]",
        (f"{_TIME}moments_that_one_busy_second_brings_are_not_missed",),
    ),
    Mutant(
        "rules: a new rule runs what was before it",
        "rules/plans.py",
        "            note = Note(mark=rule.mark, done=max(known.arrived, self._data_since, written))\n",
        "            note = Note(mark=rule.mark)\n",
        (f"{_TIME}nothing_from_before_a_rule_came_is_run",),
    ),
    Mutant(
        "rules: without data/ all is run again",
        "rules/plans.py",
        "done=max(known.arrived, self._data_since, written)",
        "done=max(known.arrived, written)",
        (f"{_TIME}without_data_every_rule_begins_now",),
    ),
    Mutant(
        "rules: a note that cannot be read counts as none",
        "rules/plans.py",
        "done=max(known.arrived, self._data_since, written)",
        "done=max(known.arrived, self._data_since)",
        (f"{_TIME}a_note_that_a_power_cut_left_empty_repeats_nothing",),
    ),
    Mutant(
        "rules: a pause that no worker saw is caught up",
        "api/spool_rule.py",
        "        rules.let_rest(self.layout, name)\n",
        "",
        (f"{_TIME}a_pause_that_ended_before_a_worker_looked_is_not_caught_up",),
    ),
    Mutant(
        "rules: half a list is queued",
        "rules/queueing.py",
        "    if rule.is_list and not is_begun and (other := _in_the_way",
        "    if False and (other := _in_the_way",
        (f"{_TIME}a_list_of_which_one_job_is_kept_out_by_its_key_is_passed_over_as_a_whole",),
    ),
    Mutant(
        "rules: a changed time is due for what has passed",
        "rules/plans.py",
        "            note.mark, note.done = rule.mark, known.arrived\n",
        "            note.mark = rule.mark\n",
        (
            f"{_TIME}an_hour_that_is_edited_from_nine_to_eight_at_half_past_eight_waits_for_tomorrow",
            f"{_TIME}nothing_from_before_a_rule_came_is_run",
        ),
    ),
    Mutant(
        "rules: a pause is caught up when it ends",
        "rules/plans.py",
        "        if note.rests and not is_paused:\n",
        "        if False:\n",
        (f"{_TIME}of_a_month_in_a_pause_nothing_is_caught_up", f"{_TIME}a_file_that_was_away_is_as_a_pause"),
    ),
    Mutant(
        "rules: that a file is away is not noted",
        "rules/plans.py",
        "            self._rest_without_files()\n",
        "            pass\n",
        (f"{_TIME}a_file_that_was_away_is_as_a_pause",),
    ),
    Mutant(
        "rules: a clock that was set back by hours is believed at once",
        "rules/plans.py",
        "            if self._monotonic() - self._doubted[name] >= DOUBT:\n",
        "            if True:\n",
        (f"{_TIME}a_clock_that_was_a_day_ahead_is_doubted_for_ten_minutes_and_repeats_nothing",),
    ),
    Mutant(
        "rules: a clock that was set back by hours ends a rule",
        "rules/plans.py",
        "                plan.note.done = int(now)\n",
        "                pass\n",
        (f"{_TIME}a_clock_that_was_a_day_ahead_is_doubted_for_ten_minutes_and_repeats_nothing",),
    ),
    Mutant(
        "rules: a clock that was set back by half an hour is doubted",
        "rules/plans.py",
        "plan.note.done > now + SET_BACK]",
        "plan.note.done > now]",
        (f"{_TIME}a_clock_that_is_set_back_by_half_an_hour_repeats_nothing_and_waits",),
    ),
    Mutant(
        "rules: a new zone of the machine moves nothing",
        "rules/plans.py",
        "        if zone is not self._zone:\n",
        "        if False:\n",
        (f"{_TIME}a_new_zone_of_the_machine_moves_the_next_moments_and_repeats_none",),
    ),
    Mutant(
        "rules: a blocked job ends the pipeline for ever",
        "rules/queueing.py",
        "rule=rule, blocked=False, limit=1)",
        "rule=rule, limit=1)",
        (f"{_TIME}a_night_in_which_a_step_died_does_not_end_the_pipeline",),
    ),
    Mutant(
        "rules: two nights of a pipeline run at once",
        "rules/queueing.py",
        "    if must_be_alone and (other",
        "    if False and (other",
        (f"{_TIME}a_night_in_which_a_step_died_does_not_end_the_pipeline",),
    ),
    Mutant(
        "rules: a job has no key against overlap",
        "rules/job_template.py",
        '        if trigger.overlap != "allow" and not rule.is_list',
        "        if False and not rule.is_list",
        (f"{_TIME}of_a_job_that_takes_longer_than_the_span_there_is_never_a_second_one",),
    ),
    Mutant(
        "rules: the delay is drawn anew each time",
        "rules/job_template.py",
        'int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")',
        'int.from_bytes(__import__("os").urandom(8), "big")',
        (f"{_FILE}the_delay_of_an_occurrence_is_the_same_each_time_and_differs_between_them",),
    ),
    Mutant(
        "rules: a job that is too late is queued to die",
        "rules/queueing.py",
        '        return "expires_in was over"\n',
        "        pass\n",
        (f"{_TIME}a_moment_whose_time_is_over_makes_no_dead_job",),
    ),
    Mutant(
        "rules: jobs are queued while others may write into the spool",
        "rules/scheduler.py",
        "        if self._find_danger() is not None:\n",
        "        if False:\n",
        (f"{_TIME}while_others_may_write_into_the_spool_nothing_is_queued",),
    ),
    Mutant(
        "rules: a slice that has passed leaves everything for the next one",
        "rules/plans.py",
        "        for number, plan in enumerate(due, 1):\n",
        "        for number, plan in enumerate(due, 1):\n"
        "            if self._monotonic() > until:\n"
        "                self.is_complete = False\n"
        "                break\n",
        (f"{_TIME}a_thousand_rules_at_one_moment_are_all_queued_in_slices",),
    ),
    Mutant(
        "rules: a half-written file is taken",
        "rules/rule_book.py",
        "            if safe_open.is_open_for_writing(path):\n",
        "            if False:\n",
        (f"{_DISK}a_half_written_rule_leaves_the_one_from_before_in_force",),
    ),
    Mutant(
        "rules: a file that has just been written is judged",
        "rules/rule_book.py",
        "            if self._is_being_written(path):\n",
        "            if False:\n",
        (
            f"{_DISK}a_wrong_rule_that_has_just_been_written_is_not_judged_yet",
            f"{_DISK}a_half_written_rule_leaves_the_one_from_before_in_force",
        ),
    ),
    Mutant(
        "rules: a file that others may write is a rule",
        "rules/rule_book.py",
        "        safe_open.refuse_untrusted(path, status)\n",
        "",
        (f"{_DISK}a_link_and_a_file_that_others_may_write_are_no_rules",),
    ),
    Mutant(
        "rules: a reason that cannot be written ends all rules",
        "rules/plans.py",
        "                except OSError:\n                    refused = True\n",
        "                except ZeroDivisionError:\n                    refused = True\n",
        (f"{_TROUBLE}a_wrong_file_whose_reason_cannot_be_written_ends_no_other_rule",),
    ),
    Mutant(
        "rules: a reason that the disk refused is tried at each look",
        "rules/plans.py",
        "        self._reasons_at = self._monotonic() + _REASONS_AGAIN if refused",
        "        self._reasons_at = self._monotonic() if refused",
        (f"{_TROUBLE}a_reason_that_the_disk_refused_is_written_a_minute_later",),
    ),
    Mutant(
        "rules: a note that the disk refused is never written",
        "rules/plans.py",
        "            self._unwritten[name] = note\n",
        "            pass\n",
        (f"{_TROUBLE}a_note_that_the_disk_refuses_delays_no_job_and_is_written_as_soon_as_it_can_be",),
    ),
    Mutant(
        "rules: a file that was refused for its mode stays refused",
        "rules/rule_book.py",
        " and not isinstance(known.fault, Refused):",
        ":",
        (f"{_TROUBLE}a_file_that_others_could_write_counts_as_soon_as_its_mode_is_mended",),
    ),
    Mutant(
        "rules: files with a time from the future are read at each look",
        "config/stamp.py",
        " and status.st_mtime_ns - now < _AHEAD\n",
        "\n",
        (f"{_TROUBLE}rules_with_a_time_ahead_of_the_clock_are_read_once",),
    ),
    Mutant(
        "rules: what is too much to be caught up passes without a trace",
        "rules/plans.py",
        "            self._count_older(trigger, note, due[0])\n",
        "            pass\n",
        (f"{_TIME}what_is_too_much_to_be_caught_up_is_counted",),
    ),
    Mutant(
        "rules: check finds a name good that no rule can have",
        "api/rules.py",
        "    if ending in RULE_FILES:\n",
        "    if False:\n",
        (f"{_TYPED}check_refuses_a_name_that_no_rule_can_have",),
    ),
    Mutant(
        "rules: the folder of rules is not guarded",
        "control/permissions.py",
        "    return layout.queues, layout.rules, layout.config_yaml",
        "    return layout.queues, layout.config_yaml",
        (f"{_DISK}who_may_write_into_the_folder_of_rules_stops_the_workers",),
    ),
    Mutant(
        "rules: an idle worker wakes only at its next look",
        "worker/upkeep.py",
        "        self.due_at = min(self.due_at, time.monotonic() + self.rules.due_in())\n",
        "",
        (f"{_DISK}an_idle_worker_wakes_within_a_fraction_of_its_look",),
    ),
    Mutant(
        "rules: a draining worker leaves before all is queued",
        "worker/worker.py",
        "        if self._upkeep.owes_rules():\n",
        "        if False:\n",
        (f"{_DISK}a_draining_worker_queues_all_that_is_due_however_slow",),
    ),
    Mutant(
        "rules: producers may name a rule",
        "job/record.py",
        '_NAMES[: _NAMES.index("state")]\n',
        '(*_NAMES[: _NAMES.index("state")], "rule", "scheduled_for")\n',
        (f"{_TYPED}a_producer_cannot_claim_that_a_rule_has_made_its_job",),
    ),
    Mutant(
        "rules: another user takes the id of a rule's next job",
        "intake/drop_folder.py",
        "        if _OF_A_RULE.fullmatch(job.id):\n",
        "        if False:\n",
        ("tests/intake/test_drop_folder.py::test_another_user_cannot_take_the_place_of_a_rule",),
    ),
    Mutant(
        "rules: another user says which rule has made a job",
        "intake/drop_folder.py",
        "        job.rule = job.scheduled_for = job.source = job.event = job.about = None\n",
        "",
        ("tests/intake/test_drop_folder.py::test_another_user_cannot_take_the_place_of_a_rule",),
    ),
    Mutant(
        "rules: a long list is queued in one go",
        "rules/queueing.py",
        "        if record is not missing[-1] and is_time_up():\n",
        "        if False:\n",
        ("tests/rules/test_time_rules.py::test_a_long_list_holds_no_worker_up_and_is_queued_once",),
    ),
)
