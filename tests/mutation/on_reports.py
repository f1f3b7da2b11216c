"""What is seen and mended: dead letters, logs, stats, metrics, the live screen."""

from __future__ import annotations

from .run import Mutant

_DLQ = "tests/cli/test_dlq_show_edit.py::test_"
_LOGS = "tests/cli/test_logs_of_long_runs.py::test_"
_STATS = "tests/api/test_stats.py::test_"
_METRICS = "tests/api/test_metrics.py::test_"
_COLUMNS = "tests/cli/test_list_columns.py::test_"
_TOP = "tests/cli/test_top.py::test_"

LETTERS = (
    Mutant(
        "dlq: a twin is sent back over the job that has its id",
        "storage/bulk_moves.py",
        "        locate.refuse_taken(storage, job.id",
        "        print(job.id",
        (f"{_DLQ}twin_is_not_retried_over_the_job_that_has_its_id",),
        times=2,
    ),
    Mutant(
        "dlq: an edit lands on what has changed meanwhile",
        "storage/dead_letters.py",
        "        if read_own(path)[0] != before:\n            raise just_moved(row)\n",
        "        read_own(path)\n",
        (f"{_DLQ}file_that_changed_meanwhile_is_not_overwritten",),
    ),
    Mutant(
        "dlq: an edit may rename a job",
        "storage/dead_letters.py",
        "    if job.id != row.id and row.command:\n",
        "    if False:\n",
        (f"{_DLQ}id_of_a_job_cannot_be_edited",),
    ),
    Mutant(
        "dlq: what was typed is thrown away",
        "cli/editor.py",
        "            keep = True\n",
        "            keep = False\n",
        (f"{_DLQ}refused_edit_keeps_what_was_typed",),
    ),
    Mutant(
        "dlq: --set takes any field",
        "job/changes.py",
        "    if name in CHANGEABLE:\n",
        "    if name in jobs.KNOWN:\n",
        (
            f"{_DLQ}change_that_cannot_be_is_refused",
            f"{_DLQ}python_retry_refuses_what_a_person_may_not_change",
        ),
    ),
    Mutant(
        "dlq: the column is one off",
        "job/fault_location.py",
        "at[1] - start)",
        "at[1] - start + 1)",
        (f"{_DLQ}show_says_where_a_file_is_wrong",),
    ),
    Mutant(
        "clear: the filters are for the question only",
        "cli/commands/clear.py",
        "spool.clear(state, where=described)",
        "spool.clear(state)",
        (f"{_DLQ}clear_takes_the_filters", f"{_DLQ}dlq_takes_the_filters"),
    ),
)

SEEING = (
    Mutant(
        "metrics: who waits for a unique key counts as held",
        "api/metrics.py",
        " - scheduled - retried - behind\n",
        " - scheduled - retried\n",
        ("tests/api/test_metrics.py::test_a_job_that_waits_for_its_unique_key_is_not_held",),
    ),
    Mutant(
        "index: a WAL is mapped on any disk",
        "index/database.py",
        "        if has_small_blocks(self.path) or (",
        "        if (",
        ("tests/index/test_full_disk.py::test_nothing_is_mapped_where_the_blocks_are_small",),
    ),
    Mutant(
        "index: a refused commit leaves its transaction open",
        "index/database.py",
        '                self._in_vain_at = time.monotonic()\n            with suppress(sqlite3.Error):\n                self.db.execute("ROLLBACK")\n            raise\n',
        "                self._in_vain_at = time.monotonic()\n            raise\n",
        ("tests/index/test_full_disk.py::test_what_is_written_after_a_refused_commit_is_committed",),
    ),
    Mutant(
        "logs: a claimed job is shown what the running one writes",
        "storage/job_logs.py",
        "        if record.is_current(job) and os.path.exists(live):\n",
        "        if os.path.exists(live):\n",
        (
            "tests/storage/test_output_of_a_run.py::test_a_claimed_job_is_not_shown_the_output_of_the_job_that_runs",
        ),
    ),
    Mutant(
        "logs: what was read is not asked for its owner again",
        "cli/log_stream.py",
        "        if now_at is None or not _is_at(file, now_at):\n",
        "        if now_at is None:\n",
        ("tests/storage/test_output_of_a_run.py::test_what_is_read_as_the_next_job_starts_is_left_out",),
    ),
    Mutant(
        "logs: a line that nothing ends does not count",
        "storage/job_logs.py",
        '        if wanted == count + 1 and not block.endswith(b"\\n"):\n',
        "        if False:\n",
        (f"{_DLQ}end_of_a_large_log_is_found_from_behind",),
    ),
    Mutant(
        "logs: the end is found from the front",
        "storage/job_logs.py",
        "        size = min(at, _BACKWARDS)\n",
        "        size = at\n",
        (f"{_LOGS}end_of_ten_megabytes_is_read_alone",),
    ),
    Mutant(
        "logs: on a terminal stderr goes past the pager",
        "cli/log_printer.py",
        "        elif render.is_terminal(sys.stdout) and render.is_terminal(sys.stderr):\n",
        "        elif False:\n",
        ("tests/cli/test_logs_of_many.py::test_terminal_shows_both_streams_in_one",),
    ),
    Mutant(
        "logs: the streams of a run are not in order of time",
        "cli/log_printer.py",
        "            self._readers.sort(key=LogReader.written_at)\n",
        "",
        ("tests/cli/test_logs_of_many.py::test_terminal_shows_both_streams_in_one",),
    ),
    Mutant(
        "logs: output of another job stands below the wrong heading",
        "cli/log_printer.py",
        "            if self._headings and reader.has_more():\n",
        "            if False:\n",
        ("tests/cli/test_logs_of_many.py::test_several_jobs_are_followed_to_their_ends",),
    ),
    Mutant(
        "logs: a head is glued to the run before",
        "cli/log_stream.py",
        '("" if self.ends_a_line else "\\n")',
        '""',
        (f"{_LOGS}head_stands_on_a_line_of_its_own",),
    ),
    Mutant(
        "packing: what is written to is compressed",
        "storage/job_logs.py",
        "        and not safe_open.is_open_for_writing(path)\n",
        "",
        (f"{_LOGS}only_old_and_worthwhile_logs_are_compressed",),
    ),
    Mutant(
        "packing: a compressed log is as young as its compression",
        "storage/job_logs.py",
        "        os.utime(scratch, ns=(status.st_atime_ns, status.st_mtime_ns))\n",
        "",
        (f"{_LOGS}compressed_log_is_read_like_any_other",),
    ),
    Mutant(
        "packing: half a file is left in tmp/",
        "storage/job_logs.py",
        "    finally:\n        with suppress(FileNotFoundError):\n            os.unlink(scratch)\n",
        "    finally:\n        pass\n",
        (f"{_LOGS}stopped_half_way_nothing_is_lost",),
    ),
    Mutant(
        "packing: the log goes before its copy is synced",
        "storage/job_logs.py",
        "            files.sync_file(target.fileno())\n",
        "",
        ("tests/storage/test_write_order.py::test_a_log_goes_only_when_its_compressed_copy_is_on_the_disk",),
    ),
    Mutant(
        "packing: the log goes before the name of its copy is synced",
        "storage/job_logs.py",
        "            files.sync_folder(layout.logs)\n",
        "",
        ("tests/storage/test_write_order.py::test_a_log_goes_only_when_its_compressed_copy_is_on_the_disk",),
    ),
    Mutant(
        "packing: the copy counts before the log",
        "storage/job_logs.py",
        "for there in (path, path + COMPRESSED)",
        "for there in (path + COMPRESSED, path)",
        (f"{_LOGS}log_beside_its_compressed_copy_counts",),
    ),
    Mutant(
        "forget: compressed logs stay",
        "layout.py",
        'for stream in ("out", "err", f"out{COMPRESSED}", f"err{COMPRESSED}")',
        'for stream in ("out", "err")',
        (f"{_LOGS}deleting_a_job_deletes_its_compressed_logs",),
    ),
    Mutant(
        "stats: a scheduled job has waited for its moment",
        "api/stats.py",
        "max(coalesce(created_at, arrived), coalesce(run_at, 0))",
        "coalesce(created_at, arrived)",
        (f"{_STATS}waiting_counts_from_when_it_could_run",),
    ),
    Mutant(
        "stats: retries have waited",
        "api/stats.py",
        "CASE WHEN attempts < 2 THEN",
        "CASE WHEN 1 THEN",
        (f"{_STATS}waiting_counts_from_when_it_could_run",),
    ),
    Mutant(
        "stats: a rank is one off",
        "api/stats.py",
        "seconds[-(-len(seconds) * n // 100) - 1]",
        "seconds[min(len(seconds) - 1, len(seconds) * n // 100)]",
        (f"{_STATS}numbers_of_a_known_hundred",),
    ),
    Mutant(
        "stats: days are those of Greenwich",
        "api/stats.py",
        "time.strftime(shape, time.localtime(quarter * QUARTER))",
        "time.strftime(shape, time.gmtime(quarter * QUARTER))",
        (f"{_STATS}groups",),
    ),
    Mutant(
        "stats: nearly all is all",
        "cli/commands/stats.py",
        "    return int(share * 1000) / 10\n",
        "    return round(share * 100)\n",
        (f"{_STATS}plain_lines_and_groups",),
    ),
    Mutant(
        "metrics: the oldest job is the most urgent one",
        "api/metrics.py",
        "min(ready_key + 60000000 * priority)",
        "min(ready_key)",
        (f"{_METRICS}oldest_waiting_job",),
    ),
    Mutant(
        "list: waiting adds nothing",
        "index/row.py",
        "(self.waited(now) or 0) / _PER_PRIORITY",
        "0",
        (f"{_COLUMNS}effective_priority_grows_by_waiting", f"{_COLUMNS}python_door_has_the_row"),
    ),
    Mutant(
        "list: a tab is a tab",
        "cli/render.py",
        '"\\t".join(map(visible, cells))',
        '"\\t".join(cells)',
        (f"{_COLUMNS}lines_have_a_tab_between_two_values",),
    ),
    Mutant(
        "top: the terminal is left as it is",
        "cli/keyboard.py",
        "        termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._old)\n",
        "",
        (f"{_TOP}terminal_is_left_as_it_was", f"{_TOP}terminal_is_left_as_it_was_after_an_error"),
    ),
    Mutant(
        "top: it is stopped by Ctrl+Z",
        "cli/keyboard.py",
        "        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)\n",
        "",
        (f"{_TOP}terminal_is_left_as_it_was",),
    ),
    Mutant(
        "top: nothing tells of a new size",
        "cli/keyboard.py",
        "        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)\n",
        "",
        (f"{_TOP}new_size_is_taken_at_once",),
    ),
    Mutant(
        "top: COLUMNS decides",
        "cli/commands/top.py",
        "        console.size = ConsoleDimensions(size.columns, size.lines)\n",
        "        pass\n",
        (f"{_TOP}new_size_is_taken_at_once",),
    ),
    Mutant(
        "top: c cancels at once",
        "cli/commands/top.py",
        '        if key in {"y", "Y"}:\n',
        '        if key not in {"y", "Y"} or key:\n',
        (f"{_TOP}cancel_asks_first",),
    ),
    Mutant(
        "top: the chosen job is out of sight",
        "cli/top_screen.py",
        "            return max(0, number - size + 1)\n",
        "            return 0\n",
        (f"{_TOP}screen_is_exactly_as_large_as_the_window",),
    ),
    Mutant(
        "top: what has ended is looked for at each look",
        "cli/commands/top.py",
        "        if began < self._slow_queries_at:\n            return\n",
        "",
        (f"{_TOP}jobs_that_end_while_nobody_looks_are_no_cost_each_second",),
    ),
)
