"""`queuectl queue`: show the queues of the spool, and change their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.config.queue_file import KEYS
from queuectl.layout import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.storage.queue_state import Queue

queue_command = Group(
    name="queue",
    short_help="Show queues, and change their limits.",
    help="""A job is in the queue that its field `queue` names, or else in the queue `default`. Queues need not be declared.

    The file queues/NAME.yaml of the spool has the limits of a queue and the defaults of its jobs. Edit it by hand or
    with `queue set`. Workers follow a change within a second. `queuectl guide queues` explains it all.""",
    examples="""
    queuectl queue list
    queuectl queue show mail
    queuectl queue set mail limit=2 rate=100/1h
    queuectl queue unset mail rate
    queuectl pause --queue mail               start none of its jobs
    """,
    other_words={
        "ls": "list",
        "status": "list",
        "get": "show",
        "cat": "show",
        "info": "show",
        "config": "set",
        "limit": "set",
        "change": "set",
        "update": "set",
        "reset": "unset",
        "delete": "unset",
        "remove": "unset",
        "rm": "unset",
        "pause": "queuectl pause",
        "resume": "queuectl resume",
        "drain": "queuectl drain",
        "help": "queuectl guide queues",
    },
    needless={
        "create": ("a queue need not be declared", "queuectl enqueue --queue NAME …"),
        "add": ("a queue need not be declared", "queuectl enqueue --queue NAME …"),
        "new": ("a queue need not be declared", "queuectl enqueue --queue NAME …"),
    },
    sections={
        "Commands": {
            "list": ("queue", "List the queues: how full they are, and their limits."),
            "show": ("queue", "Show everything about a queue."),
            "set": ("queue", "Change the limits of a queue, or the defaults of its jobs."),
            "unset": ("queue", "Remove keys from the file of a queue."),
        }
    },
)

_name = click.argument(
    "name",
    metavar="QUEUE",
    callback=options.job_field("queue"),
    shell_complete=options.complete_queues,
)


@command(
    "list",
    examples="""
    queuectl queue list
    queuectl queue list --json | jq -r '.[] | select(.paused) | .name'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """List the queues that have jobs which are not completed, a file in queues/, or a pause.

    Each line shows: name, waiting jobs, running jobs with the limit, starts within the span of the rate, whether it is
    paused, and for how long the first job that could run has waited. In a pipe a tab separates the values.
    """
    found = session.spool.queues()
    if session.json:
        render.json_array(json_view.queue(queue) for queue in found)
    elif not found:
        render.note("no queues have jobs or limits")
    elif render.is_terminal():
        heads = ("Queue", "Waiting", "Running", "Starts", "Paused", "Oldest")
        render.table("Queues", heads, [_cells(queue) for queue in found], cut=("Paused",))
    else:
        render.lines_of_cells(_cells(queue) for queue in found)


def _cells(queue: Queue) -> tuple[str, ...]:
    return queue.name, str(queue.waiting), _running(queue), _starts(queue), _paused(queue), _oldest(queue)


def _running(queue: Queue) -> str:
    return f"{queue.running}" if queue.limit is None else f"{queue.running}/{queue.limit}"


def _starts(queue: Queue) -> str:
    return "" if queue.rate is None else f"{'?' if queue.starts is None else queue.starts} of {queue.rate}"


def _paused(queue: Queue) -> str:
    if queue.paused is None:
        return ""
    return render.visible(f"paused: {queue.paused.reason}" if queue.paused.reason else "paused")


def _oldest(queue: Queue) -> str:
    if queue.oldest is None:
        return ""
    return render.ago(queue.oldest) if render.is_terminal() else f"{queue.oldest:.0f}"


@command("show", examples="queuectl queue show mail")
@_name
@click.pass_obj
def show_command(session: Session, name: str) -> None:
    """Show everything about a queue: its jobs, its limits, its pause, and the defaults of its jobs."""
    queue = session.spool.queue(name)
    if session.json:
        render.json_value(json_view.queue(queue))
        return
    facts = dict(_facts(session, queue))
    width = max(map(len, facts)) + 2
    render.lines(f"{label + ':':<{width}}{text}" for label, text in facts.items())
    options.note_unknown_queues(session, (name,))


def _facts(session: Session, queue: Queue) -> list[tuple[str, str]]:
    from queuectl.config.keys import as_text

    file = session.spool.layout.queue_file(queue.name)
    facts = [
        ("queue", queue.name),
        ("waiting", str(queue.waiting)),
        ("running", _running(queue)),
        ("dead", str(queue.dead)),
        ("limit", as_text(queue.limit)),
        ("rate", as_text(queue.rate)),
        *([("starts", _starts(queue))] if queue.rate is not None else []),
        ("paused", "no" if queue.paused is None else render.visible(queue.paused.sentence)),
        ("oldest", "" if queue.oldest is None else f"waits for {render.ago(queue.oldest)}"),
        *([("engine", queue.engine)] if queue.engine != LOCAL else []),
        *((key, as_text(queue.placement[key])) for key in ("partition", "options") if key in queue.placement),
        *((key, as_text(value)) for key, value in queue.defaults.items()),
        ("file", render.short_path(file)),
        ("workers", "some serve it" if queue.served else "none serves it"),
    ]
    if queue.fault:
        facts.append(("fault", render.visible(queue.fault)))
    return [(label, text) for label, text in facts if text]


def _complete_key(sign: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda _ctx, _param, incomplete: [
        f"{key}{sign}" for key in KEYS if key.startswith(incomplete.replace("-", "_").lower())
    ]


@command(
    "set",
    examples="""
    queuectl queue set mail limit=2
    queuectl queue set mail limit=2 rate=100/1h timeout=5m
    queuectl queue set default timeout=10m    for all jobs that name no queue
    """,
    changes=True,
)
@_name
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...", shell_complete=_complete_key("="))
@click.pass_obj
def set_command(session: Session, name: str, changes: tuple[str, ...]) -> None:
    """Change the limits of a queue, or the defaults of its jobs. Comments in its file are kept.

    limit: how many of its jobs run at a time, 1 to 1000. rate: how many may start in any such span, like 100/1h.
    engine, partition, options: where its jobs run, see `queuectl guide slurm`. The other keys are the defaults of its jobs: timeout, max_retries, backoff_base, max_backoff, priority, jitter,
    retry_on, give_up_on. They apply to jobs that are accepted later. A job's own field overrides them.
    """
    wanted: dict[str, Any] = {}
    for word in changes:
        key, equals, value = word.partition("=")
        if not equals:
            raise Usage(
                f"{render.clip(repr(word), 60)} is not KEY=VALUE", hint=f"queuectl queue set {name} limit=2"
            )
        wanted[options.utf8_text(key)] = options.utf8_text(value).strip() or None
    _report(session, session.spool.set_queue(name, **wanted))


@command("unset", examples="queuectl queue unset mail rate", changes=True)
@_name
@click.argument("keys", nargs=-1, required=True, metavar="KEY...", shell_complete=_complete_key(""))
@click.pass_obj
def unset_command(session: Session, name: str, keys: tuple[str, ...]) -> None:
    """Remove keys from the file of a queue: it has no such limit any more, and its jobs get the defaults of the spool."""
    _report(session, session.spool.set_queue(name, **dict.fromkeys(keys)))


def _report(session: Session, queue: Queue) -> None:
    if session.json:
        render.json_value(json_view.queue(queue))
        return
    shown = {"limit": queue.limit, "rate": queue.rate, **queue.placement, **queue.defaults}
    given = [f"{key}={_as_typed(value)}" for key, value in shown.items() if value is not None]
    render.line(f"{queue.name}: {' '.join(given) or 'no limits'}")


def _as_typed(value: object) -> str:
    """Return the value of a key as it can be given to `queue set`."""
    import shlex

    from queuectl.config.keys import as_text

    text = as_text(value)
    is_codes = isinstance(value, list) and all(isinstance(one, int) for one in value)
    return text.replace(" ", ",") if is_codes else shlex.quote(text) if isinstance(value, list) else text
