"""Two trees of limited size: the jobs for which a job waits, and the jobs that wait for it.

The nearest jobs come first. Jobs that are left out are counted: if a job waits for ten thousand others, a person wants to
see those that are dead, and how many more there are.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from queuectl.api import listing
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index import descendants, waits
from queuectl.job.conditions import Verdict
from queuectl.job.fields import BATCH

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Any

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.index import Index
    from queuectl.index.row import Row

SIDE_BY_SIDE = 20
"""How many jobs are shown below one."""

DEEP = 12
"""How many levels are shown."""

MOST = 200
"""How many jobs are shown in one direction."""


@dataclass(slots=True)
class Node:
    """One job in a tree, or a batch.

    Attributes:
        id: of the job, or "batch:NAME".
        want: by which field it is named, or names the job above it: after, after_any, after_failure; "" for a job of a batch.
        state: its state; of a batch, how many of its jobs are in which; None: there is no such job.
        command: its beginning.
        blocked: it starts only once somebody has mended or brought a job.
        nodes: what is next in the same direction.
        more: how many of those are left out.
        again: it is shown elsewhere in the tree, with what is next.
    """

    id: str
    want: str = ""
    state: str | None = None
    command: str = ""
    blocked: bool = False
    nodes: list[Node] = field(default_factory=list)
    more: int = 0
    again: bool = False

    def to_dict(self, name: str) -> dict[str, Any]:
        """Return it for JSON.

        Args:
            name: of what is next: "waits_for" or "waited_for_by".
        """
        found: dict[str, Any] = {"id": self.id, "want": self.want or None, "state": self.state}
        found |= {"command": self.command, "blocked": self.blocked, "again": self.again}
        return {**found, name: [one.to_dict(name) for one in self.nodes], "more": self.more}


def of(spool: SpoolBase, job_id: str) -> tuple[Node, Node]:
    """Return a job as the root of two trees: of what it waits for, and of what waits for it.

    Completed jobs are among the first, and not among the second: they do not wait any more.

    Raises:
        JobNotFound: there is no job with that id.
    """
    row = listing.one(spool, job_id)
    with spool._lock:
        return spool._ask(lambda: _both(spool._index, row))


def _both(index: Index, row: Row) -> tuple[Node, Node]:
    blocked = waits.all_blocked(index)
    return _Above(index, blocked).grown(row), _Below(index, blocked).grown(row)


class _Tree:
    """A tree in one direction."""

    def __init__(self, index: Index, blocked: Container[str]) -> None:
        self._index, self._blocked = index, blocked

    def grown(self, root: Row) -> Node:
        """Return the root with all that is shown.

        The tree grows level by level: at the limit, jobs that are far from the root are left out.
        """
        top = self._node(root.id, "", root)
        seen, left = {root.id}, MOST
        line: deque[tuple[Node, Row | None, int]] = deque([(top, root, 0)])
        while line:
            node, row, depth = line.popleft()
            found, number = self._next_to(node, row)
            found = found[: 0 if depth >= DEEP else min(SIDE_BY_SIDE, left)]
            left -= len(found)
            node.more = number - len(found)
            rows = self._index.rows_of([name for _, name in found])
            for want, name in found:
                one = self._node(name, want, rows.get(name))
                node.nodes.append(one)
                if name in seen:
                    one.again = True
                else:
                    seen.add(name)
                    line.append((one, rows.get(name), depth + 1))
        return top

    def _node(self, name: str, want: str, row: Row | None) -> Node:
        if row is not None:
            return Node(name, want, row.state, row.command, name in self._blocked)
        if not name.startswith(BATCH):
            return Node(name, want)
        waiting, done, dead = self._index.batch_counts(name.removeprefix(BATCH))
        counted = ((waiting, "not over"), (done, "completed"), (dead, "dead"))
        told = ", ".join(f"{number} {word}" for number, word in counted if number)
        return Node(name, want, told or "no job")

    def _next_to(self, node: Node, row: Row | None) -> tuple[list[tuple[str, str]], int]:
        """Return the fields and names of what is next to a node, the first ones, and how many there are."""
        raise NotImplementedError


class _Above(_Tree):
    """What a job waits for."""

    def _next_to(self, node: Node, row: Row | None) -> tuple[list[tuple[str, str]], int]:
        if node.id.startswith(BATCH):
            batch = node.id.removeprefix(BATCH)
            found = waits.members(self._index, batch, SIDE_BY_SIDE)
            return [("", name) for name in found], sum(self._index.batch_counts(batch))
        if row is None:
            return [], 0
        every = waits.conditions(row)
        states = self._index.states([one.parent for one in every if one.batch is None])

        def is_met(place: int) -> bool:
            one = every[place]
            if one.batch is None:
                return one.judge(states.get(one.parent)) == Verdict.MET
            return one.judge_batch(*self._index.batch_counts(one.batch)) == Verdict.MET

        # Conditions that are not met come first: the job waits for them.
        order = sorted(range(len(every)), key=is_met)
        return [(every[place].kind, every[place].parent) for place in order], len(every)


class _Below(_Tree):
    """What waits for a job."""

    def __init__(self, index: Index, blocked: Container[str]) -> None:
        super().__init__(index, blocked)
        self._dead = descendants.conditions_of_dead(index)

    def _next_to(self, node: Node, row: Row | None) -> tuple[list[tuple[str, str]], int]:
        names = [node.id] if row is None or row.member is None else [node.id, BATCH + row.member]
        found: list[tuple[str, str]] = []
        number = 0
        for name in names:
            some, many = waits.children(self._index, name, SIDE_BY_SIDE)
            dead = self._dead.get(name, [])
            found += some + dead
            number += many + len(dead)
        return found, number


def lines(top: Node, indent: int = 0) -> Iterator[tuple[int, Node | int]]:
    """Yield what is to be shown below a node, with its level: nodes, and the number of those that are left out."""
    for node in top.nodes:
        yield indent, node
        yield from lines(node, indent + 1)
    if top.more:
        yield indent, top.more
