"""`queuectl service`: have systemd or launchd start workers with the machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.cli.commands.worker import MAX_WORKERS, check_queues, queue_options, refuse_for_engine
from queuectl.layout import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.worker.service import Installer, Report

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

service_command = Group(
    name="service",
    short_help="Have systemd or launchd keep workers running.",
    help="""Background workers do not survive a restart of the machine. Workers of a service are started again.

    By default the service belongs to your user and needs no root rights. With --system it is a service of the machine;
    its workers run as the owner of the spool, or as the user that --run-as names.""",
    examples="""
    queuectl service print                        show the unit, change nothing
    queuectl service install --count 4            write it, start it, and start it with the machine
    queuectl service uninstall                    let running jobs finish, then remove the service
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


def _identity_options(function: FC) -> FC:
    """The options that identify the service."""
    for option in reversed(
        (
            click.option("--system", is_flag=True, help="A service of the machine instead of your user."),
            click.option(
                "--run-as",
                metavar="USER",
                help="With --system: the user that runs the workers. Default: the owner of the spool.",
            ),
            click.option(
                "--name",
                metavar="NAME",
                help="The name of the service. Default: queuectl, or queuectl-FOLDER.",
            ),
            click.option(
                "--engine",
                type=click.Choice(ENGINES),
                help="The dispatcher of this engine instead of workers, see queuectl guide slurm: a service of its own.",
            ),
            click.option(
                "--for",
                "kind",
                type=click.Choice(["systemd", "launchd"]),
                help="The service manager. Default: the one of this machine.",
            ),
        )
    ):
        function = option(function)
    return function


def _worker_options(function: FC) -> FC:
    """The options for the workers of the service."""
    function = queue_options(function)
    function = click.option(
        "--stop-timeout",
        metavar="TIME",
        callback=options.checked(options.duration),
        help="How long running jobs may continue when the service is stopped. Then they are ended, and run again later. "
        "Default: 15m.",
    )(function)
    return click.option(
        "--count", "-n", metavar="N", callback=options.between(1, MAX_WORKERS), help="How many workers."
    )(function)


def _installer(
    session: Session, *, system: bool, run_as: str | None, kind: str | None, **attrs: Any
) -> Installer:
    if run_as is not None and not system:
        raise Usage("--run-as works only with --system: other services run as you")
    if sys.platform == "win32":
        raise Usage(
            "Windows has neither systemd nor launchd",
            hint="use Task Scheduler to run: queuectl worker start",
        )
    check_queues(attrs.get("queues", ()), attrs.get("not_queues", ()))
    stop_timeout = attrs.pop("stop_timeout", None)
    if attrs.get("engine") is not None:
        given = {name.removesuffix("s"): attrs.get(name) for name in ("queues", "not_queues")}
        refuse_for_engine(attrs.get("count"), **given, stop_timeout=stop_timeout)
    if stop_timeout is not None:
        attrs["stop_timeout"] = stop_timeout
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
@_identity_options
@_worker_options
@click.pass_obj
def print_command(session: Session, /, **attrs: Any) -> None:
    """Print the unit that `service install` would write. Its path is printed on stderr."""
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
    queuectl service install --name queuectl-gpu --queue gpu
    queuectl service install --engine slurm       the dispatcher of a cluster
    sudo queuectl service install --spool /srv/jobs --system --run-as jobs
    """,
)
@_identity_options
@_worker_options
@click.pass_obj
def install_command(session: Session, /, **attrs: Any) -> None:
    """Write the unit, start the service, and start it with the machine from now on.

    The unit is checked first; if it would not work, nothing is written. Calling this again changes only what the
    options change. Every command that was run is printed, and every command that you still have to run.
    """
    installer = _installer(session, **attrs)
    report = installer.install()
    _print_report(session, report, "wrote" if report.changed else "unchanged:")


@command(
    "uninstall",
    examples="""
    queuectl service uninstall
    queuectl service uninstall --name thumbnails
    queuectl service uninstall --engine slurm     what runs on the cluster goes on
    """,
)
@_identity_options
@click.pass_obj
def uninstall_command(session: Session, /, **attrs: Any) -> None:
    """Stop the service, which lets running jobs finish, and delete its unit. The spool and its jobs do not change."""
    report = _installer(session, **attrs).uninstall()
    if not report.changed and not session.json:
        render.note(f"no service to uninstall: there is no {report.unit}")
        return
    _print_report(session, report, "deleted")


def _print_report(session: Session, report: Report, done: str) -> None:
    if session.json:
        left = [{"command": words, "why": why} for words, why in report.left]
        render.json_value({"unit": report.unit, "changed": report.changed, "ran": report.ran, "left": left})
        return
    render.line(f"{done} {report.unit}")
    for words in report.ran:
        render.line(f"ran: {words}")
    for words, why in report.left:
        render.line(f"left to run: {words}  # {why}")
