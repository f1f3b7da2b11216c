"""Install workers as a service of systemd or launchd, and uninstall them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from queuectl.errors import QueuectlError, SpoolError
from queuectl.layout import Layout
from queuectl.system import files
from queuectl.worker import program, service_units

if TYPE_CHECKING:
    from queuectl.worker.service_units import Service

HOME_SPOOL = "~/.queuectl"
SYSTEM_UNITS = "/etc/systemd/system"
BOOTED = "/run/systemd/system"
"""This folder exists exactly while systemd runs the machine."""

_OF_ENGINES = ("SLURM_CONF",)
"""Variables without which a dispatcher would ask another cluster."""

PATIENCE = 60.0
"""Seconds that a command may take; stopping the service has no limit, as it waits for the running jobs."""


@dataclass(slots=True)
class Report:
    """What an installation has done.

    Attributes:
        unit: the file that was written or deleted.
        changed: whether the file has changed.
        ran: the commands that were run.
        left: the commands that a person still has to run, each with the reason.
    """

    unit: str
    changed: bool = False
    ran: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def describe(
    layout: Layout,
    *,
    name: str | None = None,
    count: int | None = None,
    user: str | None = None,
    stop_timeout: float = 900,
    queues: tuple[str, ...] = (),
    not_queues: tuple[str, ...] = (),
    engine: str | None = None,
) -> Service:
    """Describe the service of a spool, run with this program, environment and spool.

    Args:
        name: of the service; the default is queuectl, or queuectl-FOLDER for a spool that is not the default one.
        count: how many workers; None leaves it to the setting worker_count.
        user: who runs a service of the system; None for a service of the user's own.
        stop_timeout: seconds that running jobs get when the service is stopped.
        queues: the queues that the workers serve; none: all.
        not_queues: queues that they do not serve.
        engine: run the dispatcher of this engine, and no worker.

    Raises:
        QueuectlError: a unit cannot express it.
    """
    return service_units.Service(
        name=name or service_units.default_name(layout.root, os.path.expanduser(HOME_SPOOL), engine),
        program=_program(),
        root=layout.root,
        count=count,
        user=user,
        path=service_units.search_path(os.environ.get("PATH", os.defpath)),
        stop_timeout=max(1, round(stop_timeout)),
        queues=queues,
        not_queues=not_queues,
        engine=engine,
        variables=tuple((name, os.environ[name]) for name in _OF_ENGINES if engine and name in os.environ),
    )


def _error_in(told: str) -> str:
    """The line of a failed program's stderr that says why: its error, or the last line of a traceback of Python."""
    lines = told.strip().splitlines()
    return next(
        (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "".join(lines[-1:])
    )


def _program() -> tuple[str, ...]:
    """The words that call this program from any folder."""
    beside = os.path.join(os.path.dirname(sys.executable), "queuectl")
    if os.access(beside, os.X_OK) and not getattr(sys, "frozen", False):
        return (beside,)
    return tuple(program.words())


def owner_for_system(layout: Layout, named: str | None) -> str:
    """Choose the user who runs a system service: the one named, else the spool's owner, else the caller of sudo.

    Raises:
        QueuectlError: there is no such user, or none can be found.
    """
    import pwd

    with suppress(OSError, KeyError):
        named = named or pwd.getpwuid(os.stat(layout.root).st_uid).pw_name
    named = named or os.environ.get("SUDO_USER")
    if not named:
        raise QueuectlError("no user is named to run the workers", hint="--run-as NAME")
    try:
        pwd.getpwnam(named)
    except KeyError:
        raise QueuectlError(f"there is no user {named!r}", hint="--run-as NAME") from None
    return named


class Installer:
    """Installs and uninstalls one service.

    Args:
        service: what to run.
        kind: "systemd" or "launchd".

    Attributes:
        unit: the path of its unit file.
        report: what has been done so far.
    """

    def __init__(self, service: Service, kind: str) -> None:
        self.service = service
        self.kind = kind
        self.of_system = service.user is not None
        self.unit = os.path.join(
            self._folder(), service.name + (".service" if kind == "systemd" else ".plist")
        )
        self.report = Report(self.unit)

    def _folder(self) -> str:
        if self.kind == "launchd":
            return (
                "/Library/LaunchDaemons" if self.of_system else os.path.expanduser("~/Library/LaunchAgents")
            )
        if self.of_system:
            return SYSTEM_UNITS
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return os.path.join(home, "systemd", "user")

    def text(self) -> bytes:
        """The content of the unit."""
        if self.kind == "launchd":
            return service_units.launchd_plist(self.service)
        return service_units.systemd_unit(self.service).encode()

    # -- changes ---------------------------------------------------------------------------------------------------

    def install(self) -> Report:
        """Write the unit, start the service, and have it started with the machine. A second call changes nothing.

        Raises:
            QueuectlError: it would not work, and why; nothing was written.
        """
        self._refuse_what_would_not_work()
        text = self.text()
        before = self._present()
        self.report.changed = before != text
        if self.report.changed:
            self._write(text)
        if self.kind == "launchd":
            self._start_agent(known=before is not None)
        else:
            self._start_unit(known=before is not None)
        return self.report

    def uninstall(self) -> Report:
        """Stop the service, which finishes its running jobs, and delete its unit. Without a unit nothing is done.

        Raises:
            QueuectlError: the unit is not this spool's, or systemd or launchd refused.
        """
        if self._present() is None:
            return self.report
        self._need_root()
        if self.kind == "launchd":
            self._run("launchctl", "bootout", f"{self._domain()}/{self.service.name}", may_fail=True)
        else:
            self._run(*self._systemctl(), "disable", "--now", self._unit_name(), timeout=None)
        try:
            os.unlink(self.unit)
        except OSError as error:
            raise SpoolError.from_os("delete", self.unit, error) from None
        if self.kind == "systemd":
            self._run(*self._systemctl(), "daemon-reload")
        self.report.changed = True
        return self.report

    def _start_unit(self, *, known: bool) -> None:
        self._run(*self._systemctl(), "daemon-reload")
        self._run(*self._systemctl(), "enable", "--now", self._unit_name())
        if known and self.report.changed:
            restart = shlex.join([*self._systemctl(), "restart", self._unit_name()])
            self.report.left.append((restart, "the unit has changed; this waits for the running jobs"))
        if not self.of_system and not self.lingers():
            linger = f"loginctl enable-linger {shlex.quote(_me())}"
            self.report.left.append(
                (linger, "or the workers end when you log out, and start when you log in")
            )

    def _start_agent(self, *, known: bool) -> None:
        if known and not self.report.changed:
            found = _output("launchctl", "print", f"{self._domain()}/{self.service.name}")
            if found is not None:
                return
        if known:
            self._run("launchctl", "bootout", f"{self._domain()}/{self.service.name}", may_fail=True)
        self._run("launchctl", "bootstrap", self._domain(), self.unit)

    def _domain(self) -> str:
        return "system" if self.of_system else f"gui/{os.getuid()}"

    def _systemctl(self) -> list[str]:
        return ["systemctl"] if self.of_system else ["systemctl", "--user"]

    def _unit_name(self) -> str:
        return f"{self.service.name}.service"

    def _write(self, text: bytes) -> None:
        try:
            os.makedirs(os.path.dirname(self.unit), exist_ok=True)
            files.replace(self.unit, text)
            os.chmod(self.unit, 0o644)
        except OSError as error:
            raise SpoolError.from_os("write", self.unit, error) from None

    def _run(self, *words: str, may_fail: bool = False, timeout: float | None = PATIENCE) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise QueuectlError(f"{shlex.join(words)}: {error}") from None
        if done.returncode and not may_fail:
            said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
            raise QueuectlError(f"{shlex.join(words)}: {said}", hint=f"the unit is {self.unit}")
        self.report.ran.append(shlex.join(words))

    # -- checks ----------------------------------------------------------------------------------------------------

    def _present(self) -> bytes | None:
        """Return the installed unit; None: there is none.

        Raises:
            QueuectlError: it was not made by queuectl, or for another spool.
        """
        try:
            with open(self.unit, "rb") as file:
                found = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolError.from_os("read", self.unit, error) from None
        if not service_units.is_ours(found.decode(errors="replace"), self.service.root):
            raise QueuectlError(
                f"{self.unit} was not made for the spool {self.service.root}",
                hint="--name gives another name",
            )
        return found

    def _refuse_what_would_not_work(self) -> None:
        self._need_root()
        tool = "launchctl" if self.kind == "launchd" else "systemctl"
        if shutil.which(tool) is None:
            raise QueuectlError(
                f"there is no {tool} here", hint="queuectl service print shows the unit without installing it"
            )
        if self.kind == "systemd" and self.of_system and not os.path.isdir(BOOTED):
            raise QueuectlError("this machine is not run by systemd")
        if (
            self.kind == "systemd"
            and not self.of_system
            and _output("systemctl", "--user", "show-environment") is None
        ):
            raise QueuectlError(
                "systemd does not run for this user here: log in as this user instead of using su or sudo",
                hint="queuectl service install --system --run-as NAME, as root",
            )
        if self.service.engine is not None:
            self._refuse_no_cluster()
        self._try_out()

    def _refuse_no_cluster(self) -> None:
        """Refuse a dispatcher that would leave at once: the service would start it again and again."""
        from queuectl.config import settings
        from queuectl.worker import dispatch_check

        if self.service.user == "root" or (self.service.user is None and os.geteuid() == 0):
            dispatch_check.refuse_root()
        dispatch_check.folder_in(settings.load(Layout(self.service.root))[0])
        dispatch_check.refuse_missing(self.service.path)

    def _need_root(self) -> None:
        if self.of_system and os.geteuid() != 0:
            raise QueuectlError(
                "only root can set up a service of the system",
                hint=f"sudo {shlex.join([*self.service.program])} service …",
            )

    def _try_out(self) -> None:
        """Call the program as the service will: from /, with an empty environment, as its user."""
        import json

        service = self.service
        as_user: dict[str, Any] = {}
        home = os.path.expanduser(f"~{service.user}" if service.user else "~")
        if service.user is not None and service.user != _me():
            group = _group(service.user)
            as_user = {
                "user": service.user,
                "group": group,
                "extra_groups": os.getgrouplist(service.user, group),
            }
        words = [*service.program, "--spool", service.root, "status", "--json"]
        env = {"PATH": service.path, "HOME": home}
        try:
            done = subprocess.run(
                words,
                cwd=os.sep,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
                **as_user,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise QueuectlError(f"the workers would not start: {shlex.join(words)}: {error}") from None
        if done.returncode:
            raise QueuectlError(
                f"the workers would not start: {_error_in(done.stderr) or f'exit code {done.returncode}'}",
                hint=shlex.join(words),
            )
        for note in json.loads(done.stdout)["notes"]:
            if note.startswith("workers start nothing: "):
                raise QueuectlError(f"the workers would do nothing: {note.partition(': ')[2]}")

    def lingers(self) -> bool:
        """Whether the user's services keep running after logout."""
        answer = _output("loginctl", "show-user", _me(), "--property=Linger")
        return answer is not None and answer.strip() == "Linger=yes"


def _output(*words: str) -> str | None:
    """Return what a command prints; None: it failed, or does not exist."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def _me() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
