"""`queuectl config`: read and change the settings of the spool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import render
from queuectl.cli.base import Group, Session, Usage, command

if TYPE_CHECKING:
    from collections.abc import Callable

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

config_command = Group(
    name="config",
    short_help="Read and change the settings of the spool.",
    help="""The settings are in the file config.yaml of the spool. Edit it by hand or with `config set`.

    The settings are copied into a job when it is accepted, so a change applies only to later jobs. A field of a job
    overrides the setting. max_retries and max-retries are the same key. Durations can be written as 30s, 10m, 2h, 7d.""",
    examples="""
    queuectl config get
    queuectl config get max_retries
    queuectl config set max-retries 5
    queuectl config set timeout 10m
    queuectl config unset timeout
    """,
    other_words={
        "list": "get",
        "ls": "get",
        "show": "get",
        "cat": "get",
        "print": "get",
        "read": "get",
        "add": "set",
        "change": "set",
        "update": "set",
        "write": "set",
        "reset": "unset",
        "default": "unset",
        "delete": "unset",
        "del": "unset",
        "remove": "unset",
        "rm": "unset",
        "clear": "unset",
        "check": "get",
        "help": "queuectl guide settings",
    },
    sections={
        "Commands": {
            "get": ("config", "Print one setting, or all settings."),
            "set": ("config", "Change a setting."),
            "unset": ("config", "Remove a setting, so that the default applies."),
        }
    },
)


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from queuectl.config.keys import KEYS

    return [name for name in KEYS if name.startswith(incomplete.replace("-", "_").lower())]


def _key(**attrs: Any) -> Callable[[FC], FC]:
    return click.argument("key", shell_complete=_complete, **attrs)


def _load(session: Session) -> dict[str, Any]:
    """Load the current settings, and print warnings."""
    from queuectl.config import keys
    from queuectl.config.settings import load

    settings, warnings = load(session.spool.layout)
    for text in warnings:
        render.note(f"warning: {text}")
    return {name: getattr(settings, name) for name in keys.KEYS}


@command(
    "get",
    examples="""
    queuectl config get
    queuectl config get max_retries
    queuectl config get max_retries -q
    queuectl config get --json
    """,
)
@_key(required=False, metavar="[KEY]")
@click.option(
    "--quiet", "-q", is_flag=True, help="Print only the value of KEY; an empty line if it is unset."
)
@click.pass_obj
def get_command(session: Session, key: str | None, quiet: bool) -> None:
    """Print the current value of the setting KEY, or of all settings."""
    from queuectl.config import keys

    if quiet and session.json:
        raise Usage("give only one of --quiet and --json")
    if quiet and key is None:
        raise Usage("--quiet prints the value of one setting", hint="queuectl config get KEY -q")
    name = None if key is None else keys.normalise(key)
    values = _load(session)
    if session.json:
        render.json_value(values if name is None else {name: values[name]})
    elif name is None:
        for each, value in values.items():
            render.line(f"{each} = {keys.as_text(value)}")
    elif quiet:
        render.line("" if values[name] is None else keys.as_text(values[name]))
    else:
        render.line(f"{key} = {keys.as_text(values[name])}")


@command(
    "set",
    examples="""
    queuectl config set max_retries 5
    queuectl config set backoff-base 3
    queuectl config set timeout 10m
    queuectl config set log_limit 50M
    """,
    changes=True,
    # A negative number is a bad value, not an option.
    context_settings={"ignore_unknown_options": True},
)
@_key()
@click.argument("value")
@click.pass_obj
def set_command(session: Session, key: str, value: str) -> None:
    """Set KEY to VALUE. Comments in the file are kept, and the file is never left half written."""
    from queuectl.config import change, keys
    from queuectl.control import permissions

    permissions.refuse_others(session.spool.layout, "config …")
    if keys.normalise(key) == "slurm_dir" and os.path.isabs(value):
        from queuectl.engine import check

        check.refuse_unusable(value, session.spool.layout)
    set_to = change.set_value(session.spool.layout, key, value)
    if session.json:
        render.json_value({keys.normalise(key): set_to})
    else:
        render.line(f"{key} = {keys.as_text(set_to)}")


@command("unset", examples="queuectl config unset timeout", changes=True)
@_key()
@click.pass_obj
def unset_command(session: Session, key: str) -> None:
    """Remove KEY from the file, so that the default value applies."""
    from queuectl.config import change, keys
    from queuectl.control import permissions

    permissions.refuse_others(session.spool.layout, "config …")
    name = keys.normalise(key)
    change.unset_value(session.spool.layout, key)
    value = _load(session)[name]
    if session.json:
        render.json_value({name: value})
    else:
        render.line(f"{key} = {keys.as_text(value)}")
