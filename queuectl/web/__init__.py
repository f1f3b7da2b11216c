"""Pages of a spool in a browser: a guard, sessions, routes, templates. Needs the extra web."""

import sys
from importlib.util import find_spec

NEEDS = "queuectl web needs more: pip install jinja2 starlette uvicorn"
NOT_BUILT_IN = "this executable was built without starlette, uvicorn and jinja2, which queuectl web needs"

if any(find_spec(name) is None for name in ("starlette", "uvicorn", "jinja2")):
    raise ImportError(NOT_BUILT_IN if getattr(sys, "frozen", False) else NEEDS)
