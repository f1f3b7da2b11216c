"""What all ways to send a notification share: a limit of time for all of it, and a key by which a second copy is known."""

from __future__ import annotations

import threading
from hashlib import sha256
from typing import TYPE_CHECKING

from queuectl.errors import NotSentNow
from queuectl.job.redact import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.notify.message import Message

LONGEST = 10.0
"""Seconds for all of it: the name of the server, the connection and the answer."""


def within(seconds: float, send: Callable[[], None], whom: str) -> None:
    """Call a function that sends something, and wait for its end.

    A limit for each read and write would not do: a name that is looked up has none, and a server that answers with a byte
    each second never reaches it. So it runs in a thread, which is left behind if it takes longer.

    Args:
        whom: the other side, for the message.

    Raises:
        NotSentNow: it has not ended in time, and may have been sent all the same; or no thread could be started.
        NotSent: as `send` raises it.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            send()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="queuectl-notify", daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NotSentNow(f"cannot start a thread for {whom}: {error}") from None
    thread.join(seconds)
    if thread.is_alive():
        raise NotSentNow(f"{whom} has not answered in {seconds:g} s")
    if failed:
        raise failed[0]


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line without the number of the error."""
    text = error.strerror if isinstance(error, OSError) and isinstance(error.strerror, str) else str(error)
    return one_line(text).lower() or type(error).__name__


def key_of(environ: Mapping[str, str], message: Message) -> str | None:
    """Return a key that is the same each time one job sends this notification; None outside of a job.

    What was delivered and not acknowledged is sent again. The receiver can tell by the key that it has had it. The next death
    of the same job is another thing to tell: with the same key its notification would be thrown away as a second copy.
    """
    job_id, spool = environ.get("QUEUECTL_JOB_ID"), environ.get("QUEUECTL_SPOOL_ID", "")
    ends = repr([(job.id, job.state, job.finished_at) for job in message.jobs])
    about = sha256(ends.encode()).hexdigest()[:16]
    return f"{job_id}.{about}.{spool or 'spool'}@{message.host}" if job_id else None
