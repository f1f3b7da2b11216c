"""`queuectl notify`: tell people by mail, or a program by its web address, how jobs have ended."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Group, Session, command

if TYPE_CHECKING:
    from queuectl.notify.mail import Server

PASSWORD = "QUEUECTL_SMTP_PASSWORD"  # noqa: S105 (the name of a variable)

notify_command = Group(
    name="notify",
    short_help="Tell people, or a program, how jobs have ended.",
    help="""It is made for a job that waits for others: its message is about the jobs of `after_failure`, `after` or `after_any`.
    With `--about JOB` it is about that job. Without both it is a trial.

    A message has the reason, the last lines of output, and what to type next. Exit code 0: sent. 111: not now, and another
    try may succeed. 100: refused, and would be refused again: `give_up_on: [100]` in the job's file.""",
    examples="""
    queuectl notify mail --to ops@example.org --smtp mail.example.org:587
    queuectl notify webhook https://chat.example.org/hooks/abc
    queuectl enqueue --after-failure load --give-up-on 100 "queuectl notify mail --to ops@example.org"
    """,
    other_words={
        "email": "mail",
        "sendmail": "mail",
        "smtp": "mail --smtp",
        "http": "webhook",
        "url": "webhook",
        "slack": "webhook",
    },
    sections={
        "Commands": {
            "mail": ("notify", "Send a mail."),
            "webhook": ("notify", "Send a POST with the facts as JSON."),
        }
    },
)


def _address(text: str) -> str:
    # No more than what a header field can carry: whether there is such a receiver is known to its mail server only.
    if not re.fullmatch(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+|[A-Za-z0-9._-]+", text):
        raise ValueError(f"{render.clip(repr(text), 80)} is no mail address, such as ops@example.org")
    return text


def _server(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([^\s:/@\[\]]+)(?::([0-9]{1,5}))?", text)
    port = int(found[2] or found[4] or 25) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"{render.clip(repr(text), 80)} is no mail server, such as mail.example.org:587")
    return found[1] or found[3], port


def _url(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or not text.isprintable() or " " in text:
        raise ValueError(f"{render.clip(repr(text), 80)} is no address that begins with https:// or http://")
    return text


def _header(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*([\x20-\x7e]*)", text)
    if found is None:
        raise ValueError("it must be like 'Accept: text/plain', without other characters than ASCII")
    return found[1], found[2].strip()


_about = click.option(
    "--about",
    metavar="JOB",
    multiple=True,
    shell_complete=options.complete_ids(),
    help="A job that the message is about; may be repeated. Default: the jobs for which the calling job has waited.",
)


def _meant(session: Session, about: tuple[str, ...]) -> list[str]:
    """Return the ids that were typed. A job that is named must exist; of one that was waited for this may be too late."""
    ids = [typed_ids.to_show(session, text) for text in about]
    for job_id in ids:
        session.spool.get(job_id)
    return ids


@command(
    "mail",
    examples="""
    queuectl notify mail --to ops@example.org
    queuectl notify mail --to ops@example.org --smtp mail.example.org:587 --user me
    queuectl notify mail --to ops@example.org --about load
    """,
)
@click.option(
    "--to",
    metavar="ADDRESS",
    multiple=True,
    required=True,
    callback=options.each_checked(_address),
    help="The receiver; may be repeated.",
)
@click.option(
    "--from",
    "sender",
    metavar="ADDRESS",
    callback=options.checked(_address),
    help="The sender. Default: this user on this machine.",
)
@click.option(
    "--smtp",
    metavar="HOST[:PORT]",
    callback=options.checked(_server),
    help="The server that takes the mail. Port 465 is encrypted from the start; others once the server offers it. Default: the program sendmail of this machine.",
)
@click.option(
    "--user",
    metavar="NAME",
    help=f"The name for the server. The password is read from the variable {PASSWORD}.",
)
@_about
@click.pass_obj
def mail_command(
    session: Session,
    to: tuple[str, ...],
    sender: str | None,
    smtp: tuple[str, int] | None,
    user: str | None,
    about: tuple[str, ...],
) -> None:
    """Send a mail about jobs: reason, last lines of output, and what to type next. It takes 10 seconds at most."""
    from queuectl.notify import delivery, mail, message

    server = _with_password(smtp, user)
    found = message.compose(session.spool, _meant(session, about), os.environ)
    letter = mail.as_mail(found, to, sender, delivery.key_of(os.environ, found), time.time())
    refused: list[str] = []
    if server is None:
        mail.through_sendmail(letter)
    else:
        refused = mail.to_server(letter, server)
    for address in refused:
        render.note(f"note: the server refuses {address}, and has taken the mail for the others")
    if session.json:
        render.json_value({"sent": True, "refused": refused})


def _with_password(smtp: tuple[str, int] | None, user: str | None) -> Server | None:
    from queuectl.notify.mail import Server

    if smtp is None:
        if user is not None:
            raise click.UsageError("--user is for a mail server: --smtp HOST is missing")
        return None
    password = os.environ.get(PASSWORD)
    if user is not None and not password:
        raise click.UsageError(f"--user needs a password in the variable {PASSWORD}")
    return Server(*smtp, user=user, password=password if user is not None else None)


@command(
    "webhook",
    examples="""
    queuectl notify webhook https://chat.example.org/hooks/abc
    queuectl notify webhook https://example.org/jobs --header "X-Token: $TOKEN" --about load
    """,
)
@click.argument("url", metavar="URL", callback=options.checked(_url))
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    callback=options.each_checked(_header),
    help="A header field; may be repeated.",
)
@_about
@click.pass_obj
def webhook_command(
    session: Session, url: str, headers: tuple[tuple[str, str], ...], about: tuple[str, ...]
) -> None:
    """Send the facts about jobs as JSON in a POST. It takes 10 seconds at most, and follows no redirect.

    `text` has all of it as text, which chat programs show. The others are subject, event, host, spool, count, and jobs: for
    each id, state, command, last_error, exit_code, attempts, finished_at and, of a single one, the last lines of its output.
    The header field Idempotency-Key is the same each time a job sends its message again.
    """
    from queuectl.notify import delivery, message, webhook

    found = message.compose(session.spool, _meant(session, about), os.environ)
    webhook.post(found, url, dict(headers), delivery.key_of(os.environ, found))
    if session.json:
        render.json_value({"sent": True})
