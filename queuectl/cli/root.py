"""The root command with its help page. The other commands are imported only when they are called."""

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
    """`queuectl` alone: print the status, and how to get help."""
    from queuectl.cli import render
    from queuectl.cli.commands.status import status_command

    code = ctx.invoke(status_command)
    if not ctx.ensure_object(Session).json:
        render.note("for help: queuectl --help")
    return code


root = Group(
    name="queuectl",
    bare=_status,
    other_words={
        "abort": "cancel",
        "add": "enqueue",
        "bury": "cancel",
        "cat": "show",
        "clean": "purge",
        "configure": "config",
        "count": "status",
        "dashboard": "top",
        "dead": "dlq list",
        "del": "remove",
        "dequeue": "cancel",
        "delete": "remove",
        "export": "list --json",
        "fix": "doctor --repair",
        "follow": "logs -f",
        "gc": "purge",
        "get": "show",
        "health": "doctor",
        "history": "list",
        "info": "show",
        "inspect": "show",
        "job": "show",
        "jobs": "list",
        "kill": "cancel",
        "log": "logs",
        "ls": "list",
        "monitor": "top",
        "output": "logs",
        "peek": "list",
        "ping": "status",
        "ps": "worker list",
        "prune": "purge",
        "push": "enqueue",
        "put": "enqueue",
        "recover": "doctor --repair",
        "repair": "doctor --repair",
        "replay": "retry",
        "requeue": "retry",
        "rerun": "retry",
        "rm": "remove",
        "run": "worker start",
        "cron": "rule",
        "crontab": "rule",
        "schedule": "enqueue --run-at",
        "send": "enqueue",
        "settings": "config",
        "shell": "enqueue",
        "start": "worker start",
        "stop": "worker stop",
        "submit": "enqueue",
        "stdout": "logs",
        "suspend": "pause",
        "tail": "logs -f",
        "unhold": "release",
        "unpause": "resume",
        "update": "set",
        "validate": "check",
        "version": "--version",
        "workers": "worker list",
        "docs": "guide",
        "help": "--help",
        "manual": "guide",
    },
    needless={
        "init": ("a spool needs no set-up, the first job makes it", "queuectl enqueue --help"),
        "setup": ("a spool needs no set-up, the first job makes it", "queuectl enqueue --help"),
        "create": ("a spool needs no set-up, the first job makes it", "queuectl enqueue --help"),
        "restart": ("stop the workers and start new ones", "queuectl worker stop && queuectl worker start"),
        "reload": ("workers follow the settings by themselves", "queuectl config get"),
    },
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""A background job spool made of plain files.

    A job is a command in a JSON file. Put it into the spool, and a worker runs it, with retries, a timeout and
    priorities. Jobs that fail too often go to the dead letter queue. The spool is the folder ~/.queuectl, or the folder
    that --spool or the variable QUEUECTL_SPOOL names. It needs no setup.""",
    examples="""
    queuectl enqueue "echo hello"             queue a command
    queuectl worker start --count 2           run jobs in the background
    queuectl status                           count the jobs in each state
    queuectl list --state failed              list the jobs that will be tried again
    queuectl logs JOB                         print the output of a job
    queuectl retry JOB                        run a dead job again
    queuectl worker stop                      finish the running jobs, then exit
    queuectl demo                             watch an example in a temporary spool
    queuectl guide cookbook                   read how common tasks are done
    """,
    sections={
        "Jobs": {
            "enqueue": ("enqueue", "Queue a command, or a file of jobs."),
            "list": ("list", "List jobs: all of them, or those that match filters."),
            "show": ("show", "Show everything about a job."),
            "logs": ("logs", "Print the output of jobs, or follow it."),
            "wait": ("wait", "Wait until jobs have ended."),
            "set": ("set", "Change fields of waiting jobs."),
            "edit": ("edit", "Edit a waiting job in your editor."),
            "hold": ("hold", "Keep waiting jobs from running."),
            "release": ("hold", "Let held jobs run."),
            "retry": ("retry", "Run dead, failed or completed jobs again."),
            "cancel": ("cancel", "Cancel waiting and running jobs."),
            "remove": ("remove", "Delete jobs and their output permanently."),
            "batch": ("batch", "Batches of jobs: list, show."),
            "dlq": ("dlq", "The dead letter queue: list, show, edit, retry, clear."),
            "notify": ("notify", "Tell people or a program how jobs have ended: mail, webhook."),
        },
        "Workers": {
            "worker": ("worker", "Start, stop and watch the processes that run jobs."),
            "service": ("service", "Have systemd or launchd keep workers running."),
            "status": ("status", "Count the jobs in each state, and the workers."),
            "top": ("top", "Watch workers and jobs live, with keys to act on them."),
            "web": ("web", "Show the spool in a browser, with buttons to act on it."),
            "stats": ("stats", "Show success rates, and how long jobs waited and ran."),
            "metrics": ("metrics", "Print the state of the spool for Prometheus."),
            "pause": ("pause", "Stop workers from starting jobs."),
            "resume": ("pause", "Let workers start jobs again."),
            "drain": ("pause", "Pause, and wait until no job is running."),
            "queue": ("queue", "Limits of queues: list, show, set, unset."),
            "engine": ("engine", "What runs jobs on other machines: check."),
            "rule": (
                "rule",
                "Rules that queue jobs at certain times: list, show, check, add, run, pause, resume, remove.",
            ),
        },
        "Job files": {
            "check": ("check", "Check job files without queueing them."),
            "schema": ("schema", "Print the JSON Schema of a job file, for editors."),
        },
        "Spool": {
            "config": ("config", "Read and change the settings of the spool."),
            "purge": ("purge", "Delete old jobs that have ended, and old output."),
            "clear": ("clear", "Delete all jobs except running ones."),
            "reindex": ("reindex", "Build the index again from the folders."),
            "doctor": ("doctor", "Find and repair problems of the spool."),
            "demo": ("demo", "Run an example spool and show what happens."),
            "guide": ("guide", "Show a page of the guide: recipes, settings, rules, promises."),
            "man": ("man", "Print the manual page."),
            "completion": ("completion", "Print the script for completion in your shell."),
        },
    },
)
