"""The text of the units that make systemd or launchd run workers. Nothing is executed here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from queuectl.errors import QueuectlError
from queuectl.worker.program import queue_words

_PLAIN = re.compile(r"[A-Za-z0-9/_.,:=+-][A-Za-z0-9/_.,:=+@-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
DISPATCHER_LEAVES = 60
"""Seconds that a dispatcher has to leave. It needs one, and some more while the shared folder does not answer."""

MARK = "Made by `queuectl service` for the spool"


@dataclass(frozen=True, slots=True)
class Service:
    """Workers that the system keeps running.

    Attributes:
        name: of the service.
        program: the words that call queuectl; the first is an absolute path.
        root: the spool.
        count: how many workers; None leaves it to the setting worker_count.
        user: who runs a service of the system; None for a service of the user's own.
        path: the PATH of the workers and of their jobs.
        stop_timeout: seconds that running jobs get to end when the service is stopped.
        queues: the queues that the workers serve; none: all.
        not_queues: queues that they do not serve.
        engine: the one process is the dispatcher of this engine; None: workers.
        variables: more of the environment, by name.
    """

    name: str
    program: tuple[str, ...]
    root: str
    count: int | None
    user: str | None
    path: str
    stop_timeout: int
    queues: tuple[str, ...] = ()
    not_queues: tuple[str, ...] = ()
    engine: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what a unit cannot express.

        Raises:
            QueuectlError: a control character, bytes that are not UTF-8, or a name that no service can have.
        """
        if not _NAME.fullmatch(self.name):
            raise QueuectlError(
                f"{self.name!r} cannot be the name of a service: letters, digits and . _ -",
                hint="--name NAME",
            )
        for text in (*self.program, self.root, self.path, *(value for _, value in self.variables)):
            if not text.isprintable():
                raise QueuectlError(
                    f"{text!r} cannot be written into a unit: it has characters that are not printable"
                )

    @property
    def words(self) -> list[str]:
        """The command that runs the workers."""
        count = ["--count", str(self.count)] if self.count else []
        bound = queue_words(self.queues, self.not_queues)
        bound += [] if self.engine is None else ["--engine", self.engine]
        return [*self.program, "--spool", self.root, "worker", "start", "--foreground", *count, *bound]


def systemd_unit(service: Service) -> str:
    """The unit file for systemd: of the system if the service names a user, else of the user's own."""
    first, *rest = service.words
    # systemd expands variables in every word except the path of the program.
    command = " ".join([_quoted(first), *(_quoted(word.replace("$", "$$")) for word in rest)])
    of_system = service.user is not None
    who = "Workers" if service.engine is None else f"Dispatcher for {service.engine}"
    lines = [
        f"# {MARK} {service.root}",
        "[Unit]",
        f"Description={who} of a spool of jobs ({service.name})",
        *([f"RequiresMountsFor={_quoted(service.root)}"] if of_system else []),
        *(["After=remote-fs.target munge.service"] if of_system and service.engine else []),
        "",
        "[Service]",
        "Type=exec",
        *([f"User={_percent(service.user or '')}"] if of_system else []),
        "# The environment of the service is the environment of the jobs.",
        f"Environment={_quoted(f'PATH={service.path}', always=True)}",
        *(f"Environment={_quoted(f'{name}={value}', always=True)}" for name, value in service.variables),
        f"ExecStart={command}",
        "# The workers read their settings again; they also do so within a second of each change.",
        "ExecReload=/bin/kill -HUP $MAINPID",
        *_end(service),
        "# Restart after a crash, but not after `queuectl worker stop` and not after a usage error.",
        "Restart=on-failure",
        "RestartSec=5s",
        "RestartPreventExitStatus=2",
        "# The kernel kills only the job that needs too much memory.",
        "OOMPolicy=continue",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if of_system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def _end(service: Service) -> list[str]:
    """How the service is ended."""
    if service.engine is None:
        text = "# TERM reaches only the workers' parent, which lets them finish their running jobs."
        return [text, "KillMode=mixed", f"TimeoutStopSec={service.stop_timeout}s"]
    # An sbatch that is ended may have handed its jobs over, and nobody has heard its answer.
    text = "# The dispatcher leaves at once, and what it has handed over goes on. The next one collects it."
    return [text, "KillMode=process", f"TimeoutStopSec={DISPATCHER_LEAVES}s"]


def launchd_plist(service: Service) -> bytes:
    """The property list for launchd: a daemon of the system if the service names a user, else an agent of the user's own."""
    import plistlib

    log = os.path.join(service.root, "logs", "service.log")
    record: dict[str, Any] = {
        "Label": service.name,
        "ProgramArguments": service.words,
        "EnvironmentVariables": {"PATH": service.path, **dict(service.variables)},
        "RunAtLoad": True,
        # Restart after a crash, but not after `queuectl worker stop`.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": service.stop_timeout if service.engine is None else DISPATCHER_LEAVES,
        **({} if service.engine is None else {"AbandonProcessGroup": True}),
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    if service.user is not None:
        record["UserName"] = service.user
    head, _, rest = plistlib.dumps(record, sort_keys=False).partition(b"<plist")
    comment = f"<!-- {MARK} {_in_comment(service.root)} -->\n"
    return (head + comment.encode() + b"<plist" + rest).replace(b"\t", b"  ")


def is_ours(text: str, root: str) -> bool:
    """Whether a unit was made by queuectl for this spool."""
    return (
        f"# {MARK} {root}" in text.splitlines() or f"<!-- {MARK} {_in_comment(root)} -->" in text.splitlines()
    )


def _in_comment(text: str) -> str:
    """Separate dashes: two in a row would end an XML comment."""
    return re.sub("-(?=-)", "- ", text)


def search_path(path: str) -> str:
    """Return the absolute folders of a PATH, each once."""
    return os.pathsep.join(dict.fromkeys(part for part in path.split(os.pathsep) if os.path.isabs(part)))


def default_name(root: str, default_root: str, engine: str | None = None) -> str:
    """The name of a spool's service: queuectl for the default one, queuectl-FOLDER for others; with that of an engine."""
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(root)).strip("-.")
    name = "queuectl" if root == default_root else f"queuectl-{folder or 'spool'}"
    return name if engine is None else f"{name}-{engine}"


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str, *, always: bool = False) -> str:
    """Quote one word of a unit if needed."""
    if _PLAIN.fullmatch(text) and not always:
        return text
    inner = _percent(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
