"""What stands between a person, a producer or the system's services, and the spool."""

from __future__ import annotations

from .run import Mutant

_TEMPLATES = "tests/job/test_template.py::test_"
_WHOLE = "tests/api/test_all_or_nothing.py::test_"
_KINDS = "tests/api/test_enqueue_templates.py::test_"
_RELOAD = "tests/config/test_reload.py::test_"
_SERVICE = "tests/worker/test_service.py::test_"
_SCHEMA = "tests/job/test_schema.py::test_schema_and_validator_say_the_same_of_each_field"

BULK = (
    Mutant(
        "template: values stand in quotes, too",
        "job/template.py",
        "            _refuse_unsafe(command)",
        "            pass",
        (f"{_TEMPLATES}what_makes_no_sense_or_is_not_safe_is_refused",),
    ),
    Mutant(
        "template: a quote in a command within quotes ends them",
        "job/template.py",
        "            return len(text)\n        at += 2",
        "            pass\n        at += 2",
        (f"{_TEMPLATES}no_template_lets_the_shell_run_a_value",),
    ),
    Mutant(
        "template: a brace in an expansion ends it",
        "job/template.py",
        "return found.end() if found else len(text)",
        'return _after(text, "}", at)',
        (f"{_TEMPLATES}no_template_lets_the_shell_run_a_value",),
    ),
    Mutant(
        "template: a quote in a comment opens quotes",
        "job/template.py",
        'elif here == "#" and',
        "elif False and",
        (f"{_TEMPLATES}what_makes_no_sense_or_is_not_safe_is_refused",),
    ),
    Mutant(
        "all or nothing: workers take what may have to go back",
        "api/enqueue_many.py",
        "        storage.index.moving(PENDING),\n    ):",
        "    ):",
        (f"{_WHOLE}no_worker_starts_one_before_all_are_safe",),
    ),
    Mutant(
        "all or nothing: an interrupt leaves a part",
        "api/enqueue_many.py",
        "    except KeyboardInterrupt:\n",
        "    except ZeroDivisionError:\n",
        (f"{_WHOLE}what_was_queued_is_taken_back_half_way",),
    ),
    Mutant(
        "all or nothing: what came before a taken id stays",
        "api/enqueue_many.py",
        "        take_back(storage, queuing.queued(queued), why)\n",
        "",
        (f"{_WHOLE}what_was_queued_is_taken_back_half_way",),
    ),
    Mutant(
        "a list: what is equal in Python is the same",
        "api/enqueue_templates.py",
        "marshal.dumps(shared, 2)",
        "repr(sorted((k, v == 1 or v) for k, v in shared.items())).encode()",
        (f"{_KINDS}what_looks_alike_and_is_not_is_looked_at_closely",),
    ),
    Mutant(
        "a list: moments and keys are shared, too",
        "api/enqueue_templates.py",
        " and shared.keys() <= _SHARED\n",
        "\n",
        (f"{_KINDS}it_makes_the_same_of_a_job_alone_or_in_a_list",),
    ),
    Mutant(
        "a list: a relative folder is where the first one was",
        "api/enqueue_templates.py",
        ' and os.path.isabs(shared.get("cwd", "")):',
        ":",
        (f"{_KINDS}each_job_is_where_its_caller_was",),
    ),
    Mutant(
        "a list: a long command is not weighed",
        "api/enqueue_templates.py",
        "        if len(head) > _LONGEST:\n            return None\n",
        "",
        (f"{_KINDS}what_is_too_large_beside_another_is_refused",),
    ),
    Mutant(
        "a list: an id of its own is not checked",
        "api/enqueue_templates.py",
        "else _id(job_id)\n",
        "else str(job_id)\n",
        (f"{_KINDS}a_wrong_job_among_others_is_refused_in_the_same_words",),
    ),
    Mutant(
        "sweep: whatever lies in a folder of scratch files goes",
        "storage/scratch.py",
        "            if entry.name.isdecimal() and entry.is_file(follow_symlinks=False):\n",
        "            if True:\n",
        ("tests/worker/test_maintenance.py::test_a_folder_that_a_killed_producer_wrote_a_batch_in_goes_too",),
    ),
    Mutant(
        "schema: a tag of any length",
        "job/schema.py",
        "@+=-]{1,64}",
        "@+=-]+",
        (_SCHEMA,),
    ),
    Mutant(
        "schema: an id may end in a dot",
        "job/schema.py",
        "[A-Za-z0-9._-]*[A-Za-z0-9_-])?",
        "[A-Za-z0-9._-]*[A-Za-z0-9._-])?",
        (_SCHEMA,),
    ),
    Mutant(
        "check: a syntax error is looked for from the start of what was read",
        "cli/job_reader.py",
        '"pos", self._at) - self._at\n',
        '"pos", self._at)\n',
        ("tests/cli/test_check.py::test_what_is_wrong_is_told_with_line_and_column",),
    ),
)

SERVICE = (
    Mutant(
        "settings: an emptied file is believed",
        "config/reload.py",
        " or is_being_written(*stamp)",
        "",
        (f"{_RELOAD}file_that_is_being_written_is_waited_for",),
    ),
    Mutant(
        "settings: a bad value ends what a worker does each second",
        "config/reload.py",
        "        except QueuectlError as error:\n",
        "        except ZeroDivisionError as error:\n",
        (f"{_RELOAD}settings_that_could_not_be_read_are_tried_again",),
    ),
    Mutant(
        "hangup: a worker stays when its terminal has gone",
        "worker/signals.py",
        "leave() if terminal.is_gone() else reread()",
        "reread()",
        ("tests/worker/test_pool.py::test_a_foreground_worker_whose_terminal_closes_finishes_its_job",),
    ),
    Mutant(
        "hangup: a reload ends a worker",
        "worker/signals.py",
        "leave() if terminal.is_gone() else reread()",
        "leave()",
        (f"{_RELOAD}hup_has_the_settings_read_and_ends_nobody",),
    ),
    Mutant(
        "unit: % is systemd's",
        "worker/service_units.py",
        'return text.replace("%", "%%")',
        "return text",
        (f"{_SERVICE}systemd_reads_exactly_the_words_that_were_meant",),
    ),
    Mutant(
        "unit: $ is systemd's",
        "worker/service_units.py",
        '.replace("$", "$$")',
        "",
        (f"{_SERVICE}systemd_reads_exactly_the_words_that_were_meant",),
    ),
    Mutant(
        "service: a unit of somebody else is written over",
        "worker/service.py",
        "        if not service_units.is_ours(",
        "        if False and not service_units.is_ours(",
        (f"{_SERVICE}unit_of_somebody_else_is_not_touched",),
    ),
    Mutant(
        "service: it is not tried out",
        "worker/service.py",
        "        self._try_out()\n",
        "",
        (f"{_SERVICE}what_would_not_work_is_refused_before_anything_is_written",),
    ),
    Mutant(
        "pager: it comes between programs",
        "cli/base.py",
        "        if direct or not render.is_terminal():",
        "        if direct:",
        ("tests/cli/test_pager.py::test_no_pager_when_a_person_pipes_it_on",),
    ),
    Mutant(
        "exit codes: a bad setting that was typed is a refusal",
        "config/keys.py",
        "    error.exit_code = WRONG_USAGE\n",
        "",
        ("tests/cli/test_config.py::test_what_is_refused",),
    ),
    Mutant(
        "exit codes: a bad value in JSON that was typed is a refusal",
        "cli/commands/enqueue.py",
        "        error.exit_code = WRONG_USAGE ",
        "        error.exit_code = 1 ",
        ("tests/cli/test_typed_jobs.py::test_command_under_another_name_is_pointed_at",),
    ),
    Mutant(
        "help: --json is offered where it is refused",
        "cli/base.py",
        "            hidden=not json,\n",
        "",
        ("tests/cli/test_help.py::test_json_is_offered_only_where_it_works",),
    ),
    Mutant(
        "ids: the beginning of another job's id is enough to change that job",
        "cli/typed_ids.py",
        "    if sys.stdin is None or not sys.stdin.isatty():\n",
        "    if False:\n",
        ("tests/cli/test_typed_ids.py::test_a_script_whose_job_is_gone_changes_no_other",),
    ),
    Mutant(
        "ids: a whole id does not win",
        "cli/typed_ids.py",
        "    if not found or text in found:\n",
        "    if not found:\n",
        ("tests/cli/test_typed_ids.py::test_the_beginning_of_an_id_is_enough_to_look",),
    ),
    Mutant(
        "tables: they are wider than the terminal",
        "cli/render.py",
        "    if available < 0:\n",
        "    if False:\n",
        ("tests/cli/test_list_width.py::test_list_fits_on_eighty_columns_and_fewer",),
    ),
    Mutant(
        "pager: a reader who leaves early is an error",
        "cli/render.py",
        "            raise  # noqa: PLE0704",
        "            super().on_broken_pipe()  # noqa: PLE0704",
        ("tests/cli/test_pager.py::test_reader_of_a_long_record_may_leave_early",),
    ),
)
