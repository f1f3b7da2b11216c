"""On PYTHONPATH it lets root hand jobs to Slurm: in tests the cluster is this machine. Its runners beat often.

A dispatcher is started by queuectl itself in these tests, so nothing can be passed to it.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    "queuectl.worker.dispatcher": ("Dispatcher", {"may_be_root": True, "beat": 0.5}),
    "queuectl.engine.check": ("check", {"may_be_root": True}),
}


class _Finder:
    """Changes these modules when they are imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002  # the protocol of Python
        if name not in GIVEN:
            return None
        what, arguments = GIVEN.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def and_change(module: ModuleType) -> None:
            execute(module)
            setattr(module, what, partial(getattr(module, what), **arguments))

        spec.loader.exec_module = and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
