"""Mutants of the pages: each takes away one protection of `queuectl web`."""

from __future__ import annotations

from .run import Mutant

_GUARD = "tests/web/test_guard.py::test_"
_LOGIN = "tests/web/test_login.py::test_"
_PAGES = "tests/web/test_pages.py::test_"
_INTRUDERS = "tests/web/test_intruders.py::test_"
_CONFLICTS = "tests/web/test_conflicts.py::test_"
_ACTIONS = "tests/web/test_actions.py::test_"
_BUSY = "tests/web/test_busy_index.py::test_"

WEB = [
    Mutant(
        "web: connections that send nothing keep visitors out",
        "web/server.py",
        "        is_one_gone = len(self.connections) >= CONNECTIONS and self._let_one_go()\n",
        "        is_one_gone = False\n",
        (f"{_INTRUDERS}connections_that_send_nothing_keep_nobody_out",),
    ),
    Mutant(
        "web: an index that another process has is built in memory",
        "intake/reconcile.py",
        "                if self.keeps_file:\n                    raise\n",
        "",
        (f"{_BUSY}while_another_process_has_the_index_the_last_state_is_shown",),
    ),
    Mutant(
        "web: a browser keeps what is older than its mark",
        "web/pages.py",
        "        if mark is not None and not call.is_old:",
        "        if mark is not None:",
        (f"{_BUSY}while_another_process_has_the_index_the_last_state_is_shown",),
    ),
    Mutant(
        "web: a change of many jobs ends when another process has the index",
        "web/bulk.py",
        "            if time.monotonic() > until or made.stopped.wait(0.2):\n",
        "            if True:\n",
        (f"{_BUSY}a_change_of_many_jobs_waits_for_the_index",),
    ),
    Mutant(
        "web: any name may lead to it",
        "web/guard.py",
        "    if len(hosts) == 1 and _name_of(hosts[0]) in options.names:\n",
        "    if hosts:\n",
        (f"{_GUARD}another_name_is_refused_before_anything_else",),
    ),
    Mutant(
        "web: a form may come from anywhere",
        "web/guard.py",
        '    if origins not in ([f"http://{host}"], [f"https://{host}"]):\n',
        "    if not origins:\n",
        (f"{_GUARD}a_form_of_another_site_changes_nothing",),
    ),
    Mutant(
        "web: what the browser says of the sender is not asked",
        "web/guard.py",
        '    if values(scope, "sec-fetch-site") not in ([], ["same-origin"]):\n',
        "    if False:\n",
        (f"{_GUARD}a_form_of_another_site_changes_nothing",),
    ),
    Mutant(
        "web: a form needs no token",
        "web/call.py",
        "    if len(tokens) != 1 or not hmac.compare_digest(",
        "    if len(tokens) != 1 and not hmac.compare_digest(",
        (f"{_GUARD}a_form_without_origin_or_token_changes_nothing",),
    ),
    Mutant(
        "web: a link works twice",
        "web/sessions.py",
        "            os.unlink(path)  # the second one to use it fails here\n",
        "            pass\n",
        (f"{_LOGIN}a_link_works_once",),
    ),
    Mutant(
        "web: a link works for ever",
        "web/sessions.py",
        "        return -1 <= self._clock() - status.st_mtime <= LINK_LIFE\n",
        "        return True\n",
        (f"{_LOGIN}a_link_works_for_ten_minutes",),
    ),
    Mutant(
        "web: a session never ends",
        "web/sessions.py",
        "                if now - found.used > UNUSED or now - found.began > LONGEST:\n",
        "                if False:\n",
        (f"{_LOGIN}sessions_end_unused_after_hours_and_in_any_case_after_days",),
    ),
    Mutant(
        "web: text of jobs is not escaped",
        "web/rendering.py",
        "        autoescape=True,\n",
        "        autoescape=False,\n",
        (f"{_PAGES}no_text_of_a_job_becomes_markup",),
    ),
    Mutant(
        "web: characters that deceive are shown",
        "web/rendering.py",
        "        return text.marked(value)\n",
        "        return value\n",
        (f"{_PAGES}what_cannot_be_seen_is_marked",),
    ),
    Mutant(
        "web: a masked value is saved as the secret",
        "web/edits.py",
        '        found["env"] = _unmasked(job, found["env"])\n',
        "        pass\n",
        (f"{_ACTIONS}masked_values_stay_unless_others_are_typed",),
    ),
    Mutant(
        "web: the second of two edits overwrites the first",
        "web/edits.py",
        "        if _mark(data) != mark:\n            return _edit_page(",
        "        if False:\n            return _edit_page(",
        (f"{_CONFLICTS}both_texts_are_shown_and_saving_again_counts",),
    ),
    Mutant(
        "web: a field that was only shown puts back what somebody else has changed",
        "web/edits.py",
        "        if mine.get(name) != shown.get(name):\n",
        "        if True:\n",
        (f"{_CONFLICTS}a_field_that_was_only_shown_puts_nothing_back",),
    ),
    Mutant(
        "web: what was typed is lost when the job runs by then",
        "web/edits.py",
        "        if job.state not in EDITABLE or not job.command:\n            problem",
        "        if job.state not in EDITABLE:\n            raise Refused(409, _not_now(job))\n        if not job.command:\n            problem",
        (f"{_CONFLICTS}what_was_typed_stays_when_the_job_cannot_be_changed_any_more",),
    ),
    Mutant(
        "web: many jobs are changed without the number",
        "web/bulk.py",
        '    if len(ids) > ASK_ABOVE and given.get("typed", "").strip() != str(seen):\n',
        "    if False:\n",
        (f"{_ACTIONS}of_very_many_the_number_is_asked_for",),
    ),
    Mutant(
        "web: commands come in with --no-enqueue",
        "web/edits.py",
        "    refused = forms.COMMANDS if not call.site.may_enqueue else frozenset()\n",
        "    refused = frozenset()\n",
        (f"{_GUARD}without_enqueueing_no_command_comes_in",),
    ),
    Mutant(
        "web: a reader may act",
        "web/call.py",
        "    if not is_harmless:\n        refuse_reader(user)\n",
        "",
        (f"{_LOGIN}a_proxy_names_the_user",),
    ),
    Mutant(
        "output: a link in the place of a log is followed",
        "api/output_part.py",
        "        fd = os.open(path, safe_open.SAFE_READ)\n",
        "        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)\n",
        ("tests/api/test_output_parts.py::test_what_is_no_file_is_not_opened",),
    ),
    Mutant(
        "set: what has changed meanwhile is overwritten",
        "storage/edit_pending.py",
        '            raise just_changed(job.id or "")\n        wanted = changed_job',
        "            pass\n        wanted = changed_job",
        ("tests/api/test_looks.py::test_an_edit_of_what_has_changed_meanwhile_is_refused",),
    ),
    Mutant(
        "web: a request may have two lengths",
        "web/guard.py",
        'if sizes and values(scope, "transfer-encoding"):',
        "if False:",
        (f"{_INTRUDERS}a_request_with_two_lengths_is_refused",),
    ),
    Mutant(
        "web: a wrong link is answered at once",
        "web/call.py",
        "if answer.status_code == 401:",
        "if False:",
        (f"{_LOGIN}who_guesses_waits",),
    ),
    Mutant(
        "web: looking at a link uses it up",
        "web/pages.py",
        "    if call.is_ahead:\n",
        "    if False:\n",
        (f"{_INTRUDERS}looking_at_a_link_does_not_use_it_up",),
    ),
    Mutant(
        "web: who may only look sees damaged files",
        "web/edits.py",
        "    refuse_reader(call.user)\n    once(call.pairs, ())\n    job_id",
        "    once(call.pairs, ())\n    job_id",
        (f"{_INTRUDERS}who_may_only_look_gets_no_form",),
    ),
    Mutant(
        "web: more jobs are changed than were shown",
        "web/bulk.py",
        "    if len(ids) > seen:\n",
        "    if False:\n",
        (f"{_INTRUDERS}more_jobs_than_were_shown_are_not_changed",),
    ),
    Mutant(
        "web: links are made behind a link",
        "web/site.py",
        "if not stat.S_ISDIR(status.st_mode) or",
        "if",
        (f"{_INTRUDERS}links_are_not_made_in_a_folder_of_others",),
    ),
    Mutant(
        "web: a fault ends the looks at who can write",
        "web/server.py",
        "except (SpoolError, OSError) as error:",
        "except SpoolError as error:",
        (f"{_INTRUDERS}a_look_that_fails_closes_the_pages_and_is_tried_again",),
    ),
    Mutant(
        "web: connections are not counted",
        "web/server.py",
        "if len(self.connections) > MOST_OPEN and not is_one_gone:",
        "if False:",
        (f"{_INTRUDERS}connections_beyond_twice_the_limit_are_closed",),
    ),
    Mutant(
        "web: faults of the libraries are tracebacks",
        "web/server.py",
        "        logger.handlers, logger.propagate = [_OneLine(logging.ERROR)], False\n",
        "        del logger\n",
        (f"{_INTRUDERS}faults_of_the_libraries_are_one_line_each",),
    ),
]
