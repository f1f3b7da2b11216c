"""The part of Spool that is about its rules."""

from __future__ import annotations

import os

from queuectl.api import access
from queuectl.api.spool_base import SpoolBase, locked
from queuectl.layout import is_rule_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.api.rules import Rule
    from queuectl.layout import Layout


def are_there(layout: Layout) -> bool:
    """Return whether the spool has rules; else nothing needs to be loaded."""
    try:
        return any(map(is_rule_file, os.listdir(layout.rules)))
    except OSError:
        return False  # a spool of an earlier version has no such folder


class RulePart(SpoolBase):
    """Reads rules, and does with them what people want."""

    @locked
    def rules(self) -> list[Rule]:
        """Return the rules of the spool by name, also those whose file cannot be used; `problem` says why."""
        from queuectl.api import rules

        if not are_there(self.layout):
            return []
        self._look()
        found = rules.all_of(self.layout, self)
        for one in found:
            rules.last_ones(self, one)
        return found

    @locked
    def rule(self, name: str) -> Rule:
        """Return one rule.

        Raises:
            ConfigError: there is none of this name.
        """
        from queuectl.api import rules
        from queuectl.errors import ConfigError

        for one in rules.all_of(self.layout, self):
            if one.name == name:
                self._look()
                rules.last_ones(self, one)
                return one
        raise ConfigError(f"no rule is called {name!r}", hint="queuectl rule list")

    @locked
    def add_rule(self, name: str, when: Mapping[str, Any], job: Mapping[str, Any]) -> Rule:
        """Write the file of a new rule, `rules/NAME.yaml`.

        Args:
            when: as in the file: {"cron": "0 2 * * *"}.
            job: the fields of its job: {"command": "…"}.

        Raises:
            ConfigError: what it says is not valid, or there is a rule of this name.
            ValueError: no rule can have this name.
            SpoolError: the disk refused, or the spool belongs to another user.
        """
        from queuectl.api import rules
        from queuectl.job.fields import check_field

        checked = check_field("rule", name)
        access.make(self.layout, "rule add …")
        rules.add(self.layout, checked, when, job)
        return self.rule(checked)

    @locked
    def run_rule(self, name: str) -> list[str]:
        """Queue the jobs of a rule now, with ids like NAME.run-2k9x…; no moment of it is used up.

        Returns:
            the ids.

        Raises:
            KeyTaken: an earlier job of the rule is not over, and the rule does not want two at once.
            ConfigError: there is no such rule, or its file cannot be used.
            SpoolError: the disk refused, or the spool belongs to another user.
        """
        from queuectl.errors import ConfigError
        from queuectl.rules import queueing

        one = self.rule(name)
        access.make(self.layout, "rule run …")
        access.refuse_unwritable(self._storage)
        if one._rule is None:
            raise ConfigError(
                f"rule {name} cannot be used: {one.problem}", hint=f"queuectl rule check {one.file}"
            )
        self._mirror()
        if one.kind == "file":
            raise ConfigError(
                f"rule {name} takes files: its jobs are queued when one appears",
                hint=f"queuectl rule show {name}",
            )
        return queueing.queue_now(self._storage, self._job_defaults(), one._rule)

    @locked
    def pause_rule(self, name: str, reason: str = "") -> None:
        """Pause a rule: what is due meanwhile is not queued, and not caught up later. The file `rules/NAME.paused` says so.

        Raises:
            ConfigError: there is no such rule.
            SpoolError: the file cannot be written.
        """
        from queuectl.api import rules
        from queuectl.control import commands, pause

        self.rule(name)
        access.make(self.layout, "rule pause …")
        pause.begin(self.layout, reason, rule=name)
        rules.let_rest(self.layout, name)
        commands.wake(self.layout)

    @locked
    def resume_rule(self, name: str) -> bool:
        """End the pause of a rule; return False if it was not paused.

        Raises:
            ConfigError: there is no such rule.
            SpoolError: the file cannot be removed.
        """
        from queuectl.control import commands, pause

        self.rule(name)
        access.refuse_others(self.layout, "rule resume …")
        was_paused = pause.end(self.layout, rule=name)
        commands.wake(self.layout)
        return was_paused

    @locked
    def remove_rule(self, name: str) -> None:
        """Delete the file of a rule. Jobs that it has queued stay.

        Raises:
            ConfigError: there is no such rule.
            SpoolError: the disk refused.
        """
        from queuectl.api import rules

        one = self.rule(name)
        access.refuse_others(self.layout, "rule remove …")
        rules.remove(self.layout, one)
