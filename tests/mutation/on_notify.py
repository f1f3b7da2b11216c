"""Mutants of notifications: each takes away one protection of `queuectl notify`."""

from __future__ import annotations

from .run import Mutant

_MAIL = "tests/notify/test_mail.py::test_"
_WEB = "tests/notify/test_webhook.py::test_"

NOTIFY = [
    Mutant(
        "notify: a password goes over the network unencrypted",
        "notify/mail.py",
        "    elif server.user is not None:\n",
        "    elif False:\n",
        (f"{_MAIL}no_password_is_sent_readable_for_others",),
    ),
    Mutant(
        "notify: offered encryption is not used",
        "notify/mail.py",
        '    if smtp.has_extn("starttls"):\n',
        '    if smtp.has_extn("starttls2"):\n',
        (f"{_MAIL}encryption_is_used_where_it_is_offered",),
    ),
    Mutant(
        "notify: a redirect is followed",
        "notify/webhook.py",
        "        _NoRedirect,\n",
        "        urllib.request.HTTPRedirectHandler,\n",
        (f"{_WEB}a_redirect_is_told_and_not_followed",),
    ),
    Mutant(
        "notify: a refusal for now is one for ever",
        "notify/mail.py",
        "    return (NotSentNow if code < 500 else NotSent)(",
        "    return (NotSentNow if code < 400 else NotSent)(",
        (f"{_MAIL}a_refusal_says_whether_another_try_makes_sense",),
    ),
    Mutant(
        "notify: an answer that asks for a pause is one for ever",
        "notify/webhook.py",
        "    later = error.code >= 500 or error.code in _LATER\n",
        "    later = error.code >= 500\n",
        (f"{_WEB}an_answer_says_whether_another_try_makes_sense",),
    ),
    Mutant(
        "notify: a second copy cannot be told",
        "notify/delivery.py",
        'return f"{job_id}.{about}.',
        "return f\"{job_id}.{about}.{threading.get_ident()}{__import__('time').time_ns()}.",
        (f"{_WEB}a_job_that_sends_again_says_so",),
    ),
    Mutant(
        "notify: passwords in addresses are sent",
        "notify/message.py",
        '    shown = masked({"command": job.shown_command, "last_error": job.last_error, "lines": lines})\n',
        '    shown = {"command": job.shown_command, "last_error": job.last_error, "lines": lines}\n',
        ("tests/notify/test_message.py::test_passwords_in_addresses_are_masked",),
    ),
    Mutant(
        "notify: a host whose name begins with localhost is this machine",
        "notify/mail.py",
        "_LOOPBACK.fullmatch(",
        "_LOOPBACK.match(",
        (f"{_MAIL}a_server_elsewhere_is_not_taken_for_this_machine",),
    ),
    Mutant(
        "notify: a name that no mail server can have is a bug",
        "notify/mail.py",
        "    except UnicodeError:\n",
        "    except ZeroDivisionError:\n",
        (f"{_WEB}a_name_that_no_host_can_have_is_refused_for_ever",),
    ),
    Mutant(
        "notify: an address with an umlaut is a bug",
        "notify/webhook.py",
        "(quote(part, safe=string.punctuation) for part in (parts.path, parts.query))",
        "(parts.path, parts.query)",
        (f"{_WEB}an_address_may_have_other_characters_than_ascii",),
    ),
    Mutant(
        "notify: the next death of a job looks like a second copy",
        "notify/delivery.py",
        "(job.id, job.state, job.finished_at) for",
        "(job.id, job.state) for",
        (f"{_WEB}the_next_death_of_a_job_is_no_second_copy",),
    ),
]
