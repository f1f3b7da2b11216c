"""Rules about jobs: each end is told, and told once."""

from __future__ import annotations

from .run import Mutant

_HOOKS = "tests/rules/test_hooks.py::test_"
_DIGESTS = "tests/rules/test_digests.py::test_"
_NOTIFY = "tests/notify/test_rules_about_jobs.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"job rules: {name}", file, old, new, tests)


JOB_RULES = (
    _mutant(
        "nothing is queued before an end is recorded",
        "storage/settle.py",
        "    if storage.before_end is not None:\n",
        "    if False:\n",
        f"{_HOOKS}a_dead_job_is_told_with_its_facts",
        f"{_HOOKS}a_job_that_a_dead_worker_has_left_is_told_by_the_one_that_takes_it_back",
    ),
    _mutant(
        "a hook is told of",
        "rules/job_trigger.py",
        "            job.about is None\n            and ",
        "            True\n            and ",
        f"{_HOOKS}a_hook_is_never_told_of",
    ),
    _mutant(
        "what a person gave up is told",
        "rules/hooks.py",
        " and job.last_error != CANCELLED",
        "",
        f"{_HOOKS}a_running_job_that_a_person_cancels_is_not_told",
    ),
    _mutant(
        "a hook does not wait for the end of which it tells",
        "rules/hooks.py",
        "            record |= wait\n",
        "            pass\n",
        f"{_HOOKS}each_hook_waits_for_the_end_that_is_not_recorded_yet",
    ),
    _mutant(
        "the second end of a job is taken for the first",
        "rules/hooks.py",
        '            if states[0] in (None, "pending", "failed"):\n',
        "            if True:\n",
        f"{_HOOKS}each_death_of_a_job_is_told",
    ),
    _mutant(
        "a hook that waits is queued once more",
        "rules/hooks.py",
        '            if states[0] in (None, "pending", "failed"):\n',
        "            if states[0] is None:\n",
        f"{_HOOKS}each_hook_waits_for_the_end_that_is_not_recorded_yet",
    ),
    _mutant(
        "what the disk refuses is forgotten",
        "rules/hooks.py",
        "            danger = str(error)\n",
        "            danger = None\n",
        f"{_HOOKS}a_full_disk_does_not_keep_the_outcome_from_being_recorded",
    ),
    _mutant(
        "what the disk refuses is kept in memory only",
        "rules/hooks.py",
        "                    untold.note(self._storage.layout, one)\n",
        "                    pass\n",
        f"{_HOOKS}a_hook_that_a_full_disk_refused_outlives_the_process_that_tried",
    ),
    _mutant(
        "nobody takes over what a dead process could not queue",
        "rules/job_rules.py",
        "            hooks.take_over()\n",
        "            pass\n",
        f"{_HOOKS}a_hook_that_a_full_disk_refused_outlives_the_process_that_tried",
    ),
    _mutant(
        "the doctor does not see what rules have not told",
        "doctor/rules.py",
        "    yield from hooks.examine(case, book)\n",
        "",
        "tests/doctor/test_hooks.py::test_what_the_disk_has_refused_is_told_with_what_helps",
    ),
    _mutant(
        "what waits for a held job is left to run",
        "index/ends.py",
        "    UNION SELECT waits.seq FROM stuck JOIN jobs AS parent ON parent.seq = stuck.seq\n",
        "    UNION SELECT waits.seq FROM stuck JOIN jobs AS parent ON NULL\n",
        f"{_DIGESTS}what_waits_for_a_held_job_is_not_left_to_run",
    ),
    _mutant(
        "two workers tell of one file that is no job",
        "rules/hooks.py",
        "                if time and locate.has_ended(",
        "                if False and locate.has_ended(",
        f"{_HOOKS}two_workers_that_find_a_file_which_is_no_job_tell_it_once",
    ),
    _mutant(
        "a file that is no job is not told",
        "storage/dead_letters.py",
        "    if storage.before_end is not None and _is_there(path, judged):\n",
        "    if False:\n",
        f"{_HOOKS}whoever_finds_a_file_that_is_no_job_has_it_told",
    ),
    _mutant(
        "a hook waits in line",
        "index/row.py",
        " - (0 if about is None else _FIRST)\n",
        "\n",
        f"{_HOOKS}a_hook_that_is_ready_goes_first",
    ),
    _mutant(
        "a hook that becomes ready waits in line",
        "index/row.py",
        ' - {_FIRST} * (about IS NOT NULL)"',
        '"',
        f"{_HOOKS}a_hook_goes_before_a_backlog_that_has_waited_for_hours",
    ),
    _mutant(
        "every good end is one after a failed run",
        "job/record.py",
        '                return end not in ("succeeded", "cancelled")\n',
        "                return True\n",
        "tests/job/test_record.py::test_a_job_has_recovered_only_after_a_run_that_failed",
    ),
    _mutant(
        "hooks count in a digest",
        "index/ends.py",
        '        parts: list[str] = [_WHAT[event], "about IS NULL", condition]\n',
        "        parts: list[str] = [_WHAT[event], condition]\n",
        f"{_DIGESTS}the_filter_the_person_and_the_hooks_do_not_count",
    ),
    _mutant(
        "what a person has done counts in a digest",
        "index/ends.py",
        '    "dead": f"state = \'dead\' AND NOT coalesce({_BY_PERSON}, 0)",\n',
        '    "dead": "state = \'dead\'",\n',
        f"{_DIGESTS}the_filter_the_person_and_the_hooks_do_not_count",
    ),
    _mutant(
        "a digest of nothing is sent",
        "worker/job_run.py",
        "        if job.about is not None and (why := self._why_not_needed()):\n",
        '        if False and (why := ""):\n',
        f"{_DIGESTS}what_is_mended_before_the_end_of_the_period_is_not_told",
    ),
    _mutant(
        "a period is told again",
        "rules/digests.py",
        "        one.note.told = told\n",
        "        pass\n",
        f"{_DIGESTS}an_empty_spool_is_told_once_after_the_last_run",
    ),
    _mutant(
        "the hook itself keeps a spool from being empty, or makes it so",
        "index/ends.py",
        '    return f"about IS NULL AND {condition}{of_batch}", [*values, *batches]\n',
        '    return f"{condition}{of_batch}", [*values, *batches]\n',
        f"{_DIGESTS}an_empty_spool_is_told_once_after_the_last_run",
    ),
    _mutant(
        "a job for tomorrow is not left to run",
        "rules/digests.py",
        "        if ends.is_any_left(",
        "        if False and ends.is_any_left(",
        f"{_DIGESTS}a_job_for_tomorrow_or_between_two_attempts_is_left_to_run",
    ),
    _mutant(
        "a clock that was set back makes a rule silent",
        "rules/digests.py",
        "            one.note.told = now  # the clock was set back\n",
        "            pass\n",
        f"{_DIGESTS}a_clock_that_was_set_back_makes_no_rule_silent",
    ),
    _mutant(
        "what a rule said before an edit is forgotten",
        "rules/digests.py",
        "        note.note_meaning(trigger.meaning, changed)\n",
        "        note.means = trigger.meaning\n",
        f"{_DIGESTS}each_end_is_told_by_what_the_rule_said_then",
    ),
    _mutant(
        "the rest of the period of an edit has no job",
        "rules/digests.py",
        "            begin = max(start, one.note.meant[-1][0]) if one.note.meant else start\n",
        "            begin = start\n",
        f"{_DIGESTS}each_end_is_told_by_what_the_rule_said_then",
    ),
    _mutant(
        "a full disk loses what was before an edit",
        "rules/digests.py",
        "            if self.refused is not None:\n                return False\n",
        "            pass\n",
        f"{_DIGESTS}what_was_before_an_edit_is_told_although_the_disk_was_full_then",
    ),
    _mutant(
        "an empty spool is told as a trial",
        "notify/message.py",
        "        told if told in (RECOVERED, EMPTY) else event,\n",
        "        event,\n",
        f"{_NOTIFY}the_subject_says_what_has_happened",
    ),
)
