"""The root of the commands, with its help page. The commands themselves are imported when they are asked for."""

from __future__ import annotations

from typing import Any

import click

from queuectl.cli.base import Group, Session


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import queuectl

        click.echo(f"queuectl {queuectl.__version__}")
        ctx.exit()


def _status(ctx: click.Context) -> Any:
    """What who types the name alone wants to know: how things stand, and where help is."""
    from queuectl.cli import render
    from queuectl.cli.commands.status import status_command

    code = ctx.invoke(status_command)
    if not ctx.ensure_object(Session).json:
        render.note("queuectl --help shows what else there is")
    return code


root = Group(
    name="queuectl",
    callback=lambda: None,
    bare=_status,
    other_words={
        "add": "enqueue",
        "cat": "show",
        "clean": "purge",
        "continue": "resume",
        "del": "remove",
        "delete": "remove",
        "info": "show",
        "kill": "cancel",
        "log": "logs",
        "ls": "list",
        "ps": "worker list",
        "prune": "purge",
        "push": "enqueue",
        "requeue": "dlq retry",
        "retry": "dlq retry",
        "rm": "remove",
        "run": "worker start",
        "start": "worker start",
        "stop": "worker stop",
        "submit": "enqueue",
        "suspend": "pause",
        "tail": "logs -f",
        "update": "set",
        "validate": "check",
        "version": "--version",
        "workers": "worker list",
        "docs": "guide",
        "help": "--help",
        "manual": "guide",
    },
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
    queuectl guide cookbook                   read how common tasks are done
    """,
    sections={
        "Jobs": {
            "enqueue": ("enqueue", "Hand over a command, or a file of jobs."),
            "list": ("list", "List the jobs, all or those of one state."),
            "show": ("show", "Show everything about a job."),
            "logs": ("logs", "Print what a job wrote, or follow it."),
            "wait": ("wait", "Wait until jobs have ended."),
            "set": ("set", "Change fields of jobs that wait."),
            "edit": ("edit", "Open a waiting job in your editor."),
            "hold": ("hold", "Keep waiting jobs from running."),
            "release": ("hold", "Let held jobs run."),
            "cancel": ("cancel", "Give a job up: end it if it runs, bury it if it waits."),
            "remove": ("remove", "Delete jobs for good, and what they wrote."),
            "dlq": ("dlq", "The dead letter queue: list, retry, clear."),
        },
        "Workers": {
            "worker": ("worker", "Start, stop and watch the processes that run jobs."),
            "service": ("service", "Have systemd or launchd keep workers running."),
            "status": ("status", "Count the jobs in each state, and the workers."),
            "top": ("top", "Watch workers and jobs on a full screen, with keys to act on them."),
            "stats": ("stats", "Say how jobs have gone: how many, how well, how long."),
            "metrics": ("metrics", "Print how the spool stands for Prometheus."),
            "pause": ("pause", "Have no worker start another job."),
            "resume": ("pause", "Let the workers go on."),
            "drain": ("pause", "Pause, and wait until nothing runs."),
        },
        "Job files": {
            "check": ("check", "Say whether files hold jobs, and queue nothing."),
            "schema": ("schema", "Print the JSON Schema of a job file, for editors."),
        },
        "Spool": {
            "config": ("config", "Read and change the settings of the spool."),
            "purge": ("purge", "Delete old jobs that are over, and old output."),
            "clear": ("clear", "Delete jobs, but never a running one."),
            "reindex": ("clear", "Build the index anew from the folders."),
            "doctor": ("doctor", "Find what is wrong with the spool, and mend it."),
            "demo": ("demo", "Run the example spool and show what happens."),
            "guide": ("guide", "Show a page of the guide: recipes, settings, rules, promises."),
            "man": ("man", "Print the manual page."),
            "completion": ("completion", "Print the script that lets your shell complete commands and ids."),
        },
    },
)
