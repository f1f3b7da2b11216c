"""What all ways to send a notification share: a limit of time for all of it, and a key by which a second copy is known."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from queuectl.errors import NotSentNow
from queuectl.job.redact import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST = 10.0
"""Seconds for all of it: the name of the server, the connection and the answer."""


def within(seconds: float, send: Callable[[], None], whom: str) -> None:
    """Call a function that sends something, and wait for its end.

    A limit for each read and write would not do: a name that is looked up has none, and a server that answers with a byte
    each second never reaches it. So it runs in a thread, which is left behind if it takes longer.

    Args:
        whom: the other side, for the message.

    Raises:
        NotSentNow: it has not ended in time. It may have been sent all the same.
        NotSent: as `send` raises it.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            send()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="queuectl-notify", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise NotSentNow(f"{whom} has not answered in {seconds:g} s")
    if failed:
        raise failed[0]


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line without the number of the error."""
    text = error.strerror if isinstance(error, OSError) and isinstance(error.strerror, str) else str(error)
    return one_line(text).lower() or type(error).__name__


def key_of(environ: Mapping[str, str], host: str) -> str | None:
    """Return a key that is the same each time one job sends its notification; None outside of a job.

    What was delivered and not acknowledged is sent again. The receiver can tell by the key that it has had it.
    """
    job_id, spool = environ.get("QUEUECTL_JOB_ID"), environ.get("QUEUECTL_SPOOL_ID", "")
    return f"{job_id}.{spool or 'spool'}@{host}" if job_id else None
