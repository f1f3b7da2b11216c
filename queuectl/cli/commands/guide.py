"""`queuectl guide`: the pages of the manual, which travel with the package as Markdown files."""

from __future__ import annotations

import os

import click

import queuectl
from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command

TOPICS = {
    "cookbook": "A dozen tasks, each with the commands to type.",
    "commands": "Every command, with the same call from Python.",
    "fields": "Every field of a job file: type, default, meaning.",
    "running": "How jobs are ordered, retried, timed out, held and stopped.",
    "settings": "Every key of config.yaml, and how to change it.",
    "queues": "Queues: limits, rates, resources, and the defaults of their jobs.",
    "slurm": "Jobs on the nodes of a Slurm cluster: set-up, options, security.",
    "dependencies": "Jobs that wait for jobs, and for batches of jobs.",
    "rules": "Rules: jobs that are queued at certain times, for files that appear, or about other jobs.",
    "python": "How to use queuectl from a Python program.",
    "web": "Pages in a browser: how to open them, what they show, how they are protected.",
    "service": "How to keep workers running with systemd, launchd or cron; one file without Python.",
    "containers": "How to run workers in a container: volume, users, process 1, stop time, health check.",
    "security": "Who can run what: permissions, root, jobs from other users, secrets.",
    "troubles": "What to do when something goes wrong.",
    "promises": "What holds after a crash or a power cut, and what does not.",
}
"""Topic -> one line about its page. The page is the file `queuectl/guide/TOPIC.md`."""

_WIDEST = 100
"""Columns of text on a wide terminal: longer lines are hard to read."""


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [topic for topic in TOPICS if topic.startswith(incomplete.lower())]


@command(
    "guide",
    examples="""
    queuectl guide
    queuectl guide cookbook
    queuectl guide settings | grep keep_
    """,
    paged=True,
)
@click.argument("topic", required=False, metavar="[TOPIC]", shell_complete=_complete)
@click.pass_obj
def guide_command(session: Session, topic: str | None) -> None:
    """Show a page of the guide; without a topic, list the pages.

    In a pipe the page is plain Markdown.
    """
    if topic is None:
        _list_topics(session)
        return
    text = _page(topic)
    if session.json:
        render.json_value({"topic": topic, "markdown": text})
    elif render.is_terminal():
        _print_markdown(text)
    else:
        click.echo(text, nl=False)


def _list_topics(session: Session) -> None:
    if session.json:
        render.json_array({"topic": topic, "summary": summary} for topic, summary in TOPICS.items())
    elif render.is_terminal():
        render.table("queuectl guide TOPIC", ("Topic", "What it tells"), [*TOPICS.items()])
    else:
        render.lines(f"{topic} - {summary}" for topic, summary in TOPICS.items())


def _page(topic: str) -> str:
    """Return the Markdown of a page.

    Raises:
        Usage: there is no such topic.
    """
    if topic not in TOPICS:
        from difflib import get_close_matches

        near = get_close_matches(topic.lower(), TOPICS, n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise Usage(f"the guide has no page {topic!r}{suggestion}", hint="queuectl guide")
    path = os.path.join(os.path.dirname(queuectl.__file__), "guide", f"{topic}.md")
    with open(path, encoding="utf-8") as file:
        return file.read()


def _print_markdown(text: str) -> None:
    from rich.markdown import Markdown

    width = min(render.console().width, _WIDEST)
    render.console(width=width).print(Markdown(text, code_theme="ansi_dark", hyperlinks=False))
