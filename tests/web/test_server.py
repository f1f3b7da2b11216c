"""`queuectl web` as a process: one for a spool, on this machine only, with its secrets kept, ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import psutil
import pytest
from documents import TOP

from queuectl import QueuectlError, Spool
from queuectl.control.permissions import PermissionCheck
from queuectl.layout import Layout
from queuectl.web import listening, rendering, server, static_files
from queuectl.web.site import Site

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def served(*args: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server, and the lines that it has printed until it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "queuectl", "web", *args],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        yield process, lines
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stderr.close()  # type: ignore[union-attr]  # it is a pipe


def ask(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    with contextlib.closing(urlopen(Request(url, headers=headers), timeout=30)) as answer:  # noqa: S310 (http)
        return answer.status, answer.read().decode(), dict(answer.headers)


def link_in(lines: list[str]) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+/login\?token=\S+", "".join(lines))
    assert found, lines
    return found[0]


def test_a_server_from_its_start_to_its_end(spool_dir: Path, cli: Cli) -> None:
    """It prints a link, listens on one address, is found by --url, is alone, and ends within seconds."""
    Spool(spool_dir).enqueue("echo hello", id="a")
    with served("--port", "0") as (process, lines):
        link = link_in(lines)
        base = link.partition("/login")[0]
        status, _, headers = ask(link)
        assert status == 200
        cookie = headers["set-cookie"].partition(";")[0]
        port = int(base.rpartition(":")[2])
        assert cookie.startswith(f"queuectl-{port}=")
        assert "echo hello" in ask(f"{base}/jobs", cookie=cookie)[1]
        assert "server" not in {name.lower() for name in headers}

        listens = [
            one.laddr
            for one in psutil.Process(process.pid).net_connections()
            if one.status == psutil.CONN_LISTEN
        ]
        assert listens == [("127.0.0.1", port)]
        token = link.partition("token=")[2]
        told = [*psutil.Process(process.pid).cmdline(), *psutil.Process(process.pid).environ().values()]
        assert not [text for text in told if token in text]

        refused = cli("web", "--port", "0", expect=1)
        assert f"served already, on port {port}" in refused.stderr
        another = cli("web", "--url", expect=0).stdout.strip()
        assert another.startswith(f"{base}/login?token=")
        assert another != link
        assert ask(another)[0] == 200

        # Whoever can write into the spool could run commands: nothing is shown until that is mended.
        spool_dir.chmod(0o777)
        wait_until(lambda: _status(f"{base}/jobs", cookie) == 503)
        spool_dir.chmod(0o700)
        wait_until(lambda: _status(f"{base}/jobs", cookie) == 200)

        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - began < 20
    assert "no server of this spool runs" in cli("web", "--url", expect=1).stderr


def _status(url: str, cookie: str) -> int:
    from urllib.error import HTTPError

    try:
        return ask(url, cookie=cookie)[0]
    except HTTPError as error:
        error.close()
        return error.code


def test_a_socket_is_its_owners_alone(spool_dir: Path, tmp_path: Path) -> None:
    """Not even for an instant has it another mode; a dead one is replaced, a file is not."""
    path = tmp_path / "own" / "socket"
    made = listening.on_path(str(path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(QueuectlError, match="listens at"):
        listening.on_path(str(path))
    made.close()
    listening.on_path(str(path)).close()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(QueuectlError, match="is no socket"):
        listening.on_path(str(tmp_path / "file"))
    path.parent.chmod(0o777)
    with pytest.raises(QueuectlError, match="could replace the socket"):
        listening.on_path(str(path))


def test_a_server_answers_on_its_socket(spool_dir: Path, tmp_path: Path) -> None:
    """And removes it at its end."""
    Spool(spool_dir).enqueue("true")
    path = tmp_path / "s"
    with served("--socket", str(path)) as (_, lines):
        assert "http://localhost/login?token=" in lines[1]

        def asked() -> bytes:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made, contextlib.suppress(OSError):
                made.settimeout(30)
                made.connect(str(path))
                made.sendall(b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return made.recv(100)
            return b""

        assert wait_until(asked).startswith(b"HTTP/1.1 204")
    assert not path.exists()


def test_a_client_that_does_not_send_its_request_is_let_go(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it sends nothing, half a head, or a head that is larger than any browser's; another one is answered."""
    Spool(spool_dir).enqueue("true")
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    site = Site(str(spool_dir))
    site.make_folder()
    made = listening.on_port(0)
    started = server._made(site)

    def sent(data: bytes) -> bytes:
        with socket.create_connection(made.getsockname(), timeout=30) as client:
            client.sendall(data)
            answer = b""
            while more := client.recv(1000):
                answer += more
            return answer

    async def tried() -> list[bytes]:
        serving = asyncio.create_task(server._run(site, started, made, PermissionCheck(Layout(spool_dir))))
        whole = b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        found = [
            await asyncio.to_thread(sent, data)
            for data in (
                whole,
                b"",
                b"GET / HTTP/1.1\r\nHost: loc",
                b"GET / HTTP/1.1\r\nX: " + b"y" * 60_000,
                whole,
            )
        ]
        started.should_exit = True
        await serving
        return found

    first, nothing, half, large, last = asyncio.run(tried())
    made.close()

    assert first.startswith(b"HTTP/1.1 204")
    assert (nothing, half) == (b"", b"")
    assert large.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert last.startswith(b"HTTP/1.1 204")
    assert b"server:" not in first.lower()


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next free one is used; if none is, the sentence says so."""
    first = listening.on_port(0)
    port = first.getsockname()[1]
    if port < 65000:
        second = listening.on_port(port)
        assert port < second.getsockname()[1] <= port + listening.TRIES
        second.close()
    monkeypatch.setattr(listening, "TRIES", 0)
    with pytest.raises(QueuectlError, match=f"cannot listen on port {port}: address already in use"):
        listening.on_port(port)
    first.close()


@pytest.mark.parametrize(
    ("words", "line"),
    [(["--port", "70000"], "must be 0 to 65535"), (["--user-header", "x-user", "--allow", "ann"], "only for --socket"),
     (["--socket", "s", "--user-header", "x-user"], "needs the users"), (["--allow", "ann"], "are for --user-header"),
     (["--base-path", "queue"], "is no path"), (["--base-path", "//evil"], "is no path"), (["--json"], "no JSON form")],
)  # fmt: skip
def test_wrong_options_are_refused(cli: Cli, spool_dir: Path, words: list[str], line: str) -> None:
    """In one line, and nothing is made."""
    done = cli("web", *words, expect=2)

    assert line in done.stderr
    assert not spool_dir.exists()


@pytest.mark.parametrize(
    ("is_frozen", "line"),
    [(False, "queuectl web needs more: pip install jinja2 starlette uvicorn"),
     (True, "this executable was built without starlette, uvicorn and jinja2, which queuectl web needs")],
)  # fmt: skip
def test_without_its_libraries_it_says_what_to_install(spool_dir: Path, is_frozen: bool, line: str) -> None:
    """And no other command needs them. Nothing can be installed into an executable of one file."""
    code = (
        f"import sys; sys.frozen = {is_frozen}\n"
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'jinja2' else find(name, *more)\n"
        "from queuectl.cli import main\n"
        "sys.argv = ['queuectl', 'web']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {line}"


def test_a_browser_is_led_by_a_file_and_no_token_is_on_a_command_line(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of the machine can read command lines."""
    Spool(spool_dir).enqueue("true")
    site = Site(str(spool_dir))
    site.make_folder()
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    server._open(site, 8484)

    wait_until(lambda: opened)
    path = Path(opened[0].removeprefix("file://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = re.findall(r"token=([\w-]+)", path.read_text(encoding="utf-8"))[0]
    assert link not in opened[0]
    assert site.links.spend(link)


def test_vendored_files_are_what_they_were() -> None:
    """Nobody has changed a library that every page runs; and all files of the table are there."""
    folder = Path(static_files.FOLDER)
    told = (folder / "VENDORED").read_text(encoding="utf-8")

    assert hashlib.sha256((folder / "idiomorph.min.js").read_bytes()).hexdigest() in told
    assert "Zero-Clause BSD" in (folder / "LICENSE.idiomorph").read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {*static_files.TYPES, "VENDORED"}
    assert len({one.name for one in static_files.all_files().values()}) == len(static_files.TYPES)


def test_a_first_visit_is_small() -> None:
    """Whoever looks over ssh waits for it."""
    assert sum(len(one.data) for one in static_files.all_files().values()) < 50_000


def test_what_the_pages_need_is_in_the_package() -> None:
    """Templates and static files lie beside the code that was installed; the extra names the libraries."""
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    names = [re.split("[>=]", one)[0] for one in project["project"]["optional-dependencies"]["web"]]

    assert names == ["h11", "jinja2", "starlette", "uvicorn"]
    assert {"base.html", "overview.html", "job.html"} <= {
        path.name for path in Path(rendering.FOLDER).iterdir()
    }
    assert set(static_files.TYPES) <= {path.name for path in Path(static_files.FOLDER).iterdir()}


def test_the_server_tells_nobody_more_than_it_must(spool_dir: Path) -> None:
    """A log of requests would hold the tokens of links, and the headers of a proxy can be written by anybody."""
    Spool(spool_dir).refresh()
    config = server._made(Site(str(spool_dir))).config

    assert (config.access_log, config.proxy_headers, config.server_header) == (False, False, False)
    assert config.limit_concurrency == server.CONNECTIONS


def test_each_server_has_a_cookie_of_its_own(tmp_path: Path) -> None:
    """A browser sends its cookies to all ports of a machine, and to all sockets behind one name."""
    one, other = (Site(str(tmp_path / name)) for name in ("a", "b"))
    names = [
        server.cookie_name(one, 8484),
        server.cookie_name(one, 8485),
        server.cookie_name(one, None),
        server.cookie_name(other, None),
    ]

    assert len(set(names)) == 4


def test_the_record_of_a_server_may_be_anything(spool_dir: Path) -> None:
    """Somebody may have written into it."""
    folder = spool_dir / "data" / "web"
    folder.mkdir(parents=True)
    for text in ("", "[]", "{", json.dumps({"port": 1})):
        (folder / "server.json").write_text(text, encoding="utf-8")
        assert isinstance(server._record(str(folder)), dict)
