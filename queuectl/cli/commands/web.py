"""`queuectl web`: pages of the spool in a browser, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from types import ModuleType

_DEFAULT_PORT = 8484


@command(
    "web",
    examples="""
    queuectl web
    queuectl web --open                       open the browser, too
    queuectl web --url                        another link to the one that runs
    queuectl web --read-only                  nothing can be changed there
    queuectl web --socket ~/.queuectl/data/web/socket
    """,
    no_json=("web has no JSON form", "queuectl status --json"),
)
@click.option(
    "--port",
    metavar="N",
    callback=options.between(0, 65535),
    help=f"The port on 127.0.0.1, or one of the next twenty if it is taken. 0: any. Default: {_DEFAULT_PORT}.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the browser, too.")
@click.option("--url", is_flag=True, help="Print another link, which works once, to the server that runs.")
@click.option("--read-only", is_flag=True, help="Only show: nothing can be changed.")
@click.option("--no-enqueue", is_flag=True, help="No new jobs, and no other command for an old one.")
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(),
    help="Listen on a unix socket of yours instead of a port: for a proxy, or for ssh -L.",
)
@click.option(
    "--host-name",
    "host_names",
    metavar="NAME",
    multiple=True,
    help="Another name under which it may be asked, as behind a proxy. May be repeated.",
)
@click.option(
    "--user-header",
    metavar="NAME",
    help="The header in which a proxy names the user whom it has logged in. Only with --socket.",
)
@click.option("--allow", metavar="USERS", help="With --user-header: who may use the pages, as in alice,bob.")
@click.option("--allow-read", metavar="USERS", help="With --user-header: who may only look.")
@click.option(
    "--allow-enqueue", is_flag=True, help="With --user-header: allow new jobs and commands all the same."
)
@click.option(
    "--base-path", metavar="PATH", help="The beginning of each path that a proxy leaves there, as in /queue."
)
@click.pass_obj
def web_command(
    session: Session,
    port: int | None,
    open_browser: bool,
    url: bool,
    read_only: bool,
    no_enqueue: bool,
    socket: str | None,
    host_names: tuple[str, ...],
    user_header: str | None,
    allow: str | None,
    allow_read: str | None,
    allow_enqueue: bool,
    base_path: str | None,
) -> None:
    """Serve pages that show the spool: what runs, what waits and why, what is dead and why, with buttons that do what
    the commands do.

    They are served to this machine only. The link that is printed works once, within ten minutes. Ctrl+C ends the
    server; jobs and workers do not need it. `queuectl guide web` tells how it is protected, and how to use it from
    elsewhere.
    """
    server = _server()
    root = session.spool.layout.root
    if url:
        render.line(server.link(root))
        return
    if user_header is not None and socket is None:
        raise Usage(
            "--user-header is only for --socket: who can reach a port could write the header",
            hint="queuectl web --help",
        )
    if user_header is not None and not (allow or allow_read):
        raise Usage("--user-header needs the users: --allow alice,bob", hint="queuectl web --help")
    if user_header is None and (allow or allow_read or allow_enqueue):
        raise Usage(
            "--allow, --allow-read and --allow-enqueue are for --user-header", hint="queuectl web --help"
        )
    from queuectl.web.options import Options

    chosen = Options(
        port=_DEFAULT_PORT if port is None else port,
        read_only=read_only,
        may_enqueue=not no_enqueue and (user_header is None or allow_enqueue),
        host_names=frozenset(host_names),
        socket=socket,
        user_header=user_header.lower() if user_header else None,
        allow=_users(allow),
        allow_read=_users(allow_read),
        base_path=_base(base_path),
    )
    server.serve(root, chosen, render.note, open_browser=open_browser)


def _server() -> ModuleType:
    """Return the module that serves.

    Raises:
        QueuectlError: the libraries are not there.
    """
    try:
        from queuectl.web import server
    except ImportError as error:
        from importlib.util import find_spec

        if all(find_spec(name) for name in ("starlette", "uvicorn", "jinja2")):
            raise
        raise QueuectlError(str(error)) from None
    return server


def _users(names: str | None) -> frozenset[str]:
    return frozenset((names or "").replace(",", " ").split())


def _base(path: str | None) -> str:
    """Return the base path without a slash at its end.

    Raises:
        Usage: it is no path.
    """
    found = (path or "").rstrip("/")
    if found and not (
        found.startswith("/")
        and all(part.isalnum() or part in "-_./" for part in found)
        and "//" not in found
    ):
        raise Usage(f"{render.clip(found, 60)} is no path like /queue", hint="queuectl web --help")
    return found
