"""`queuectl show JOB --tree`: the jobs for which a job waits, and those that wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.api import dependency_tree
from queuectl.cli import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.dependency_tree import Node
    from queuectl.cli.base import Session

_WIDTH = 100
"""Characters of a command."""


def show_tree(session: Session, job_id: str) -> None:
    """Print both trees of a job.

    Raises:
        JobNotFound: there is no job with that id.
    """
    above, below = dependency_tree.of(session.spool, job_id)
    if session.json:
        found = above.to_dict("waits_for") | {
            "waited_for_by": below.to_dict("waited_for_by")["waited_for_by"]
        }
        found["more"] = {"waits_for": above.more, "waited_for_by": below.more}
        render.json_value({name: value for name, value in found.items() if name not in ("want", "again")})
        return
    render.line(_described(above))
    render.lines(_tree("waits for", "waits for no job", above))
    render.lines(_tree("waited for by", "no job waits for it", below))


def _tree(title: str, nothing: str, top: Node) -> Iterator[str]:
    if not top.nodes:
        yield nothing
        return
    yield f"{title}:"
    for level, one in dependency_tree.lines(top, 1):
        if isinstance(one, int):
            yield "  " * level + f"and {render.count(one, 'job')} more"
        else:
            yield "  " * level + _described(one)


def _described(node: Node) -> str:
    state = node.state or "there is no such job"
    parts = [f"{node.want} {node.id}".strip(), f"{state}, blocked" if node.blocked else state]
    if node.again:
        return f"{' - '.join(parts)} (shown elsewhere)"
    if node.command:
        parts.append(render.clip(node.command, _WIDTH))
    return " - ".join(parts)
