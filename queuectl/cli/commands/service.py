"""`queuectl service`: workers that come back with the machine, by systemd or launchd."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.cli.commands.worker import MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.worker.service import Installer, Report

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

service_command = Group(
    name="service",
    callback=lambda: None,
    short_help="Have systemd or launchd keep workers running.",
    help="""Background workers outlive the terminal, not a restart of the machine. A service does.

    By default it is a service of your own, which needs no root. With --system it is one of the machine's, which runs
    the workers as the owner of the spool, or as whom --run-as names.""",
    examples="""
    queuectl service print                        look at the unit, change nothing
    queuectl service install --count 4            write it, start it, have it started with the machine
    queuectl service uninstall                    let jobs in hand end, then undo it
    sudo queuectl service install --spool /srv/jobs --system --run-as jobs
    """,
    sections={
        "Commands": {
            "print": ("service", "Print the unit, and change nothing."),
            "install": ("service", "Write the unit and start the service."),
            "uninstall": ("service", "Stop the service and delete its unit."),
        }
    },
)


def _which(function: FC) -> FC:
    """The options that say which service is meant."""
    for option in reversed(
        (
            click.option("--system", is_flag=True, help="A service of the machine, not of your own."),
            click.option(
                "--run-as", metavar="USER", help="With --system: as whom. Default: the owner of the spool."
            ),
            click.option(
                "--name", metavar="NAME", help="What it is called. Default: queuectl, or queuectl-FOLDER."
            ),
            click.option(
                "--for",
                "kind",
                type=click.Choice(["systemd", "launchd"]),
                help="Who keeps it running. Default: what this machine has.",
            ),
        )
    ):
        function = option(function)
    return function


def _how(function: FC) -> FC:
    """The options that say how the workers run."""
    function = click.option(
        "--stop-timeout",
        metavar="TIME",
        default="15m",
        callback=takes.checked(takes.duration),
        help="How long jobs in hand may take when the service is stopped; then they are ended, and run again later. "
        "Default: 15m.",
    )(function)
    return click.option(
        "--count", "-n", metavar="N", callback=takes.between(1, MOST_WORKERS), help="How many workers."
    )(function)


def _installer(
    session: Session, *, system: bool, run_as: str | None, kind: str | None, **attrs: Any
) -> Installer:
    if run_as is not None and not system:
        raise Usage("--run-as goes with --system: a service of your own runs as you")
    if sys.platform == "win32":
        raise Usage(
            "there is neither systemd nor launchd on Windows",
            hint="Task Scheduler can run `queuectl worker start`",
        )
    from queuectl.worker import service

    layout = session.spool.layout
    user = service.owner_for_system(layout, run_as) if system else None
    made = service.describe(layout, user=user, **attrs)
    return service.Installer(made, kind or ("launchd" if sys.platform == "darwin" else "systemd"))


@command(
    "print",
    examples="""
    queuectl service print
    queuectl service print --system --run-as jobs --count 4
    queuectl service print --for launchd > ~/Library/LaunchAgents/queuectl.plist
    """,
)
@_which
@_how
@click.pass_obj
def print_command(session: Session, /, **attrs: Any) -> None:
    """Print the unit that `service install` would write; where it would go stands on stderr."""
    installer = _installer(session, **attrs)
    text = installer.text().decode()
    if session.json:
        render.json_value({"path": installer.unit, "unit": text})
        return
    render.note(f"for {installer.unit}")
    render.lines(text.splitlines())


@command(
    "install",
    examples="""
    queuectl service install --count 4
    queuectl service install --spool /srv/jobs --name thumbnails
    sudo queuectl service install --spool /srv/jobs --system --run-as jobs
    """,
)
@_which
@_how
@click.pass_obj
def install_command(session: Session, /, **attrs: Any) -> None:
    """Write the unit, start the service, and have it started with the machine.

    It is tried out first: what would not work is refused and nothing is written. Doing it again changes nothing, or
    what the options say differently. Each command that was run is printed, and each that is left to you.
    """
    installer = _installer(session, **attrs)
    report = installer.install()
    _tell(session, report, "wrote" if report.changed else "unchanged:")


@command(
    "uninstall",
    examples="""
    queuectl service uninstall
    queuectl service uninstall --name thumbnails
    """,
)
@_which
@click.pass_obj
def uninstall_command(session: Session, /, **attrs: Any) -> None:
    """Stop the service, which lets jobs in hand end, and delete its unit. Jobs and spool stay as they are."""
    report = _installer(session, **attrs).uninstall()
    if not report.changed and not session.json:
        render.note(f"no service to uninstall: there is no {report.unit}")
        return
    _tell(session, report, "deleted")


def _tell(session: Session, report: Report, done: str) -> None:
    if session.json:
        left = [{"command": words, "why": why} for words, why in report.left]
        render.json_value({"unit": report.unit, "changed": report.changed, "ran": report.ran, "left": left})
        return
    render.line(f"{done} {report.unit}")
    for words in report.ran:
        render.line(f"ran: {words}")
    for words, why in report.left:
        render.line(f"left to run: {words}  # {why}")
