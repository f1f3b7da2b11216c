"""Whether there is as much of the resources as a job needs: the setting `resources` says how much there is."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING

from queuectl.config.keys import as_text
from queuectl.errors import Shortage

if TYPE_CHECKING:
    from collections.abc import Mapping


def shortage(needs: Mapping[str, int], resources: Mapping[str, int]) -> str | None:
    """Return why a job that needs this can never start; None if there is enough of everything."""
    for name, amount in needs.items():
        if name not in resources:
            near = get_close_matches(name, resources, n=1)
            return f"no resource is called {name}" + (f"; is {near[0]} meant?" if near else "")
        if amount > resources[name]:
            verb = "are" if resources[name] != 1 else "is"
            return f"it needs {amount} {name}, and there {verb} {resources[name]}"
    return None


def refuse_shortage(needs: Mapping[str, int], resources: Mapping[str, int]) -> None:
    """Refuse a job that could never start.

    Raises:
        Shortage: there is not so much; the hint is the setting with which there would be.
    """
    fact = shortage(needs, resources)
    if fact:
        raised = {name: max(amount, resources.get(name, 0)) for name, amount in needs.items()}
        wanted = shlex.quote(as_text({**resources, **raised}))
        raise Shortage(fact, hint=f"queuectl config set resources {wanted}")
