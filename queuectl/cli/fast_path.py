"""`queuectl enqueue TEXT` without click, and what that shares with the whole command.

It is the line that scripts run a thousand times, and importing click takes as long as all the rest of it. Every other
line, each that is wrong in any way included, is left to click.
"""

from __future__ import annotations

import os

from queuectl.errors import QueuectlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")


def enqueue(words: Sequence[str]) -> bool:
    """Queue the job if the words are `enqueue TEXT` and nothing else; False leaves them to click."""
    if len(words) != 2 or words[0] != "enqueue" or not _is_plain(words[1]):
        return False
    from queuectl.api.spool import Spool

    print(f"enqueued job {Spool().enqueue(merged({'command': words[1]}, {})).id}")
    return True


def _is_plain(text: str) -> bool:
    """Whether it is a shell command: no option, no JSON, not blank, not beyond UTF-8."""
    return text[:1] != "-" and text.lstrip()[:1] not in {"", "{"} and text == utf8(text, "")


def merged(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the flags over a job, and say where it runs: in the caller's directory unless it says otherwise."""
    made = {**record, **fields}
    inner = record.get("env")
    if "env" in fields and isinstance(inner, dict):
        made["env"] = {**inner, **fields["env"]}
    tags = record.get("tags")
    if "tags" in fields and isinstance(tags, list):
        made["tags"] = [*tags, *fields["tags"]]
    cwd = made.get("cwd")
    if cwd is None or isinstance(cwd, str):
        made["cwd"] = _folder(cwd or "")
    return made


def _folder(cwd: str) -> str:
    cwd = os.path.expanduser(cwd)
    if os.path.isabs(cwd):
        return cwd
    try:
        here = os.getcwd()
    except OSError:
        raise QueuectlError("the current directory is gone", hint="name another one with --cwd") from None
    folder = utf8(os.path.join(here, cwd) if cwd else here, None)
    if folder is None:
        raise QueuectlError(
            "the name of the current directory is not UTF-8, so no job file can hold it",
            hint="name another one with --cwd",
        )
    return folder


def utf8(text: str, otherwise: T) -> str | T:
    """The text, or something else if it came in bytes that are no UTF-8, so that no job file could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return otherwise
    return text
