"""`queuectl enqueue`: queue a command, a job in JSON, or a file of jobs."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import enqueue_answer, enqueue_flags, enqueue_sources, fast_path, options, render
from queuectl.cli.base import Command, Session, Usage, command
from queuectl.cli.lost_output import keep_working, report_done
from queuectl.cli.typed_jobs import TypedJobs
from queuectl.errors import WRONG_USAGE, InvalidJob, KeyTaken, WorkerError
from queuectl.job import conditions, redact
from queuectl.job.fields import check_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.record import Job

_AFTER_DASHES = "queuectl.after_dashes"


class _Enqueue(Command):
    """A command that keeps the words after `--`: a command to run without a shell."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words after `--` out, before click removes the `--`."""
        at = self._dashes(args)
        if at is not None:
            ctx.meta[_AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        typed = list(args)  # click takes words out of args
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise Usage(error.format_message(), hint=self._with_dashes(typed)) from None

    def _with_dashes(self, args: list[str]) -> str:
        """Return the hint for a forgotten `--`: the command with it, in quotes as a shell needs them."""
        at = self._first(args, lambda word: not word.startswith("-"))
        if at is None:
            return 'put a command with options in quotes ("ls -l") or after -- (-- ls -l)'
        given = "[OPTIONS] " if at else ""  # they may hold secrets: --env TOKEN=…
        return f"queuectl enqueue {given}-- {shlex.join(args[at:])}"

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. It goes on when nobody reads its output, except with --wait: that output is the job's."""
        if not ctx.params.get("wait"):
            keep_working()
        return super().invoke(ctx)

    def _dashes(self, args: list[str]) -> int | None:
        """The position of the first `--` that is not the value of an option."""
        return self._first(args, "--".__eq__)

    def _first(self, args: list[str], fits: Callable[[str], bool]) -> int | None:
        """The position of the first word that fits and is not the value of an option."""
        takes_value = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }
        position = 0
        while position < len(args):
            if fits(args[position]):
                return position
            position += 2 if args[position] in takes_value else 1
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the limits that apply in this spool if none is given."""
        super().format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(enqueue_answer.defaults_of(ctx.ensure_object(Session).spool))


def _id(text: str) -> str:
    """Read an id, or a template for ids (with --each)."""
    return text if "{" in text else str(check_field("id", text))


def _variable(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Turn repeated NAME=VALUE into a dict."""
    made = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            shown = redact.MASK if redact.is_secret(value) else repr(value)
            raise click.BadParameter(f"{shown} is not NAME=VALUE", _ctx, param)
        try:
            made[options.utf8_text(name)] = options.utf8_text(text)
        except ValueError as error:
            raise click.BadParameter(str(error), _ctx, param) from None
    return made or None


HEADINGS = {
    "What to run": ("command_text", "file", "prefix", "each", "nul", "cwd", "env"),
    "The job": ("job_id", "priority", "queue", "needs", "tags", "unique", "if_exists", "hold"),
    "When": ("run_at", "delay", "expires_at", "expires_in"),
    "After other jobs": ("after", "after_any", "after_failure", "if_blocked", "batch"),
    "Attempts and time limits": (
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
    queuectl enqueue --timeout 2h "tar czf b.tgz src"  in the shell, for at most two hours
    queuectl enqueue -- ls -l "my photo.jpg"           without a shell: no quoting needed
    queuectl enqueue --id nightly --priority 8 --timeout 2h --command "./nightly.sh"
    queuectl enqueue --delay 10m "curl -fsS https://example.org/ping"
    queuectl enqueue --run-at 2026-12-31T18:00 --max-retries 1 "date >> party.txt"
    queuectl enqueue --give-up-on 100 --retry-on 111 --max-backoff 10m --timeout 10m "./send.sh"
    queuectl enqueue --expires-in 2h --tag news --timeout 10m "./post.sh"
    queuectl enqueue --queue gpu --needs gpu=1 --timeout 8h "./train.sh"
    queuectl enqueue --unique backup --timeout 2h "./backup.sh"   queue nothing if one waits or runs
    queuectl enqueue '{"id": "job1", "command": "echo hello", "priority": 8}'
    queuectl enqueue --wait "make test"                 print its output, exit with its exit code
    queuectl enqueue --file jobs.json                  one job, a list, or one job on each line
    make-jobs | queuectl enqueue --file -              the same, from another program
    queuectl enqueue --file dag.yaml --prefix mon- --batch mon   a pipeline, under new ids each day
    queuectl enqueue --timeout 0 --each '*.wav' -- ffmpeg -i {} {stem}.mp3
    find . -name '*.log' -print0 | queuectl enqueue --timeout 0 --each - --null "gzip -9 {}"
    """,
)
@click.argument("words", nargs=-1, metavar="[TEXT | -- CMD ARG...]")
@click.option(
    "--command",
    "-c",
    "command_text",
    metavar="TEXT",
    callback=options.job_field("command"),
    help="A command for the shell.",
)
@click.option(
    "--file",
    "-f",
    "file",
    metavar="PATH",
    type=click.Path(),
    help="A file of jobs in JSON or YAML: one job, a list, or one JSON job on each line. - is stdin.",
)
@click.option(
    "--prefix",
    metavar="TEXT",
    callback=options.checked(enqueue_sources.read_prefix),
    help="With --file: put this before each id of the file, and before each of these ids in after, after_any and "
    "after_failure.",
)
@click.option(
    "--each",
    metavar="GLOB",
    multiple=True,
    help="Queue a job for each file that matches, or with - for each line of stdin. In the command, {} is the name, "
    "{stem} {name} {dir} {ext} are parts of it, {n} is its number and {{ is a brace; also in the id and the unique key. "
    "May be repeated.",
)
@click.option(
    "--id", "job_id", metavar="ID", callback=options.checked(_id), help="The id. Default: a new one."
)
@click.option(
    "--priority",
    "-p",
    metavar="1..10",
    callback=options.job_field("priority", options.integer),
    help="A higher number is more urgent.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.job_field("timeout"),
    help="End the command after this time: 90, 90s, 10m, 2h. 0 means no limit. Default: the setting timeout, 20s if "
    "unset; with -w no limit.",
)
@click.option(
    "--max-retries",
    metavar="N",
    callback=options.job_field("max_retries", options.integer),
    help="How many times the command may run in total. Default: the setting max_retries, 3 if unset.",
)
@click.option(
    "--backoff-base",
    metavar="N",
    callback=options.job_field("backoff_base", options.number),
    help="After failed attempt number A, wait N ** A seconds.",
)
@click.option(
    "--run-at",
    metavar="WHEN",
    callback=options.checked(options.moment),
    help="Do not start it before this time: 18:00, tomorrow 02:00, friday 9am, +1h30m, 2026-12-31T18:00. Without a zone "
    "it is your local time.",
)
@click.option(
    "--delay",
    metavar="TIME",
    callback=options.checked(options.limit),
    help="Wait this long before it may start: 90s, 10m, 2h, 1h30m.",
)
@click.option(
    "--cwd",
    metavar="DIR",
    callback=options.job_field("cwd"),
    help="The directory to run it in. Default: the current one.",
)
@click.option(
    "--env",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_variable,
    help="Set an environment variable. May be repeated.",
)
@enqueue_flags.policy_options
@click.option(
    "--null", "-0", "nul", is_flag=True, help="With --each -: values end with NUL, as from `find -print0`."
)
@click.option(
    "--all-or-nothing",
    is_flag=True,
    help="With --file or --each: queue all jobs, or none if one is not valid, its id is taken, or the disk fails. "
    "After a crash or a power cut in that moment, some of them may be queued.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the ids, one on each line.")
@click.option(
    "--wait",
    "-w",
    is_flag=True,
    help="Print the job's output and exit with the exit code of its last attempt. Ctrl+C, TERM or HUP cancels the job.",
)
@click.pass_context
def enqueue_command(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    command_text: str | None,
    file: str | None,
    prefix: str | None,
    each: tuple[str, ...],
    nul: bool,
    all_or_nothing: bool,
    quiet: bool,
    wait: bool,
    **flags: Any,
) -> int:
    """Put jobs into the queue.

    TEXT is a command for the shell. If it starts with {, it is a job in JSON, and with [{ a list of jobs; for a shell
    command that starts with {, use --command. The words after -- are a command with its arguments, which runs without a shell. Flags override the
    fields of a JSON text or a file. When `enqueued job ID` is printed, the job is on the disk and survives a power cut.

    With --each the command is a template. In a command for the shell the values are quoted for you, so put no quotes
    around {}; a place where this would not be safe is refused. Put the GLOB in quotes, or your shell expands it.

    With --wait, stdout and stderr are those of the job; messages of queuectl, such as the id, go to stderr. Ctrl+C,
    TERM, or a terminal that is closed cancels the job. If queuectl is killed, the job goes on. The job has no time limit
    then, unless --timeout, the job or the settings of the spool give one.
    """
    session = ctx.ensure_object(Session)
    argv = ctx.meta.get(_AFTER_DASHES)
    if quiet and session.json:
        raise Usage("give only one of --quiet and --json")
    _refuse_flags(file, each, all_or_nothing=all_or_nothing, prefix=prefix, nul=nul)
    if each:
        enqueue_sources.one_template(words, argv, command_text, file)
    else:
        enqueue_sources.one_source(words, argv, command_text, file)
    fields = _fields(flags)
    if wait and (each or file is not None):
        raise Usage("--wait works only with one job", hint="queuectl wait --help")
    if not each and "{" in fields.get("id", ""):
        raise Usage("placeholders in --id work only with --each", hint="queuectl enqueue --help")
    if file is not None or each:
        from queuectl.cli.commands import enqueue_many

        mode = enqueue_many.Mode(all_or_nothing=all_or_nothing, quiet=quiet, prefix=prefix or "")
        if file is not None:
            enqueue_many.enqueue_file(session, file, fields, mode)
        else:
            template = enqueue_sources.template(words, argv, command_text)
            enqueue_many.enqueue_each(session, each, template, fields, mode, end=b"\0" if nul else b"\n")
        if not (quiet or session.json):
            enqueue_answer.note_start(fields.get("run_at"))
        return 0
    return _enqueue_typed(
        session, enqueue_sources.record(words, argv, command_text), fields, quiet=quiet, wait=wait
    )


def _refuse_flags(
    file: str | None, each: tuple[str, ...], *, all_or_nothing: bool, prefix: str | None, nul: bool
) -> None:
    """Refuse flags that do not go with the source of the jobs.

    Raises:
        Usage: one of them does not.
    """
    if all_or_nothing and file is None and not each:
        raise Usage("--all-or-nothing works only with --file or --each")
    if prefix is not None and file is None:
        raise Usage("--prefix works only with --file", hint="queuectl enqueue --file dag.yaml --prefix mon-")
    if nul and "-" not in each:
        raise Usage(
            "--null works only with --each -", hint="find . -print0 | queuectl enqueue --each - --null …"
        )


def _enqueue_typed(
    session: Session, typed: dict[str, Any] | TypedJobs, fields: dict[str, Any], *, quiet: bool, wait: bool
) -> int:
    """Queue the job that was typed, or the jobs of a list."""
    if not isinstance(typed, TypedJobs):
        return _enqueue_one(session, fast_path.merged(typed, fields), quiet=quiet, wait=wait)
    if wait:
        raise Usage("--wait works only with one job", hint="queuectl wait --help")
    from queuectl.cli.commands import enqueue_many

    enqueue_many.enqueue_from(session, typed, fields, enqueue_many.Mode(quiet=quiet))
    return 0


def _enqueue_one(session: Session, record: dict[str, Any], *, quiet: bool, wait: bool) -> int:
    if wait and record.get("timeout") is None and not enqueue_answer.has_limit(session.spool, record):
        record["timeout"] = 0  # whoever waits can press Ctrl+C, and sees how long it takes
    if wait:
        _refuse_endless_wait(session)
    try:
        job = session.spool.enqueue(record)
    except InvalidJob as error:
        error.exit_code = WRONG_USAGE  # it was typed, in JSON or as flags that do not go together
        raise
    enqueue_answer.note_near_misses(record)
    if wait and not job.skipped:
        from queuectl.cli.commands.enqueue_wait import wait_for

        if not (quiet or session.json):
            enqueue_answer.note_start(job.run_at)
        return wait_for(session, job.id or "", [] if quiet else enqueue_answer.of_waiting(job))
    report_done(f"skipped, as job {job.id} has the unique key" if job.skipped else f"enqueued job {job.id}")
    if session.json:
        render.json_array([json_view.enqueued(session.spool, job)])
    elif job.skipped:
        if not quiet:
            taken = KeyTaken(job.unique or "", job.id or "", job.state)
            show = render.note if wait else render.line  # with --wait, stdout is for the job's output
            show(f"skipped: {render.visible(str(taken))}")
    else:
        render.lines([job.id or ""] if quiet else enqueue_answer.of_job(job, record))
        if not quiet:
            enqueue_answer.note_start(job.run_at)
            enqueue_answer.note_old_members(session.spool, _batches(job), time.time())
            enqueue_answer.note_unknown_batches(session.spool, job)
            enqueue_answer.note_obstacle(session.spool, job.id or "")
    return 0


def _batches(job: Job) -> list[str]:
    """Return the batch of a job, and those for which it waits."""
    own = [] if job.batch is None else [job.batch]
    return [*own, *(one.batch for one in conditions.of_job(job) if one.batch is not None)]


def _refuse_endless_wait(session: Session) -> None:
    """Refuse a wait in a job whose worker is the only one and runs one job at a time: nothing would run the new job.

    Raises:
        WorkerError: it is so; nothing was queued.
    """
    from queuectl.control import own_job

    own = own_job.find(session.spool.layout)
    if own is not None and not any(
        one.name != own.worker or one.concurrency > 1 for one in session.spool.workers()
    ):
        raise WorkerError(
            f"{own.worker} is the only worker, and it runs job {own.job_id}, which would wait here for ever",
            hint="queuectl worker start, or enqueue without --wait",
        )


def _fields(flags: dict[str, Any]) -> dict[str, Any]:
    """The fields of the job file that flags set. Flags that were not given are left out; an explicit 0 is kept."""
    fields = {name: value for name, value in flags.items() if value is not None}
    if "job_id" in fields:
        fields["id"] = fields.pop("job_id")
    if "delay" in fields:
        from queuectl.job import times

        try:
            due = times.within_years(time.time() + fields["delay"], fields.pop("delay"))
        except ValueError as error:
            raise Usage(f"--delay: {error}") from None
        # --delay and --run-at both set the earliest time; if both are given, the later one holds.
        fields["run_at"] = max(due, fields.get("run_at", 0))
    enqueue_flags.settle_expiry(fields)
    return fields
