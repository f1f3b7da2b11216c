"""Whether a cluster can run jobs of a spool, found out by doing it: for `queuectl engine check`.

Everything that needs a node is proved by a probe: a pack as any other, with one command, that runs through Slurm. Each
fault is told with one line of fact and one command that helps.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.control import registry
from queuectl.engine import place, slurm
from queuectl.engine.probe import Probe, Target
from queuectl.errors import ConfigError, QueuectlError
from queuectl.job.redact import one_line
from queuectl.layout import ENGINES, LOCAL
from queuectl.system import host

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from queuectl.config.queues import Queues
    from queuectl.config.settings import Settings
    from queuectl.engine.slurm import Run
    from queuectl.layout import Layout

PROGRAMS = ("sbatch", "squeue", "scancel", "sinfo")

PATIENCE = 10.0
"""Seconds in which a file server that is well has answered."""

_GUIDE = "queuectl guide slurm"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check.

    Attributes:
        text: what is so.
        hint: a command that helps; None: nothing is wrong.
    """

    text: str
    hint: str | None = None


def check(
    layout: Layout,
    settings: Settings,
    queues: Queues,
    *,
    wait: float = 60.0,
    may_be_root: bool = False,
    command: Callable[[Sequence[str]], Run] = slurm.run,
) -> Iterator[Finding]:
    """Examine everything that jobs on Slurm need; yield what is found, as soon as it is known.

    Args:
        wait: seconds in which probes must have run.
        may_be_root: do not mind that this is root. A dispatcher does: whoever is root on a node could run anything here.
        command: runs a command of Slurm; tests have another one.
    """
    if not may_be_root and hasattr(os, "geteuid") and os.geteuid() == 0:
        fact = "root cannot hand jobs to Slurm: whoever is root on a node could run commands as root here"
        yield Finding(fact, "use a spool of an ordinary user")
    answers = yield from _programs(command)
    folder = yield from _share(settings, layout)
    if not answers or folder is None:
        return
    probes = [Probe(folder, target, settings, command) for target in targets(queues, settings)]
    try:
        yield from _run(probes, folder, wait)
    finally:
        for probe in probes:
            probe.clear()


def refuse_unusable(folder: str, layout: Layout) -> None:
    """Refuse a folder for packs that could not be used now. It is looked at, and nothing is written.

    Raises:
        ConfigError: it cannot be used; the hint is a command that helps.
    """
    try:
        within(PATIENCE, lambda: place.check(folder, layout))
    except TimeoutError:
        raise ConfigError(_silent(folder), hint=f"ls {shlex.quote(folder)}") from None
    except QueuectlError as error:
        raise ConfigError(error.message, hint=_cure(folder, layout, error)) from None


def _silent(folder: str) -> str:
    return f"{folder} has not answered within {PATIENCE:.0f}s"


def _cure(folder: str, layout: Layout, error: QueuectlError) -> str:
    if error.hint or os.path.lexists(folder):
        return error.hint or _GUIDE
    # A folder made where the share is not mounted would hide that it is not.
    is_used = any(registry.claimed_for(layout, name) for name in ENGINES)
    return f"findmnt --target {shlex.quote(folder)}" if is_used else f"mkdir -m 700 {shlex.quote(folder)}"


def targets(queues: Queues, settings: Settings) -> list[Target]:
    """Return where jobs of this spool would run: each pair of a partition and options that a queue has, once."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in queues.names():
        one = queues.get(name)
        if (one.engine or settings.engine) != LOCAL:
            found.setdefault((one.partition or "", tuple(one.options or ())), []).append(name)
    if settings.engine != LOCAL or not found:
        found.setdefault(("", ()), [])
    return [Target(partition, options, tuple(names)) for (partition, options), names in found.items()]


# -- the commands ------------------------------------------------------------------------------------------------------


def _programs(command: Callable[[Sequence[str]], Run]) -> Generator[Finding, None, bool]:
    """Look for Slurm's commands, and for its controller.

    Returns:
        whether it answers.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        yield Finding(f"{', '.join(missing)} {are} not in PATH: {os.environ.get('PATH', '')}", _GUIDE)
        return False
    began = time.monotonic()
    code, out, err = command(["sinfo", "--noheader", "--format=%P|%D|%C"])
    took = time.monotonic() - began
    if code != 0:
        yield _no_answer(err.splitlines() or [f"sinfo has ended with {code}"])
        return False
    version = one_line(command(["sinfo", "--version"])[1].strip()).rpartition(" ")[2]
    yield Finding(f"slurm {version} answers in {took:.2f}s; {', '.join(PROGRAMS)} found")
    for line in out.splitlines():
        name, nodes, cpus = (*one_line(line).split("|"), "", "")[:3]
        shown = f"{name[:-1]} (default)" if name.endswith("*") else name
        yield Finding(f"partition {shown}: {nodes} nodes, {cpus.rpartition('/')[2]} CPUs")
    return True


def _no_answer(said: Sequence[str]) -> Finding:
    for word, hint in _CAUSES:
        lines = [line for line in said if word in line.lower()]
        if lines:
            return Finding(f"slurm does not answer: {one_line(lines[-1])}", hint)
    return Finding(f"slurm does not answer: {one_line(said[-1])}", "scontrol ping")


_NO_CONFIG = "export SLURM_CONF=/etc/slurm/slurm.conf"
_CAUSES = (
    ("munge", "systemctl status munge"),
    ("configuration source", _NO_CONFIG),
    ("stat file", _NO_CONFIG),
    ("status file", _NO_CONFIG),
)
"""Words in what Slurm's commands say when they do not reach the controller for a reason on this machine, and what helps."""


# -- the folder --------------------------------------------------------------------------------------------------------


def _share(settings: Settings, layout: Layout) -> Generator[Finding, None, str | None]:
    """Prepare the spool's folder for its packs, as its dispatcher does.

    Returns:
        the folder that the setting names; None: it cannot be used.
    """
    folder = settings.slurm_dir
    if folder is None:
        yield Finding("the setting slurm_dir is unset", "queuectl config set slurm_dir /shared/queuectl")
        return None
    try:
        within(PATIENCE, lambda: _prepare(folder, layout))
    except TimeoutError:
        yield Finding(_silent(folder), f"ls {shlex.quote(folder)}")
        return None
    except QueuectlError as error:
        yield Finding(error.message, _cure(folder, layout, error))
        return None
    mount = host.mount_of(folder)
    if mount is not None:
        kind = f"on {mount.point}, {mount.type}"
        unseen = (
            "; whether its server keeps what it has confirmed (export option sync) cannot be seen from here"
        )
        yield Finding(f"{folder}: hard links hold; {kind}{unseen if mount.type.startswith('nfs') else ''}")
    return folder


def _prepare(folder: str, layout: Layout) -> None:
    used_by = next((name for name in ENGINES if registry.claimed_for(layout, name)), None)
    place.prepare(folder, layout, socket.gethostname(), used_by=used_by)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do something that may hang for ever.

    Raises:
        TimeoutError: it hangs.
        Exception: what the work raises.
    """
    ended: list[Exception | None] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError
    if ended[0] is not None:
        raise ended[0]


# -- the probes --------------------------------------------------------------------------------------------------------


def _run(probes: Sequence[Probe], folder: str, wait: float) -> Iterator[Finding]:
    open_ones = [probe for probe in probes if not probe.send()]
    end = time.monotonic() + wait
    while open_ones and time.monotonic() < end:
        for probe in open_ones:
            probe.look()
        open_ones = [probe for probe in open_ones if not probe.is_over]
        time.sleep(0.02)
    for probe in open_ones:
        probe.ask()
    for probe in probes:
        yield from (Finding(*one) for one in probe.report(folder, wait))
