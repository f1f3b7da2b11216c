"""What systemd and launchd are told so that workers come back after a restart: the texts alone, nothing is done here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from queuectl.errors import QueuectlError

_PLAIN = re.compile(r"[A-Za-z0-9/_.,:=+-][A-Za-z0-9/_.,:=+@-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MARK = "Made by `queuectl service` for the spool"


@dataclass(frozen=True, slots=True)
class Service:
    """Workers that the system keeps running.

    Attributes:
        name: what the service is called.
        program: the words that call queuectl, the first an absolute path.
        root: the spool.
        count: how many workers; None leaves it to the setting worker_count.
        user: as whom a system service runs; None for a service of the user's own.
        path: the PATH of the workers, and of the jobs.
        stop_timeout: seconds that jobs in hand get to end when the service is stopped.
    """

    name: str
    program: tuple[str, ...]
    root: str
    count: int | None
    user: str | None
    path: str
    stop_timeout: int

    def __post_init__(self) -> None:
        """Refuse what no unit can hold.

        Raises:
            QueuectlError: a control character, bytes that are no UTF-8, or a name that no service can have.
        """
        if not _NAME.fullmatch(self.name):
            raise QueuectlError(
                f"{self.name!r} cannot be the name of a service: letters, digits and . _ -",
                hint="--name NAME",
            )
        for text in (*self.program, self.root, self.path):
            if not text.isprintable():
                raise QueuectlError(f"{text!r} cannot stand in a unit: it holds more than printable text")

    @property
    def words(self) -> list[str]:
        """The command that runs the workers."""
        count = ["--count", str(self.count)] if self.count else []
        return [*self.program, "--spool", self.root, "worker", "start", "--foreground", *count]


def systemd_unit(service: Service) -> str:
    """The unit for systemd; with a user it is one of the system's, else one of the user's own."""
    first, *rest = service.words
    # The path of the program is the only word in which systemd does not look for variables.
    command = " ".join([_quoted(first), *(_quoted(word.replace("$", "$$")) for word in rest)])
    of_system = service.user is not None
    lines = [
        f"# {MARK} {service.root}",
        "[Unit]",
        f"Description=Workers of a spool of jobs ({service.name})",
        *([f"RequiresMountsFor={_quoted(service.root)}"] if of_system else []),
        "",
        "[Service]",
        "Type=exec",
        *([f"User={_percent(service.user or '')}"] if of_system else []),
        "# The environment of the service is the environment of the jobs.",
        f"Environment={_quoted(f'PATH={service.path}', always=True)}",
        f"ExecStart={command}",
        "# The workers read their settings anew; they do so by themselves within a second of a change.",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "# TERM reaches the workers' parent only, which lets them finish the jobs in hand.",
        "KillMode=mixed",
        f"TimeoutStopSec={service.stop_timeout}s",
        "# Back after a crash, not after `queuectl worker stop`; a wrong call is not mended by repeating it.",
        "Restart=on-failure",
        "RestartSec=5s",
        "RestartPreventExitStatus=2",
        "# A job that needs too much memory is ended by the kernel, and it alone.",
        "OOMPolicy=continue",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if of_system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def launchd_plist(service: Service) -> bytes:
    """The property list for launchd: an agent of the user's own, or with a user a daemon of the system's."""
    import plistlib

    log = os.path.join(service.root, "logs", "service.log")
    record: dict[str, Any] = {
        "Label": service.name,
        "ProgramArguments": service.words,
        "EnvironmentVariables": {"PATH": service.path},
        "RunAtLoad": True,
        # Back after a crash, not after `queuectl worker stop`.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": service.stop_timeout,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    if service.user is not None:
        record["UserName"] = service.user
    head, _, rest = plistlib.dumps(record, sort_keys=False).partition(b"<plist")
    comment = f"<!-- {MARK} {_in_comment(service.root)} -->\n"
    return (head + comment.encode() + b"<plist" + rest).replace(b"\t", b"  ")


def is_ours(text: str, root: str) -> bool:
    """Whether a unit was made here, for this spool."""
    return (
        f"# {MARK} {root}" in text.splitlines() or f"<!-- {MARK} {_in_comment(root)} -->" in text.splitlines()
    )


def _in_comment(text: str) -> str:
    """The text without two dashes in a row, which would end a comment of XML."""
    return re.sub("-(?=-)", "- ", text)


def search_path(path: str) -> str:
    """The absolute folders of a PATH, each once."""
    return os.pathsep.join(dict.fromkeys(part for part in path.split(os.pathsep) if os.path.isabs(part)))


def default_name(root: str, default_root: str) -> str:
    """The name of a spool's service: queuectl for the default one, queuectl-FOLDER for others."""
    if root == default_root:
        return "queuectl"
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(root)).strip("-.")
    return f"queuectl-{folder}" if folder else "queuectl-spool"


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str, *, always: bool = False) -> str:
    """One word of a unit, in quotes where it needs them."""
    if _PLAIN.fullmatch(text) and not always:
        return text
    inner = _percent(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
