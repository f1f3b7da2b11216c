"""`queuectl enqueue TEXT`, `queuectl status` and the start of a worker without importing click.

Scripts run the first two thousands of times, and importing click takes as long as everything else that they do: they take
3.2 and 4.5 times the processor time of `python -c pass`, and with click 6.9 and 7.6. Of the time until a worker starts its
first job, click would be a third. All other calls, and all that are typed wrong, are left to click.
"""

from __future__ import annotations

import os
import sys

from queuectl.cli import lost_output
from queuectl.errors import ConfigError, QueuectlError
from queuectl.layout import with_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

FAULT_HINT = "queuectl config get"
"""Shows what is wrong in the settings."""


def run(words: Sequence[str]) -> int | None:
    """Run the command if it is one of the three, and return the exit code; None: click must handle it.

    Raises:
        QueuectlError: the command failed.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        return None  # a person sees more than a program, and does not notice the time that click takes
    if status(words):
        return 0
    if "worker" in words[:3:2]:
        from queuectl.cli import plain_worker

        return plain_worker.run(words)
    job_id = enqueue(words)
    if job_id is None:
        return None
    lost_output.keep_working()
    lost_output.report_done(f"enqueued job {job_id}")
    try:
        print(f"enqueued job {job_id}")
    except OSError as error:  # at once where Python does not buffer, else when it is flushed
        lost_output.lose_output(error)
    return 0


def status(words: Sequence[str]) -> bool:
    """Print the status if the words are exactly `status` or `status --json`.

    Raises:
        ConfigError: the settings are not valid, so the counts may lack jobs.
    """
    if list(words) not in (["status"], ["status", "--json"]):
        return False
    from queuectl.api.spool import Spool
    from queuectl.cli import status_answer

    spool = Spool()
    status_answer.write(spool, json="--json" in words)
    if spool.settings_fault:
        raise ConfigError(spool.settings_fault, hint=FAULT_HINT)
    return True


def enqueue(words: Sequence[str]) -> str | None:
    """Queue the job if the words are exactly `enqueue TEXT`, and return its id. None: click must handle them."""
    if len(words) != 2 or words[0] != "enqueue" or not _is_shell_command(words[1]):
        return None
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
    return cwd if os.path.isabs(cwd) else current_folder("give a directory with --cwd", cwd)


def current_folder(hint: str, below: str = "") -> str:
    """Return the folder of a job that runs where its command is typed, or `below` that; `hint` says what else can be done.

    Raises:
        QueuectlError: the current directory was deleted, or its name is not UTF-8.
    """
    try:
        here = os.getcwd()
    except OSError:
        raise QueuectlError("the current directory was deleted", hint=hint) from None
    folder = utf8(os.path.join(here, below) if below else here, None)
    if folder is None:
        raise QueuectlError(
            "the name of the current directory is not UTF-8, so no job file can contain it", hint=hint
        )
    return folder


def utf8(text: str, otherwise: T) -> str | T:
    """Return the text, or `otherwise` if it was typed in bytes that are not UTF-8: no job file can contain those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return otherwise
    return text
