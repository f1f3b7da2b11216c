"""What is tried again, kept apart and deleted."""

from __future__ import annotations

from .run import Mutant

_RETRY = "tests/job/test_outcome.py::test_"
_EXPIRY = "tests/storage/test_expiry.py::test_"

RETRIES = (
    Mutant(
        "retry: the default limit is tried again",
        "job/outcome.py",
        "outcome.ending == Ending.CANCELLED or ended_by_default:",
        "outcome.ending == Ending.CANCELLED:",
        ("tests/worker/test_job_run.py::test_timeout_by_default_is_not_repeated_and_says_how_to_give_more",),
    ),
    Mutant(
        "retry: the default limit of a dropped job is tried again",
        "index/row.py",
        "                    job.accept(name, value)",
        "                    setattr(job, name, value)",
        ("tests/worker/test_job_run.py::test_timeout_by_default_is_not_repeated_for_a_dropped_file",),
    ),
    Mutant(
        "retry: a chosen limit is taken for the default",
        "job/changes.py",
        '        record.pop("default_timeout", None)',
        "        pass",
        ("tests/worker/test_job_run.py::test_a_chosen_timeout_is_repeated_although_it_equals_the_default",),
    ),
    Mutant(
        "retry: retry_on wins over give_up_on",
        "job/outcome.py",
        "        if exit_code in (job.give_up_on or ()):",
        "        if exit_code in (job.give_up_on or ()) and exit_code not in (job.retry_on or ()):",
        (f"{_RETRY}exit_codes_decide_whether_it_is_tried_again",),
    ),
    Mutant(
        "retry: the code a shell gives a signal counts",
        "job/outcome.py",
        "exit_code=outcome.exit_code if outcome.ending == Ending.FAILED else None,",
        "exit_code=outcome.exit_code,",
        (f"{_RETRY}a_signal_a_timeout_and_no_start_are_tried_again",),
    ),
    Mutant(
        "retry: jitter passes the cap",
        "job/outcome.py",
        "    return min(min(wait, cap / (1 + jitter)) * (1 + jitter * draw), cap)",
        "    return min(wait, cap) * (1 + jitter * draw)",
        (f"{_RETRY}jitter_lengthens_a_wait_and_never_passes_the_cap",),
    ),
    Mutant(
        "retry: all at the cap come back together",
        "job/outcome.py",
        "min(wait, cap / (1 + jitter))",
        "wait",
        (f"{_RETRY}waits_at_the_cap_are_spread_too",),
    ),
    Mutant(
        "expiry: a worker runs what has expired",
        "worker/job_run.py",
        "        if job.expired(storage.now()):",
        "        if False:",
        (f"{_EXPIRY}an_expired_job_is_not_run_and_not_charged",),
    ),
    Mutant(
        "expiry: what the index said is believed",
        "worker/maintenance.py",
        "            dead_letters.bury(storage, row, reason, if_still=partial(_gives_up, storage, row, now))",
        "            dead_letters.bury(storage, row, reason)",
        (f"{_EXPIRY}a_moment_that_was_moved_in_the_file_counts",),
    ),
    Mutant(
        "expiry: what was put back expires again",
        "job/record.py",
        "        if self.expired(put_back):\n            self.expires_at = None\n",
        "",
        (f"{_EXPIRY}who_puts_an_expired_job_back_wants_it_to_run",),
    ),
    Mutant(
        "expiry: all that wait are looked through",
        "index/queries.py",
        "INDEXED BY jobs_expires WHERE expires <",
        "WHERE expires <",
        (f"{_EXPIRY}a_million_waiting_jobs_are_not_looked_through",),
    ),
)
"""Retries, and up to when a start is worth it."""

_UNIQUE = "tests/storage/test_unique_keys.py::test_"


TIMES = (
    Mutant(
        "times: a dropped time means the TZ of the reader",
        "job/fields.py",
        "    return times.parse_moment(value, of_machine=True)",
        "    return times.parse_moment(value)",
        ("tests/job/test_spoken_times.py::test_a_time_in_a_file_means_the_machines_zone_whoever_reads",),
    ),
    Mutant(
        "times: a small number is epoch seconds",
        "job/times.py",
        "    if 0 < moment < EARLIEST_NUMBER:",
        "    if False:",
        ("tests/job/test_spoken_times.py::test_a_number_before_2001_is_refused_with_the_way_to_write_it",),
    ),
    Mutant(
        "times: the hour that spring leaves out is an hour early",
        "job/times.py",
        "    return when.timestamp()  # not",
        "    return when.astimezone().timestamp()  # not",
        ("tests/job/test_spoken_times.py::test_the_hour_that_spring_takes_away_is_an_hour_later",),
    ),
    Mutant(
        "yaml: 030 is a number",
        "config/plain_yaml.py",
        "    Loader.add_constructor(_UNCLEAR, _refuse)",
        "    Loader.add_constructor(_UNCLEAR, lambda _, node: int(node.value, 0))",
        (
            "tests/config/test_plain_yaml.py::test_number_that_is_read_in_different_ways_is_refused_with_its_line",
        ),
    ),
    Mutant(
        "retry: after the clock was set back a job waits for years",
        "worker/maintenance.py",
        "            self._index.shorten_waits(times.micros(now))",
        "            pass",
        ("tests/worker/test_clock_set_back.py::test_clock_that_is_set_back_under_a_worker_is_noticed",),
    ),
    Mutant(
        "after: a job waits until the clock has passed the end of its parent",
        "worker/maintenance.py",
        "        self._index.shorten_waits_for_parents(times.micros(now))\n",
        "",
        ("tests/worker/test_clock_set_back.py::test_a_job_whose_parent_ended_ahead_of_the_clock_starts",),
    ),
    Mutant(
        "job: a command that no kernel starts is accepted",
        "job/fields.py",
        "    if len(text) * 4 > LONGEST_WORD and",
        "    if False and len(text) and",
        ("tests/job/test_longest_command.py::test_what_can_never_run_is_refused",),
    ),
    Mutant(
        "start: modules come from the caller's folder",
        "worker/program.py",
        '    return [sys.executable, "-P", os.path',
        "    return [sys.executable, os.path",
        (
            "tests/cli/test_foreign_folders.py::test_program_runs_from_everywhere_without_its_folder_in_the_path",
        ),
    ),
)

KEYS = (
    Mutant(
        "unique: producers decide all at once",
        "storage/unique_keys.py",
        "    with held(path, patience",
        '    with held(f"{path}{id(storage)}", patience',
        (f"{_UNIQUE}who_comes_second_waits_for_the_first_to_decide",),
    ),
    Mutant(
        "unique: what was seen before the lock counts",
        "storage/unique_keys.py",
        "            storage.refresh()\n            yield\n",
        "            yield\n",
        (f"{_UNIQUE}of_eight_producers_at_once_one_wins",),
    ),
    Mutant(
        "unique: an index that is gone knows of no key",
        "storage/unique_keys.py",
        "        storage.refresh()  # it was deleted or damaged just now\n",
        "        pass\n",
        (f"{_UNIQUE}an_index_that_breaks_while_it_is_asked_hides_no_key",),
    ),
    Mutant(
        "unique: a claim believes the index",
        "storage/claim.py",
        "        if row.unique_key is not None and unique_keys.another_is_claimed(storage, row.unique_key, target):",
        "        if False:",
        (f"{_UNIQUE}a_claim_looks_into_the_folders",),
    ),
    Mutant(
        "unique: between two attempts the key is free",
        "storage/unique_keys.py",
        '    if row.state == "pending" and index.has_begun(key, row.seq or 0):',
        "    if False:",
        (f"{_UNIQUE}a_job_that_has_begun_has_its_key_until_it_is_over",),
    ),
    Mutant(
        "unique: a held job keeps its key",
        "index/queries.py",
        "AND state = 'failed' AND {waits} AND seq != ? LIMIT 1",
        "AND state = 'failed' AND seq != ? LIMIT 1",
        (f"{_UNIQUE}a_held_one_between_two_attempts_is_not_waited_for",),
    ),
    Mutant(
        "unique: what has expired keeps its key",
        "storage/unique_keys.py",
        '    return row.state == "processing" or row.expires is None or row.expires >= micros(now)\n',
        "    return True\n",
        (f"{_UNIQUE}one_that_has_expired_keeps_nobody_out",),
    ),
    Mutant(
        "unique: a replaced file of a stranger is deleted",
        "storage/unique_keys.py",
        "        if old.created_at is not None and not (old.runs or old.attempts):",
        "        if not (old.runs or old.attempts):",
        (f"{_UNIQUE}dropped_files_replace_and_queue",),
    ),
    Mutant(
        "unique: a replaced job that has run is deleted",
        "storage/unique_keys.py",
        "        if old.created_at is not None and not (old.runs or old.attempts):",
        "        if old.created_at is not None:",
        (f"{_UNIQUE}what_has_run_before_it_is_replaced_is_kept",),
    ),
    Mutant(
        "unique: what has just ended still runs",
        "storage/unique_keys.py",
        "if job.unique == key and not locate.is_settled(layout, job, but=path):",
        "if job.unique == key:",
        (f"{_UNIQUE}the_next_one_starts_as_soon_as_the_key_is_free",),
    ),
    Mutant(
        "unique: nobody lets the next one in",
        "index/schema.py",
        "    AND (NEW.state != 'processing' OR NEW.unique_key IS NOT OLD.unique_key) BEGIN {_RELEASE_NEXT} END;",
        "    AND (NEW.state != 'processing' OR NEW.unique_key IS NOT OLD.unique_key) BEGIN SELECT 1; END;",
        (f"{_UNIQUE}those_that_wait_behind_another_are_no_work",),
    ),
    Mutant(
        "unique: a row that goes lets nobody in",
        "index/schema.py",
        "WHEN OLD.unique_key IS NOT NULL BEGIN {_RELEASE_NEXT} END;",
        "WHEN OLD.unique_key IS NOT NULL BEGIN SELECT 1; END;",
        (f"{_UNIQUE}the_next_one_is_let_in_however_the_first_in_line_leaves",),
    ),
    Mutant(
        "unique: a file deleted by hand keeps its key",
        "storage/unique_keys.py",
        "                if not os.path.lexists(os.path.join(storage.layout.root, row.place, row.name)):",
        "                if False:",
        (f"{_UNIQUE}a_running_jobs_file_that_was_deleted_by_hand_frees_its_key",),
    ),
    Mutant(
        "unique: a new index judges all drops again",
        "storage/unique_keys.py",
        "        return (row.created_at or row.arrived) <= arrived\n",
        "        return True\n",
        (f"{_UNIQUE}an_index_made_anew_judges_nobody_again",),
    ),
    Mutant(
        "unique: a key written in later is not seen",
        "storage/claim.py",
        "            if (job.unique, lane_of(job), conditions_of(job)) != (row.unique_key, row.lane, row.conditions):\n",
        "            if False:\n",
        (f"{_UNIQUE}a_key_written_into_a_waiting_file_counts_at_the_claim",),
    ),
    Mutant(
        "unique: what a person puts back is judged",
        "intake/admission.py",
        "    return job.unique is not None and job.created_at is job.updated_at is None\n",
        "    return job.unique is not None\n",
        (
            f"{_UNIQUE}a_key_written_into_a_waiting_file_counts_at_the_claim",
            "tests/storage/test_unique_keys.py",
        ),
    ),
)
"""Unique keys."""

_KEPT = "tests/storage/test_retention.py::test_"

KEPT = (
    Mutant(
        "retention: what has changed loses its logs",
        "storage/retention.py",
        "        if is_file_of(row, status) and not safe_open.has_other_owner(status):",
        "        if True:",
        (f"{_KEPT}what_has_changed_meanwhile_stays",),
    ),
    Mutant(
        "retention: what changes at the last moment goes",
        "storage/dead_letters.py",
        "        if unchanged and not _is_unchanged(row, path):",
        "        if False:",
        (f"{_KEPT}what_changes_at_the_last_moment_stays",),
    ),
    Mutant(
        "retention: what cannot be read goes",
        "storage/retention.py",
        "    except (OSError, safe_open.NotReadable, InvalidJob):\n        return None\n    return None",
        "    except (OSError, safe_open.NotReadable, InvalidJob):\n        return 0\n    return None",
        (f"{_KEPT}what_cannot_be_read_as_a_job_stays",),
    ),
    Mutant(
        "retention: what may not go keeps all others",
        "storage/retention.py",
        "                    self._skipped[state] += 1\n",
        "                    pass\n",
        (f"{_KEPT}what_cannot_be_read_as_a_job_stays",),
    ),
    Mutant(
        "retention: a wait counts as time in dead/",
        "storage/retention.py",
        '_OVER = "max(coalesce(updated_at, 0), arrived)"',
        '_OVER = "coalesce(updated_at, arrived)"',
        (f"{_KEPT}a_job_given_up_by_hand_counts_from_then",),
    ),
    Mutant(
        "retention: what has just ended goes",
        "storage/retention.py",
        "max(age or 0.0, KEPT_AT_LEAST)",
        "(age or 0.0)",
        (f"{_KEPT}what_has_just_ended_stays_for_a_moment",),
    ),
    Mutant(
        "retention: the record goes before its logs",
        "storage/retention.py",
        "    logs = size = 0\n    for path in",
        "    if not logs_only:\n        dead_letters.forget(storage, row, unchanged=True)\n    logs = size = 0\n    for path in",
        (f"{_KEPT}dying_in_the_middle_leaves_whole_records",),
    ),
    Mutant(
        "retention: a slice has no end",
        "storage/retention.py",
        "        until = time.monotonic() + SLICE",
        "        until = time.monotonic() + 1e9",
        (f"{_KEPT}a_slice_is_short_and_the_next_one_goes_on",),
    ),
)
"""What is deleted, and what is not."""
