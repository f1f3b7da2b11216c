"""Values of variables whose name looks secret: the job gets them, its file keeps them, and nothing ever shows them."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.job import redact

from support import drop, finished, load, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "hunter2-hunter2"
NAMES = (
    "DB_PASSWORD", "passwd", "PGPASS", "Passphrase", "CLIENT_SECRET", "apiToken", "API_KEY", "sshKey", "AWS_CREDENTIALS",
    "HTTP_AUTH", "AUTHORIZATION", "OAUTH2", "PRIVATE", "SESSION_ID", "COOKIE", "MY_PWD",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_secret_is_masked(name: str) -> None:
    """In whatever case and wherever in the name."""
    assert redact.masked_env({name: SECRET}) == {name: "***"}


@pytest.mark.parametrize("name", ["PATH", "AUTHOR", "GIT_AUTHORS", "LANG", "HOME", "COUNT", "TMPDIR"])
def test_a_harmless_name_is_shown(name: str) -> None:
    """A page of stars would help nobody."""
    assert redact.masked_env({name: "plain"}) == {name: "plain"}


def test_a_password_in_an_address_is_masked() -> None:
    """It hides behind a name that says nothing."""
    env = {"DATABASE_URL": f"postgres://alice:{SECRET}@db/x", "SITE": "https://example.org:80/a@b"}
    assert redact.masked_env(env) == {"DATABASE_URL": "postgres://alice:***@db/x", "SITE": env["SITE"]}


def test_fields_of_other_tools_are_masked_too() -> None:
    """Nested ones too, and numbers; what is empty is shown, as that helps to find the mistake."""
    record = {
        "tool": {"token": SECRET, "n": 1, "deep": [{"pin_key": 1234}]},
        "api_key": "",
        "flag_token": None,
    }
    told = {"tool": {"token": "***", "n": 1, "deep": [{"pin_key": "***"}]}, "api_key": "", "flag_token": None}
    assert redact.masked(record) == told


def test_no_command_shows_a_secret(
    cli: Callable[..., Any], workers: Callable[..., Any], spool_dir: Path
) -> None:
    """Through a whole life: waiting, running, done, failed and dead; in tables, lines, JSON and the workers' logs."""
    env = {"API_TOKEN": SECRET, "DATABASE_URL": f"mysql://me:{SECRET}@db", "PLAIN": "seen"}
    flags = [f"--env={name}={value}" for name, value in env.items()]
    check = f'test "$API_TOKEN" = "{SECRET[:7]}"-hunter2 && test "$PLAIN" = seen'
    said = [
        cli("enqueue", "--json", "--id", "good", *flags, "--command", check, expect=0),
        cli("enqueue", "--id", "bad", *flags, "--max-retries", 2, "--command", "false", expect=0),
        cli("enqueue", "--id", "later", *flags, "--delay", "1h", "--command", "true", expect=0),
        cli(
            "enqueue", "--json", json.dumps({"id": "poor", "command": "/none", "max_retries": 1, "env": env})
        ),
        cli(
            "enqueue", "--file", "-", "--json", stdin=json.dumps({"command": "exit 3", "env": env}), expect=0
        ),
        cli("enqueue", f"--env=API_TOKEN {SECRET}", "true", expect=2),
        cli("enqueue", json.dumps({"command": "true", "env": {"API_TOKEN": [SECRET]}}), expect=2),
        cli("enqueue", '{"command": "true", "env": {"API_TOKEN": "' + SECRET, expect=2),
    ]
    drop(spool_dir, "slow", command="sleep 60", env=env, max_retries=1, my_token=SECRET)
    drop(spool_dir, "broken", command=5, env=env)
    workers(2)
    wait_until(lambda: finished(spool_dir, "good", "poor", "broken"))
    wait_until(lambda: list((spool_dir / "processing").rglob("slow.json")))
    wait_until(lambda: '"failed": 0' not in cli("status", "--json").stdout.replace("'", '"'))
    everyone = [row.id for row in Spool(spool_dir).list()]
    assert {"good", "bad", "later", "slow", "poor", "broken"} <= set(everyone)
    for words in (
        ["list"], ["status"], ["doctor"], ["worker", "list"], ["worker", "logs"], ["dlq", "list"], ["config", "get"],
        *(["show", one] for one in everyone), *(["logs", one] for one in everyone),
    ):  # fmt: skip
        said += [cli(*words), cli(*words, "--json")]
    seen = [on_terminal("show", one).text for one in ("good", "slow")] + [on_terminal("list").text]
    said += [
        cli("cancel", "slow"),
        cli("dlq", "retry", "--all"),
        cli("reindex"),
        cli("worker", "stop", "--force"),
    ]
    for text in [part for one in said for part in (one.stdout, one.stderr)] + seen:
        assert SECRET not in text, text
        assert "Traceback" not in text
    for log in (spool_dir / "data" / "workers").iterdir():
        assert SECRET.encode() not in log.read_bytes()
    assert "PLAIN=seen" in cli("show", "good").stdout
    assert json.loads(cli("show", "good", "--json").stdout)["env"]["API_TOKEN"] == "***"
    done = spool_dir / "done" / "good.json"
    assert load(done)["env"] == env
    assert stat.S_IMODE(os.stat(done).st_mode) == 0o600


def test_the_index_holds_no_secret(spool_dir: Path) -> None:
    """A copy of it that somebody asks for help with gives nothing away."""
    spool = Spool(spool_dir)
    spool.enqueue("true", env={"API_TOKEN": SECRET})
    spool.refresh()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        assert SECRET.encode() not in path.read_bytes()
