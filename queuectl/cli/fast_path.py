"""`queuectl enqueue TEXT` without importing click, and the functions that it shares with the full command.

Scripts run this line thousands of times, and importing click takes as long as everything else that it does. All other
calls, and all calls with an error, are left to click.
"""

from __future__ import annotations

import os
import sys

from queuectl.errors import QueuectlError
from queuectl.layout import with_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")


def enqueue(words: Sequence[str]) -> str | None:
    """Queue the job if the words are exactly `enqueue TEXT`, and return its id. None: click must handle them."""
    if len(words) != 2 or words[0] != "enqueue" or not _is_shell_command(words[1]):
        return None
    if sys.stdout is not None and sys.stdout.isatty():
        return None  # a person reads more than the id, and does not notice the time that click takes
    from queuectl.api.spool_enqueue import EnqueuePart

    return EnqueuePart().enqueue(merged({"command": words[1]}, {})).id


def _is_shell_command(text: str) -> bool:
    """Whether the text is a shell command: not an option, not JSON, which begins with { or [, not blank, and UTF-8."""
    return text[:1] != "-" and text.lstrip()[:1] not in {"", "{", "["} and text == utf8(text, "")


def merged(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job with the fields of the flags added. Without a `cwd` it runs in the current directory."""
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
    cwd = with_home(cwd)
    if os.path.isabs(cwd):
        return cwd
    try:
        here = os.getcwd()
    except OSError:
        raise QueuectlError("the current directory was deleted", hint="give a directory with --cwd") from None
    folder = utf8(os.path.join(here, cwd) if cwd else here, None)
    if folder is None:
        raise QueuectlError(
            "the name of the current directory is not UTF-8, so no job file can contain it",
            hint="give a directory with --cwd",
        )
    return folder


def utf8(text: str, otherwise: T) -> str | T:
    """Return the text, or `otherwise` if it was typed in bytes that are not UTF-8: no job file can contain those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return otherwise
    return text
