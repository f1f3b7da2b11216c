"""The files of queues, the defaults of their jobs, and their pauses."""

from __future__ import annotations

from .run import Mutant

_FILES = "tests/config/test_queues.py::test_"
_DEFAULTS = "tests/api/test_queue_defaults.py::test_"
_PAUSE = "tests/control/test_queue_pause.py::test_"
_TYPED = "tests/cli/test_queue.py::test_"

_STATE = "tests/api/test_queue_state.py::test_"

QUEUES = (
    Mutant(
        "queues: a mistyped key is passed over",
        "config/queue_file.py",
        "    if name not in KEYS:\n",
        "    if False:\n",
        (f"{_FILES}a_file_that_is_wrong_is_refused_with_its_line",),
    ),
    Mutant(
        "queues: lists of lists are written out in a message",
        "config/queue_file.py",
        '        raise ValueError("must be a plain value, not a list or a map")\n',
        "        pass\n",
        (f"{_FILES}a_list_of_lists_does_not_fill_the_memory",),
    ),
    Mutant(
        "queues: a queue whose limit is not known is open",
        "config/queues.py",
        "return name in self._paused or (known is not None and known.settings is None)",
        "return name in self._paused",
        (f"{_FILES}a_queue_whose_limit_is_not_known_is_closed",),
    ),
    Mutant(
        "queues: a file that is being written lifts the limit",
        "config/queues.py",
        "(known.settings and stamp.is_being_written(seen))",
        "False",
        (f"{_FILES}a_file_that_is_just_being_written_is_waited_for",),
    ),
    Mutant(
        "queues: a fault of the disk lifts limits and pauses",
        "config/queues.py",
        "            return False  # the folder was there",
        "            names = []  # the folder was there",
        (f"{_FILES}a_folder_that_cannot_be_read_now_changes_nothing",),
    ),
    Mutant(
        "queues: a file is changed although one of the keys is wrong",
        "config/queue_file.py",
        "        written[key] = (\n",
        "        change_file(layout, layout.queue_file(queue), {key: typed})\n        written[key] = (\n",
        (f"{_FILES}a_change_that_is_wrong_changes_nothing",),
    ),
    Mutant(
        "queues: a program goes on with old defaults",
        "api/spool_enqueue.py",
        "        defaults.look(queue if isinstance(queue, str) else None)\n",
        "        defaults.of(queue if isinstance(queue, str) else None)\n",
        (f"{_DEFAULTS}a_program_that_enqueues_follows_the_file",),
    ),
    Mutant(
        "queues: a template goes on with old defaults",
        "api/enqueue_templates.py",
        'self.defaults.of(shared.get("queue")) is template[2]',
        "True",
        (f"{_DEFAULTS}a_program_that_enqueues_follows_the_file",),
    ),
    Mutant(
        "queues: rows are copied with old defaults",
        "intake/loader.py",
        "        if self._defaults.refresh(settings) or settings != self._settings:\n",
        "        self._defaults.refresh(settings)\n        if settings != self._settings:\n",
        (f"{_DEFAULTS}many_files_that_look_alike_are_read_with_the_defaults_of_the_time",),
    ),
    Mutant(
        "queues: a name leads to another file",
        "config/settings.py",
        "        if not is_queue(name):\n",
        "        if False:\n",
        (f"{_DEFAULTS}a_name_of_a_queue_leads_to_no_other_file",),
    ),
    Mutant(
        "queues: a job is accepted with defaults that it should not have",
        "intake/loader.py",
        "            if job.needs_settings:\n                raise\n",
        "",
        (f"{_DEFAULTS}a_job_whose_defaults_are_not_known_is_not_accepted",),
    ),
    Mutant(
        "queues: a job that can never start is accepted",
        "api/enqueue.py",
        "    elif job.needs is not None:\n",
        "    elif False:\n",
        (f"{_DEFAULTS}a_job_that_needs_more_than_there_is_is_refused",),
    ),
    Mutant(
        "queues: any earlier pause counts as noticed",
        "control/pause.py",
        'marks = (seen.pause_seen or "") if queue is None else (seen.queues_seen or "")',
        "marks = found.mark if queue and seen.queues_seen else (seen.pause_seen or '')",
        (f"{_PAUSE}a_worker_that_knows_of_an_earlier_pause_of_a_queue_is_waited_for",),
    ),
    Mutant(
        "queues: drain waits for the jobs of all queues",
        "api/spool_pause.py",
        "running = None if queue is None else",
        "running = None if True else",
        (f"{_PAUSE}drain_of_a_queue_waits_for_its_jobs_only",),
    ),
    Mutant(
        "queues: jobs that wait for a queue are said to wait for a worker",
        "api/row.py",
        'return "queue" if row.lane in closed else "worker"',
        'return "worker"',
        (f"{_STATE}each_view_says_why_a_job_does_not_start",),
    ),
    Mutant(
        "queues: a queue that is full for a moment is reported",
        "storage/queue_state.py",
        "queue.oldest >= LONG_FULL",
        "queue.oldest >= 0",
        (f"{_STATE}status_tells_of_pauses_of_queues_nobody_serves_and_of_needs",),
    ),
    Mutant(
        "queues: status counts where no queue is used",
        "api/status.py",
        "    if not queues.are_used(spool):\n        return []\n",
        "",
        (f"{_STATE}where_no_queue_is_used_nothing_is_loaded_for_them",),
    ),
    Mutant(
        "queues: held jobs are not counted",
        "index/queue_counts.py",
        '    if sum(waiting.values()) < counts["pending"] + counts["failed"]:\n',
        "    if False:\n",
        ("tests/index/test_queue_counts.py::test_each_way_to_wait_is_counted",),
    ),
    Mutant(
        "queues: a name that begins alike is selected too",
        "index/filter.py",
        'return queue, f"{queue} ", f"{queue}!"',
        'return queue, f"{queue} ", f"{queue}~"',
        (f"{_TYPED}jobs_are_selected_by_queue",),
    ),
)
