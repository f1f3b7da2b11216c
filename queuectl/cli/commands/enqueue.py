"""`queuectl enqueue`: a command, a job in JSON, flags, or a file of jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import fast_path, render
from queuectl.cli import options as takes
from queuectl.cli.base import Command, Session, Usage, command
from queuectl.cli.job_options import policy_options, settle_expiry
from queuectl.errors import InvalidJob, KeyTaken
from queuectl.job import redact
from queuectl.job.fields import check_field

if TYPE_CHECKING:
    from queuectl.job.record import Job

_AFTER_DASHES = "queuectl.after_dashes"


class _Enqueue(Command):
    """A command that remembers what stood behind `--`: words of a command to run without a shell."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the words behind `--` aside before click drops the mark."""
        at = self._dashes(args)
        if at is not None:
            ctx.meta[_AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise Usage(
                error.format_message(),
                hint='a command with options goes in quotes ("ls -l") or behind -- (-- ls -l)',
            ) from None

    def _dashes(self, args: list[str]) -> int | None:
        """Where the first `--` stands that is not the value of an option."""
        takes_value = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }
        position = 0
        while position < len(args):
            if args[position] == "--":
                return position
            position += 2 if args[position] in takes_value else 1
        return None


def _id(text: str) -> str:
    """An id, or the template of one."""
    return text if "{" in text else str(check_field("id", text))


def _variable(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Turn NAME=VALUE, given any number of times, into a map."""
    made = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            told = redact.MASK if redact.is_secret(value) else repr(value)
            raise click.BadParameter(f"{told} is not NAME=VALUE", _ctx, param)
        try:
            made[takes.plain_text(name)] = takes.plain_text(text)
        except ValueError as error:
            raise click.BadParameter(str(error), _ctx, param) from None
    return made or None


HEADINGS = {
    "What to run": ("command_text", "file", "each", "nul", "cwd", "env"),
    "The job": ("job_id", "priority", "tags", "unique", "if_exists", "hold"),
    "When": ("run_at", "delay", "expires_at", "expires_in"),
    "How often, how long": (
        "timeout",
        "max_retries",
        "backoff_base",
        "max_backoff",
        "jitter",
        "retry_on",
        "give_up_on",
    ),
}


@command(
    "enqueue",
    cls=_Enqueue,
    headings=HEADINGS,
    examples="""
    queuectl enqueue "tar czf backup.tgz src"          in the shell, in the current directory
    queuectl enqueue -- convert a.png "my photo.jpg"   without a shell: no quoting to get wrong
    queuectl enqueue --id nightly --priority 8 --timeout 2h --command "./nightly.sh"
    queuectl enqueue --delay 10m "curl -fsS https://example.org/ping"
    queuectl enqueue --run-at 2026-12-31T18:00 --max-retries 1 "./party.sh"
    queuectl enqueue --give-up-on 100 --retry-on 111 --max-backoff 10m "./send.sh"
    queuectl enqueue --expires-in 2h --tag news "./post-headline.sh"
    queuectl enqueue --unique backup --timeout 2h "./backup.sh"   nothing, if one waits or runs
    queuectl enqueue '{"id": "job1", "command": "echo hello", "priority": 8}'
    queuectl enqueue --wait "make test"                 as if it ran here: its output, its exit code
    queuectl enqueue --file jobs.json                  one job, a list, or one job a line
    make-jobs | queuectl enqueue --file -              the same from another program
    queuectl enqueue --each '*.wav' -- ffmpeg -i {} {stem}.mp3
    find . -name '*.log' -print0 | queuectl enqueue --each - --null "gzip -9 {} && ls -l {}.gz"
    """,
)
@click.argument("words", nargs=-1, metavar="[TEXT | -- CMD ARG...]")
@click.option(
    "--command",
    "-c",
    "command_text",
    metavar="TEXT",
    callback=takes.job_field("command"),
    help="The shell command.",
)
@click.option(
    "--file",
    "-f",
    "file",
    metavar="PATH",
    type=click.Path(),
    help="A file of jobs, JSON or YAML: one, a list, or one JSON a line. - is stdin.",
)
@click.option(
    "--each",
    metavar="GLOB",
    multiple=True,
    help="A job for each file that matches, or with - for each line of stdin; in the command {} is its name, "
    "{stem} {name} {dir} {ext} parts of it, {n} its number, and {{ a brace; in an id and a unique key, too. May be given again.",
)
@click.option(
    "--id", "job_id", metavar="ID", callback=takes.checked(_id), help="The job's name. Default: a new one."
)
@click.option(
    "--priority",
    metavar="1..10",
    callback=takes.job_field("priority", takes.integer),
    help="Higher is more urgent.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=takes.job_field("timeout"),
    help="End the command past it: 90, 90s, 10m, 2h. 0 is never.",
)
@click.option(
    "--max-retries",
    metavar="N",
    callback=takes.job_field("max_retries", takes.integer),
    help="How many times it may run in all.",
)
@click.option(
    "--backoff-base",
    metavar="N",
    callback=takes.job_field("backoff_base", takes.number),
    help="Wait N ** attempt seconds before the next one.",
)
@click.option("--run-at", metavar="WHEN", callback=takes.job_field("run_at"), help="Not before this moment.")
@click.option(
    "--delay", metavar="TIME", callback=takes.checked(takes.duration), help="Not before so long from now."
)
@click.option(
    "--cwd",
    metavar="DIR",
    callback=takes.job_field("cwd"),
    help="Run it there. Default: the current directory.",
)
@click.option(
    "--env",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_variable,
    help="Add a variable. May be given again.",
)
@policy_options
@click.option(
    "--null", "-0", "nul", is_flag=True, help="With --each -: not lines, but what `find -print0` writes."
)
@click.option(
    "--all-or-nothing",
    is_flag=True,
    help="With --file or --each: queue all of the jobs, or none if one is no job, its id is taken, or the disk refuses. "
    "A crash or a power cut just then may leave the first of them queued.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the ids and nothing else, one a line.")
@click.option(
    "--wait",
    "-w",
    is_flag=True,
    help="Pass on what the job writes, and exit as its command does, after its last attempt. Ctrl+C cancels it.",
)
@click.pass_context
def enqueue_command(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    command_text: str | None,
    file: str | None,
    each: tuple[str, ...],
    nul: bool,
    all_or_nothing: bool,
    quiet: bool,
    wait: bool,
    **flags: Any,
) -> int:
    """Put jobs into the queue.

    TEXT is a command for the shell. If it starts with { it is a job in JSON; a shell group that starts so goes
    into --command. Behind -- stands a command with its arguments, run as they are, without a shell.
    Flags win over what a JSON text or a file says. When the line `enqueued job ID` is printed, the job is on the disk
    and survives a power cut.

    With --each the command is a template. In a text for the shell the values are quoted, so leave out quotes around
    {}; a place where that would not be safe is refused. Put the GLOB itself in quotes, or your shell expands it.

    With --wait, stdout and stderr are the job's; what queuectl has to say, the id too, goes to stderr. TERM, or a
    terminal that is closed, leaves the job in the queue.
    """
    session = ctx.ensure_object(Session)
    argv = ctx.meta.get(_AFTER_DASHES)
    if quiet and session.json:
        raise Usage("--quiet and --json both say what to print: give one of them")
    if all_or_nothing and file is None and not each:
        raise Usage("--all-or-nothing goes with --file or --each")
    if nul and "-" not in each:
        raise Usage("--null goes with --each -", hint="find . -print0 | queuectl enqueue --each - --null …")
    if each:
        _one_template(words, argv, command_text, file)
    else:
        _one_source(words, argv, command_text, file)
    fields = _fields(flags)
    if wait and (each or file is not None):
        raise Usage("--wait is for one job", hint="queuectl wait --help")
    if not each and "{" in fields.get("id", ""):
        raise Usage("--id has placeholders only with --each", hint="queuectl enqueue --help")
    if file is not None or each:
        from queuectl.cli.commands import enqueue_many

        manner = enqueue_many.Manner(whole=all_or_nothing, quiet=quiet)
        if file is not None:
            enqueue_many.enqueue_file(session, file, fields, manner)
        else:
            template = _template(words, argv, command_text)
            enqueue_many.enqueue_each(session, each, template, fields, manner, end=b"\0" if nul else b"\n")
        return 0
    record = _record(words, argv, command_text)
    return _enqueue_one(session, fast_path.merged(record, fields), quiet=quiet, wait=wait)


def _enqueue_one(session: Session, record: dict[str, Any], *, quiet: bool, wait: bool) -> int:
    job = session.spool.enqueue(record)
    if wait and not job.skipped:
        from queuectl.cli.commands.enqueue_wait import attend

        return attend(session, job.id or "", [] if quiet else _lines(job))
    if session.json:
        render.json_array([json_view.enqueued(job)])
    elif job.skipped:
        if not quiet:
            taken = KeyTaken(job.unique or "", job.id or "", job.state)
            tell = render.note if wait else render.line  # with --wait stdout is the job's
            tell(f"skipped: {render.visible(str(taken))}")
    else:
        render.lines([job.id or ""] if quiet else _lines(job))
    return 0


def _lines(job: Job) -> list[str]:
    return [f"enqueued job {job.id}", *(f"replaced job {job_id}" for job_id in job.replaced)]


def _one_template(
    words: tuple[str, ...], argv: list[str] | None, command_text: str | None, file: str | None
) -> None:
    """Insist on exactly one template; more texts are most often what the shell made of a GLOB without quotes."""
    if file is not None:
        raise Usage("--each and --file both say what to run: give one of them")
    given = len(words) + (argv is not None) + (command_text is not None)
    if given > 1:
        raise Usage(
            f"{given} commands, and one is wanted", hint="put the pattern in quotes, as in --each '*.wav'"
        )
    if not given or argv in ([], [""]):
        raise Usage("no command for each", hint="queuectl enqueue --each '*.wav' -- ffmpeg -i {} {stem}.mp3")


def _template(words: tuple[str, ...], argv: list[str] | None, command_text: str | None) -> str | list[str]:
    if argv is not None:
        return [_utf8(word) for word in argv]
    return command_text if command_text is not None else _utf8(words[0])


def _one_source(
    words: tuple[str, ...], argv: list[str] | None, command_text: str | None, file: str | None
) -> None:
    """Insist on exactly one place where the command comes from."""
    given = [
        name
        for name, there in (
            ("TEXT", words),
            ("--command", command_text is not None),
            ("--file", file is not None),
            ("words behind --", argv is not None),
        )
        if there
    ]
    if not given:
        raise Usage("nothing to enqueue", hint='queuectl enqueue "echo hello"; more: queuectl enqueue --help')
    if len(given) > 1:
        raise Usage(f"{' and '.join(given)} both say what to run: give one of them")
    if len(words) > 1:
        import shlex

        line = render.clip(" ".join(words), 60)
        raise Usage(
            f"{len(words)} texts, and one command is wanted",
            hint=f"queuectl enqueue {shlex.quote(line)}, or queuectl enqueue -- {line}",
        )
    if argv is not None and (not argv or not argv[0]):
        raise Usage("no command behind --", hint="queuectl enqueue -- ls -l")


def _record(words: tuple[str, ...], argv: list[str] | None, command_text: str | None) -> dict[str, Any]:
    """The job as a map, from whichever source there is."""
    if command_text is not None:
        return {"command": command_text}
    if argv is not None:
        return {"command": [_utf8(word) for word in argv]}
    text = _utf8(words[0])
    if not text.strip():
        raise Usage("the command is empty", hint='queuectl enqueue "echo hello"')
    if not text.lstrip().startswith("{"):
        return {"command": text}
    from queuectl.job.strict_json import load_object

    try:
        return load_object(text.encode())
    except InvalidJob as error:
        raise Usage(
            f"a text that starts with {{ is a job in JSON, and this one is {_verdict(error)}",
            hint="for a shell command that starts with { use --command",
        ) from None


def _verdict(error: InvalidJob) -> str:
    return error.message if error.message.startswith("not JSON") else f"no good: {error.message}"


def _utf8(text: str) -> str:
    try:
        return takes.plain_text(text)
    except ValueError:
        raise Usage("the command is not UTF-8", hint="a job file is UTF-8 text") from None


def _fields(flags: dict[str, Any]) -> dict[str, Any]:
    """The fields of the job file that flags set; what was not given is left out, an explicit 0 is not."""
    fields = {name: value for name, value in flags.items() if value is not None}
    if "job_id" in fields:
        fields["id"] = fields.pop("job_id")
    if "delay" in fields:
        from queuectl.job import times

        try:
            due = times.parse_moment(time.time() + fields.pop("delay"))
        except ValueError as error:
            raise Usage(f"--delay: {error}") from None
        # Both say "not before", so with both the later one holds.
        fields["run_at"] = max(due, fields.get("run_at", 0))
    settle_expiry(fields)
    return fields
