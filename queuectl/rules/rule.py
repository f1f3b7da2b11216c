"""A rule as it was read: when it is due, and the jobs that it then queues. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from queuectl.errors import ConfigError
from queuectl.fast_start.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.rules.file_trigger import FileTrigger
    from queuectl.rules.job_trigger import JobTrigger
    from queuectl.rules.time_trigger import TimeTrigger

    Path = tuple[str | int, ...]
    Trigger: TypeAlias = TimeTrigger | FileTrigger | JobTrigger


class Wrong(Exception):
    """A value of a rule file that is wrong.

    Args:
        path: the keys and numbers that lead to it.
        reason: in plain words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason

    @property
    def sentence(self) -> str:
        """The reason after the name of the value: when.cron: bad hour in '0 25 * * *'."""
        name = ""
        for step in self.path:
            name += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if name else step
        return f"{name}: {self.reason}" if name else self.reason


class InvalidRule(ConfigError):
    """A file that cannot be used as a rule.

    Args:
        fault: the reason in plain words, after the name of the value that is wrong.
        path: of the file, as it is shown.
        at: line and column, both from 1, if they are known.
    """

    def __init__(self, fault: str, path: str, at: tuple[int, int] | None = None) -> None:
        where = f"{path}, line {at[0]}, column {at[1]}" if at else path
        super().__init__(f"{where}: {fault}", hint="queuectl guide rules")
        self.fault = fault
        self.at = at

    @property
    def fault_with_place(self) -> str:
        """The reason with line and column, as it stands in the .reason file."""
        return f"line {self.at[0]}, column {self.at[1]}: {self.fault}" if self.at else self.fault


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        kind: cron, every, at, file or job.
        trigger: when it is due.
        mark: differs when `when` does.
        jobs: the fields of each job; with `jobs:` each has an id of its own.
        is_list: the file has `jobs:`.
    """

    name: str
    kind: str
    trigger: Trigger
    mark: str
    jobs: tuple[Mapping[str, Any], ...]
    is_list: bool = False
