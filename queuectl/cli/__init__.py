"""The command line: arguments in, text out. `main` is the entry, and the only place that turns errors into exit codes.

Exit codes: 0 done, 1 refused or not found, 2 usage, 3 the spool or the disk, 4 no room, 70 a bug of queuectl,
130 interrupted, 141 the reader of the output went away.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from queuectl.cli.frame import Group, Session
from queuectl.errors import QueuectlError, SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPLETE_VAR = "_QUEUECTL_COMPLETE"
_BUG, _INTERRUPTED, _NO_READER = 70, 130, 141


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import queuectl

        click.echo(f"queuectl {queuectl.__version__}")
        ctx.exit()


root = Group(
    name="queuectl",
    callback=lambda: None,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and leave.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""A background job spool made of plain files.

    A job is a command in a JSON file. Put it into the spool, and a worker runs it: with retries, a timeout,
    priorities, and a dead letter queue for what cannot be done. The spool is ~/.queuectl, or the folder
    that --spool or the variable QUEUECTL_SPOOL names; there is nothing to set up first.""",
    examples="""
    queuectl enqueue "echo hello"             hand a command over
    queuectl worker start --count 2           run jobs in the background
    queuectl status                           see how many jobs are in which state
    queuectl list --state failed              see which will be tried again
    queuectl logs JOB                         read what a job wrote
    queuectl dlq retry JOB                    run a dead job again
    queuectl worker stop                      finish the jobs in hand, then leave
    queuectl demo                             see all of it happen in a temporary spool
    """,
    sections={
        "Jobs": {
            "enqueue": ("enqueue", "Hand over a command, or a file of jobs."),
            "list": ("status", "List the jobs, all or those of one state."),
            "show": ("show", "Show everything about a job."),
            "logs": ("logs", "Print what a job wrote, or follow it."),
            "cancel": ("maintain", "Give a job up: end it if it runs, bury it if it waits."),
            "dlq": ("dlq", "The dead letter queue: list, retry, clear."),
        },
        "Workers": {
            "worker": ("workers", "Start, stop and watch the processes that run jobs."),
            "status": ("status", "Count the jobs in each state, and the workers."),
        },
        "Spool": {
            "config": ("config", "Read and change the settings of the spool."),
            "clear": ("maintain", "Delete jobs, but never a running one."),
            "reindex": ("maintain", "Build the index anew from the folders."),
            "demo": ("demo", "Run the example spool and show what happens."),
            "completion": ("completion", "Print the script that lets your shell complete commands and ids."),
        },
    },
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the words after the program's name; None takes them from sys.argv.

    Returns:
        the exit code.
    """
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not cost the command its work.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _guarded(lambda: _run(words))
    return _guarded(_flush) or code


def _run(words: list[str]) -> int:
    instruction = os.environ.get(COMPLETE_VAR)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": Session()}, "queuectl", COMPLETE_VAR, instruction)
    with root.make_context("queuectl", words, obj=Session()) as ctx:
        code = root.invoke(ctx)
    return code if isinstance(code, int) else 0


def _flush() -> int:
    """Write out what is buffered while an error can still be told; at exit Python would only grumble."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _forget_output()
            raise SpoolError.from_os("write", "the output", error) from None
    return 0


def _forget_output() -> None:
    """Point stdout at nothing, so that the flush at exit cannot fail a second time."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _guarded(do: Callable[[], int]) -> int:
    """Do it, and turn what goes wrong into words and an exit code."""
    try:
        return do()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        _tell(*_usage_words(error))
        return error.exit_code
    except QueuectlError as error:
        _tell(str(error), error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell("interrupted", None)
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return _NO_READER
    except OSError as error:
        known = SpoolError.from_os("use", error.filename or "the spool", error)
        _tell(str(known), None)
        return known.exit_code
    except Exception:
        import traceback

        traceback.print_exc()
        _tell("this is a bug in queuectl; the lines above tell where", None)
        return _BUG


def _usage_words(error: click.ClickException) -> tuple[str, str | None]:
    """Word a usage error as ours are: no capital, no full stop, and the help page as the hint."""
    text = error.format_message()
    if text[:1].isupper() and not text[1:2].isupper():
        text = text[0].lower() + text[1:]
    hint: str | None = getattr(error, "hint", None)
    ctx = getattr(error, "ctx", None)
    if hint is None and ctx is not None:
        hint = f"{ctx.command_path} --help"
    return text.rstrip("."), hint


def _tell(message: str, hint: str | None) -> None:
    from queuectl.cli import render

    with suppress(OSError):
        render.note(f"error: {render.clip(message)}")
        if hint:
            render.note(f"hint: {render.clip(hint)}")
