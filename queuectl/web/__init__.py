"""Pages of a spool in a browser: a guard, sessions, routes, templates. Needs the extra web."""

from importlib.util import find_spec

NEEDS = "queuectl web needs more: pip install jinja2 starlette uvicorn"

if any(find_spec(name) is None for name in ("starlette", "uvicorn", "jinja2")):
    raise ImportError(NEEDS)
