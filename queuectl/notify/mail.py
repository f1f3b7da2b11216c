"""Send a notification by mail: through the machine's own `sendmail`, or to an SMTP server."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import ssl
import subprocess
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import NotSent, NotSentNow
from queuectl.job.redact import one_line
from queuectl.notify import delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.notify.message import Message

_FOLDERS = "/usr/sbin:/usr/lib:/usr/local/sbin"
"""Where `sendmail` is. The PATH of a service or of cron often lacks these folders."""

_LATER = frozenset({69, 71, 74, 75})
"""Exit codes of sendmail, from sysexits.h, after which another try may succeed: a service or the system is out of order."""

_SMTPS = 465
"""The port of connections that are encrypted from their first byte, RFC 8314."""

_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1", re.IGNORECASE)


class Server(NamedTuple):
    """An SMTP server.

    Attributes:
        port: 465 for an encrypted connection from the start.
        user, password: None for a server that asks for none.
    """

    host: str
    port: int = 25
    user: str | None = None
    password: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, so that nobody can read what is sent."""
        return _LOOPBACK.fullmatch(self.host) is not None


def as_mail(
    message: Message, to: Sequence[str], sender: str | None, key: str | None, now: float
) -> EmailMessage:
    """Return a notification as a mail.

    Args:
        now: its date, in epoch seconds. RFC 5322 wants one, many servers add none, and filters take such a mail for spam.
        sender: its From; None leaves it to what sends the mail.
        key: makes its Message-ID, so that a second copy can be known.
    """
    mail = EmailMessage()
    mail["Subject"] = message.subject
    mail["To"] = ", ".join(to)
    mail["Date"] = formatdate(now, localtime=True)
    if sender is not None:
        mail["From"] = sender
    if key is not None:
        mail["Message-ID"] = f"<{key}>"
    # RFC 3834: nobody's holiday program is to answer a machine.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text.encode("utf-8", "replace").decode())
    return mail


def through_sendmail(mail: EmailMessage) -> None:
    """Hand a mail to the machine's own mail system.

    Raises:
        NotSent: there is no sendmail, or it refuses the mail.
        NotSentNow: it may take the mail later.
    """
    program = shutil.which("sendmail") or shutil.which("sendmail", path=_FOLDERS)
    if program is None:
        raise NotSent("there is no sendmail here", hint="queuectl notify mail --smtp HOST …")
    try:
        # -i: a line with a single dot does not end the mail.
        done = subprocess.run(
            [program, "-t", "-i"],
            input=mail.as_bytes(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=delivery.LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotSentNow(f"{program} has not ended in {delivery.LONGEST:g} s") from None
    except OSError as error:
        raise NotSentNow(f"cannot start {program}: {delivery.reason_of(error)}") from None
    if done.returncode:
        said = one_line(done.stdout.decode(errors="replace").strip()) or f"exit code {done.returncode}"
        later = done.returncode in _LATER or done.returncode < 0
        raise (NotSentNow if later else NotSent)(f"{program} refuses the mail: {said}")


def to_server(mail: EmailMessage, server: Server) -> list[str]:
    """Send a mail to an SMTP server, encrypted if the server offers that. One without a sender is from this user.

    Returns:
        the receivers that the server refuses, although it takes the mail for others.

    Raises:
        NotSent: no host can have this name, the server refuses the mail, or a password would be sent readable for others.
        NotSentNow: the server cannot be reached, or may take the mail later.
    """
    whom = f"the mail server {server.host}:{server.port}"
    try:
        server.host.encode("idna")
    except UnicodeError:
        raise NotSent(f"no host can be called {one_line(server.host)}") from None
    refused: list[str] = []
    delivery.within(delivery.LONGEST, lambda: refused.extend(_send(mail, server, whom)), whom)
    return refused


def _send(mail: EmailMessage, server: Server, whom: str) -> list[str]:
    if "From" not in mail:
        mail["From"] = _default_sender()
    try:
        with _connected(server) as smtp:
            _secure(smtp, server, whom)
            if server.user is not None:
                smtp.login(server.user, server.password or "")
            return sorted(smtp.send_message(mail))
    except smtplib.SMTPRecipientsRefused as error:
        code, said = max(error.recipients.values(), key=lambda answer: answer[0] < 500)
        raise _refusal(whom, code, said) from None
    except smtplib.SMTPResponseException as error:
        raise _refusal(whom, error.smtp_code, error.smtp_error) from None
    except smtplib.SMTPNotSupportedError as error:
        raise NotSent(f"{whom}: {one_line(str(error))}") from None
    except OSError as error:  # every other SMTPException is one
        raise NotSentNow(f"{whom}: {delivery.reason_of(error)}") from None


def _connected(server: Server) -> smtplib.SMTP:
    if server.port == _SMTPS:
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=delivery.LONGEST, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=delivery.LONGEST)


def _secure(smtp: smtplib.SMTP, server: Server, whom: str) -> None:
    """Encrypt the connection where the server can; a server on this machine often has a certificate that nobody trusts."""
    smtp.ehlo_or_helo_if_needed()
    if server.port == _SMTPS or server.is_here:
        return
    if smtp.has_extn("starttls"):
        smtp.starttls(context=ssl.create_default_context())
        smtp.ehlo()
    elif server.user is not None:
        raise NotSent(f"{whom} offers no encryption, and a password would be sent readable for others")


def _refusal(whom: str, code: int, said: bytes | str) -> NotSent:
    """Return the error for an answer: 4xx is for now and 5xx for ever, RFC 5321 section 4.2.1."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return (NotSentNow if code < 500 else NotSent)(f"{whom} refuses the mail: {code} {one_line(text)}")


def _default_sender() -> str:
    """Return who a mail to a server is from if nobody says so: this user on this machine.

    The whole name of the machine may have to be asked for, and a name server that is down holds that up for long.
    """
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in the list of users, as in some containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "queuectl"
    return f"{user}@{socket.getfqdn()}"
