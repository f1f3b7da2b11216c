"""What `enqueue` is about: one command, a template, or the jobs of a file, whose ids may get a prefix."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from queuectl.cli import options, typed_jobs
from queuectl.cli.base import Usage
from queuectl.job.conditions import FIELDS
from queuectl.job.fields import check_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from queuectl.cli.typed_jobs import TypedJobs


def one_template(
    words: tuple[str, ...], argv: list[str] | None, command_text: str | None, file: str | None
) -> None:
    """Check that there is exactly one template. More texts most often come from a GLOB without quotes."""
    if file is not None:
        raise Usage("give only one of --each and --file")
    given = len(words) + (argv is not None) + (command_text is not None)
    if given > 1:
        raise Usage(
            f"{given} commands instead of one", hint="put the pattern in quotes, as in --each '*.wav'"
        )
    if not given or argv in ([], [""]):
        raise Usage(
            "no command for --each",
            hint="queuectl enqueue --timeout 0 --each '*.wav' -- ffmpeg -i {} {stem}.mp3",
        )


def template(words: tuple[str, ...], argv: list[str] | None, command_text: str | None) -> str | list[str]:
    """Return the command of the template that was given."""
    if argv is not None:
        return [utf8(word) for word in argv]
    return command_text if command_text is not None else utf8(words[0])


def one_source(
    words: tuple[str, ...], argv: list[str] | None, command_text: str | None, file: str | None
) -> None:
    """Check that exactly one source of the command is given."""
    given = [
        name
        for name, there in (
            ("TEXT", words),
            ("--command", command_text is not None),
            ("--file", file is not None),
            ("a command after --", argv is not None),
        )
        if there
    ]
    if not given:
        raise Usage("nothing to enqueue", hint='queuectl enqueue "echo hello"; more: queuectl enqueue --help')
    if len(given) > 1:
        raise Usage(f"give only one of {' and '.join(given)}")
    if len(words) > 1:
        raise Usage(
            f"{len(words)} texts instead of one command",
            hint=f"queuectl enqueue -- {shlex.join(words)}",
        )
    if words == ("-",):
        # In other programs it means stdin. The shell would look for a program of this name, and the input would be lost.
        raise Usage(
            "a command is not read from stdin; jobs in JSON or YAML are, with --file -",
            hint='queuectl enqueue "$(cat)"',
        )
    if argv is not None and (not argv or not argv[0]):
        raise Usage("no command after --", hint="queuectl enqueue -- ls -l")


def record(
    words: tuple[str, ...], argv: list[str] | None, command_text: str | None
) -> dict[str, Any] | TypedJobs:
    """The job as a dict, from the source that was given; or the jobs of a list."""
    if command_text is not None:
        return {"command": command_text}
    if argv is not None:
        return {"command": [utf8(word) for word in argv]}
    return typed_jobs.read(utf8(words[0]))


def utf8(text: str) -> str:
    """Return a part of the command.

    Raises:
        Usage: no job file can hold it.
    """
    try:
        return options.utf8_text(text)
    except ValueError:
        raise Usage("the command is not UTF-8", hint="a job file is UTF-8 text") from None


def read_prefix(text: str) -> str:
    """Read what is put before ids: with a letter behind it, it must be an id.

    Raises:
        ValueError: it cannot be the beginning of an id.
    """
    check_field("id", f"{text}a")
    return text


def parents_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a job waits for. Values of a wrong type are left for the check of the job."""
    for kind in FIELDS:
        value = record.get(kind)
        for one in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
            if isinstance(one, str):
                yield one


def put_prefix(prefix: str, records: Iterable[dict[str, Any]]) -> None:
    """Put a prefix before the id of each job, and before each of these ids among what the jobs wait for.

    So the same pipeline can be enqueued each day. Jobs that are not of the file keep their ids. Values of a wrong type are
    left for the check of the job.
    """
    found = [*records]
    names = {record["id"] for record in found if isinstance(record.get("id"), str)}
    new = {name: prefix + name for name in names}
    for record in found:
        if isinstance(record.get("id"), str):
            record["id"] = new[record["id"]]
        for kind in FIELDS:
            value = record.get(kind)
            if isinstance(value, str):
                record[kind] = new.get(value, value)
            elif isinstance(value, list):
                record[kind] = [new.get(one, one) if isinstance(one, str) else one for one in value]
