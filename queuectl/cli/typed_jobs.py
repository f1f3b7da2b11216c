"""Jobs that are typed as the text of `enqueue`: a command for the shell, a job in JSON, or a list of jobs."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from queuectl.cli import options
from queuectl.cli.base import Usage
from queuectl.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Iterator

# `[ -f x ]` and `[ "$a" ]` are commands of the shell; none begins with [{ or ["
_LIST = re.compile(r'\s*\[(?:\s*\{\s*["}]|"|\]\s*$)')


class TypedJobs:
    """The jobs of a list, as a source for `enqueue_many`."""

    name = "TEXT"
    size: int | None = None
    consumed = 0
    is_typed = True

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        self.place = ""
        self._jobs = jobs

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs."""
        for number, job in enumerate(self._jobs, 1):
            self.place = f"job {number}"
            yield job


def read(text: str) -> dict[str, Any] | TypedJobs:
    """Read one job, or several.

    Raises:
        Usage: the text looks like JSON but is not, or holds something else than jobs.
    """
    if not text.strip():
        raise Usage("the command is empty", hint='queuectl enqueue "echo hello"')
    mark = text.lstrip()[0]
    if mark != "{" and not _LIST.match(text):
        return {"command": text}
    from queuectl.job.strict_json import load_json

    try:
        return _jobs(load_json(text))
    except InvalidJob as error:
        kind = "a job" if mark == "{" else "a list of jobs"
        verdict = error.message if error.message.startswith("not JSON") else f"not valid: {error.message}"
        raise Usage(
            f"a text that starts with {mark} is {kind} in JSON, but this one is {verdict}",
            hint=f"for a shell command that starts with {mark} use --command",
        ) from None


def _jobs(value: Any) -> dict[str, Any] | TypedJobs:
    if isinstance(value, dict):
        return _with_times(value)
    if value and all(isinstance(word, str) for word in value):
        return {"command": value}  # as the field `command` has it: a program and its arguments
    if not value or not all(isinstance(job, dict) for job in value):
        raise InvalidJob("it must hold jobs, each an object with `command`")
    jobs = [_with_times(job) for job in value]
    return jobs[0] if len(jobs) == 1 else TypedJobs(jobs)


def _with_times(record: dict[str, Any]) -> dict[str, Any]:
    """Read the times of a job as they may be typed: it is read once, as the flags are.

    A text that is no time is left for the check of the job, which says so.
    """
    for name in ("run_at", "expires_at"):
        if isinstance(record.get(name), str):
            with suppress(ValueError):
                record[name] = options.moment(record[name])
    return record
