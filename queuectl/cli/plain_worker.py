"""`worker start --foreground` with plain options, and the hidden `worker run`, without importing click: see fast_path."""

from __future__ import annotations

from queuectl.config import settings
from queuectl.control.launch import Launch
from queuectl.layout import Layout, default_root
from queuectl.worker import supervisor
from queuectl.worker.pool import be_one
from queuectl.worker.program import WorkerOptions, checked_concurrency

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS = {
    "--foreground": "foreground",
    "-f": "foreground",
    "--drain": "drain",
    "--wait-retries": "wait_retries",
}
_WITH_TEXT = {"--concurrency": "concurrency", "-j": "concurrency", "--mode": "mode", "--launch": "launch"}
_OF_START = {"foreground", "drain", "wait_retries", "concurrency"}
_OF_RUN = {"drain", "wait_retries", "concurrency", "mode", "launch"}
_MODES = {"background", "foreground", "child"}


def run(words: Sequence[str]) -> int | None:
    """Be a worker, or watch over several, and return the exit code; None: there is a word that click must look at.

    Raises:
        QueuectlError: the spool cannot be used.
    """
    root = None
    if words[0] == "--spool":
        root, words = words[1], words[2:]
    given = _options(words[2:])
    if given is None or root == "":
        return None
    layout = Layout(default_root() if root is None else root)
    if words[:2] == ["worker", "run"] and {*given} <= _OF_RUN:
        return _run(layout, given)
    if words[:2] == ["worker", "start"] and {*given} <= _OF_START and "foreground" in given:
        # A folder that is missing may be a typing error, which click tells when it has made the spool.
        return _start(layout, given) if root is None or layout.exists() else None
    return None


def _options(words: Sequence[str]) -> dict[str, str] | None:
    """Return the names of these options with their texts; None: something else is among them."""
    given = {}
    left = iter(words)
    for word in left:
        if word in _FLAGS:
            given[_FLAGS[word]] = ""
            continue
        text = next(left, None)
        if word not in _WITH_TEXT or text is None:
            return None
        given[_WITH_TEXT[word]] = text
    return given


def _start(layout: Layout, given: dict[str, str]) -> int | None:
    wanted = _worker_options(given)
    if wanted is None or (wanted.wait_retries and not wanted.drain):
        return None
    return supervisor.foreground(layout, settings.load(layout)[0].worker_count or 1, wanted)


def _run(layout: Layout, given: dict[str, str]) -> int | None:
    wanted, mode = _worker_options(given), given.get("mode", "background")
    try:
        launch = Launch.of_text(given["launch"]) if "launch" in given else None
    except ValueError:
        return None
    return None if wanted is None or mode not in _MODES else be_one(layout, mode, wanted, launch)


def _worker_options(given: dict[str, str]) -> WorkerOptions | None:
    """Return the options of a worker; None: the number may be wrong."""
    text = given.get("concurrency")
    if text is not None and not (text.isascii() and text.isdecimal()):
        return None
    try:
        number = checked_concurrency(None if text is None else int(text))
    except ValueError:
        return None
    return WorkerOptions("drain" in given, "wait_retries" in given, number)
