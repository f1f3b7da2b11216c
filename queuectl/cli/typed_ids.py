"""Ids as they are typed: whole, or only the beginning of one.

A script passes whole ids, and some of them are gone. `job1` must not mean job10 then. So a command that changes jobs takes
a beginning as it is only if it cannot be a whole id that somebody has chosen: it must have a part of the random end of an
id that queuectl has made. On a terminal it asks in all other cases.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from queuectl.cli import options, render
from queuectl.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.api.spool import Spool
    from queuectl.cli.base import Session

_SHOWN = 5
"""How many of the ids that are meant by an ambiguous beginning are named."""

CERTAIN = len("20261130T012838-c")
"""Characters of an id made by queuectl that only such an id has: the time and one random letter."""

_CAN_BE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MADE = re.compile(r"\d{8}T\d{6}-[0-9a-z]{8}", re.ASCII)


def to_show(session: Session, text: str) -> str:
    """Return the id that is meant, for a command that changes nothing; the text itself if no id begins with it.

    Raises:
        JobError: several ids begin with it.
    """
    job_id = _meant(session.spool, text)
    if job_id != text and not _is_certain(text, job_id) and not session.json:
        render.note(f"note: {text} is the beginning of {job_id}")
    return job_id


def to_change(session: Session, texts: Iterable[str], verb: str) -> list[str]:
    """Return the ids that are meant, without duplicates, for a command that changes jobs or waits for them.

    Args:
        verb: as in "cancel job1".

    Raises:
        JobError: several ids begin with one of the texts, or it could be an id of which the job is gone.
        QueuectlError: the user was asked, and said no.
    """
    texts = list(dict.fromkeys(texts))
    known = session.spool.rows(text for text in texts if _CAN_BE_ID.fullmatch(text))
    found = [text if text in known else _to_change(session, text, verb) for text in texts]
    return list(dict.fromkeys(found))


def _to_change(session: Session, text: str, verb: str) -> str:
    job_id = _meant(session.spool, text)
    if job_id == text or _is_certain(text, job_id):
        return job_id
    if sys.stdin is None or not sys.stdin.isatty():
        raise JobError(
            f"no job {text!r} in this spool; {job_id} begins with that", hint=f"queuectl show {job_id}"
        )
    options.ask(f"No job has the id {text}. {verb.capitalize()} {job_id}", no="nothing was done")
    return job_id


def _meant(spool: Spool, text: str) -> str:
    """Return the only id that begins with the text, or the text itself if it is an id, or if there is none."""
    found = spool.ids(text, limit=_SHOWN + 1) if _CAN_BE_ID.fullmatch(text) else []
    if not found or text in found:
        return text
    if len(found) == 1:
        return found[0]
    more = ", …" if len(found) > _SHOWN else ""
    raise JobError(
        f"several ids begin with {text!r}: {', '.join(found[:_SHOWN])}{more}",
        hint=f"queuectl show {found[0]}",
    )


def _is_certain(text: str, job_id: str) -> bool:
    return len(text) >= CERTAIN and _MADE.fullmatch(job_id) is not None
