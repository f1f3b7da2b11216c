"""No control character from a field, a file name, an output or an argument reaches a terminal."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from terminal import Seen, on_terminal

from queuectl import Spool

from support import drop, drop_bytes, finished, load, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31mA\x7f\x08\rB\x0cC\u202eD\u2028E\u200bF"
"""Changes the title, clears, colours, deletes, overwrites, reverses, breaks lines, hides."""

NAME = EVIL.replace("/", "")

HARMLESS = re.compile(
    rb"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\r\n|\r\x1b\[2?K|\n|\t"
)  # what our own tables are made of
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2029]")


def harmless(seen: Seen, *, told: str | None = None) -> str:
    """Check that no forbidden character was written; return the text."""
    rest = HARMLESS.sub(b"", seen.raw).decode()
    found = FORBIDDEN.search(rest)
    assert not found, (hex(ord(found[0])), rest[max(0, found.start() - 200) : found.end() + 100])
    assert "Traceback" not in seen.text
    if told is not None:
        assert told in seen.text.replace("\n", ""), seen.text
    return seen.text


def everywhere(**fields: Any) -> dict[str, Any]:
    """A job with control characters in every text field."""
    return {
        "command": f"true {EVIL}",
        "cwd": f"/none/{EVIL}\nline",
        "env": {f"NAME{EVIL}": EVIL, "PLAIN": EVIL},
        "last_error": f"{EVIL}\n[worker-0] completed fake",
        "output": EVIL,
        "worker": EVIL,
        f"tool{EVIL}": {f"inner{EVIL}": [EVIL]},
        "note": EVIL,
        "history": [
            {"run": EVIL, "attempt": EVIL, "worker": EVIL, "outcome": EVIL, "started_at": EVIL, "exit_code": EVIL, "error": EVIL}
        ],
        **fields,
    }  # fmt: skip


@pytest.fixture
def evil_spool(spool_dir: Path) -> Path:
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop(spool_dir, "waiting", **everywhere(run_at="2099-01-01T00:00:00Z"))
    drop(spool_dir, "failing", **everywhere(max_retries=9, backoff_base=1000))
    text = json.dumps(everywhere())
    for folder, name in (("done", "over"), ("dead", "given-up"), ("processing/worker-9", "running")):
        drop_bytes(spool_dir, f"{name}.json", text.encode(), folder=folder)
    drop_bytes(spool_dir, f"freed{NAME}.json", text.encode(), folder="processing/worker-9")
    drop_bytes(spool_dir, f"name{NAME}.json", b'{"command": ""}')
    drop_bytes(spool_dir, "field.json", json.dumps({"command": "true", "priority": EVIL, EVIL: 1}).encode())
    drop_bytes(spool_dir, "word.json", f'{{"command": {EVIL}'.encode())
    drop_bytes(spool_dir, "id.json", json.dumps({"command": "true", "id": EVIL}).encode())
    return spool_dir


def test_what_is_looked_at_is_harmless(evil_spool: Path) -> None:
    """Tables and pages for jobs in every state."""
    # A worker that holds the lock of its name keeps the claim where it is.
    from queuectl.system.locks import Lock

    lock = Lock.acquire(str(evil_spool / "data" / "workers" / "worker-9.lock"))
    assert lock is not None
    (evil_spool / "data" / "workers" / "worker-9.json").write_text(
        json.dumps({"name": EVIL, "pid": os.getpid(), "mode": EVIL, "paused": EVIL, "polling": EVIL})
    )
    (evil_spool / "data" / "workers" / "worker-9.log").write_text(f"2026-01-01T00:00:00Z [worker-9] {EVIL}\n")
    try:
        for words in (
            ["list"],
            ["status"],
            ["dlq", "list"],
            ["worker", "list"],
            ["worker", "logs"],
            ["list", "--json"],
        ):
            harmless(on_terminal(*words))
        assert "\\x1b]0;owned\\x07" in harmless(on_terminal("show", "waiting"))
        jobs = [row.id for row in Spool(evil_spool).list()]
        assert len(jobs) == 10
        for job_id in jobs:
            harmless(on_terminal("show", job_id))
        for job_id in ("waiting", "running", "over"):
            harmless(on_terminal("show", job_id, "--json"))
            harmless(on_terminal("logs", job_id))
        harmless(on_terminal("doctor"))
    finally:
        lock.release()


def test_a_worker_in_the_foreground_is_harmless(evil_spool: Path) -> None:
    """Its lines contain commands, folders and errors of jobs; none of these can imitate a line of the worker."""
    drop(evil_spool, "printing", command=["printf", f"%s\n{EVIL}", EVIL])
    drop(evil_spool, "absent", command=[f"/none/{EVIL}\n[worker-0] completed fake"], max_retries=1)
    drop(
        evil_spool, "elsewhere", command="true", cwd=f"/none/{EVIL}\n[worker-0] completed fake", max_retries=1
    )
    with (evil_spool / "config.yaml").open("a") as file:
        file.write(f"{json.dumps('x' + EVIL.encode('ascii', 'ignore').decode())}: 1\n")
    for words in (["--drain"], ["--drain", "--count", "2"]):
        text = harmless(on_terminal("worker", "start", "--foreground", *words))
        assert not re.search(r"^\[worker-\d\] completed fake", text, re.MULTILINE)
    assert finished(evil_spool, "printing", "absent", "elsewhere")
    assert "\n" not in load(evil_spool / "dead" / "elsewhere.json")["last_error"]
    harmless(on_terminal("show", "elsewhere"))
    harmless(on_terminal("logs", "printing"))
    harmless(on_terminal("status"))


def test_a_log_in_the_background_is_harmless_even_to_cat(
    evil_spool: Path, workers: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    """Log files are harmless when opened with other programs; so is `worker logs -f` on a terminal."""
    drop(evil_spool, "elsewhere", command="true", cwd=f"/none/{EVIL}\n[worker-0] fake", max_retries=1)
    workers(1)
    wait_until(lambda: finished(evil_spool, "elsewhere"))
    cli("worker", "stop", expect=0)
    log = (evil_spool / "data" / "workers" / "worker-0.log").read_text()
    assert not FORBIDDEN.search(log)
    assert not re.search(r"Z \[worker-0\] fake", log)
    harmless(on_terminal("worker", "logs"))


@pytest.mark.parametrize(
    "words",
    [
        ["show", EVIL], ["logs", EVIL], ["cancel", EVIL], ["dlq", "retry", EVIL], ["dlq", "retry", EVIL, EVIL], [EVIL],
        ["worker", EVIL], ["worker", "logs", EVIL], ["list", "--state", EVIL], ["list", "--limit", EVIL], ["config", "get", EVIL],
        ["config", "set", EVIL, "1"], ["config", "set", "timeout", EVIL], ["config", "set", "incoming", EVIL],
        ["enqueue", "--id", EVIL, "true"], ["enqueue", "--cwd", f"/{EVIL}", "--id", "x", "true"], ["enqueue", "--env", EVIL, "true"],
        ["enqueue", "--file", EVIL], ["enqueue", "--priority", EVIL, "true"], ["enqueue", "{" + EVIL], ["enqueue", EVIL, EVIL],
        ["enqueue", json.dumps({"command": "true", "id": EVIL})], ["enqueue", json.dumps({"command": "true", "run_at": EVIL})],
        ["enqueue", json.dumps({"command": "true", "env": {EVIL: 1}})], ["enqueue", "--json", EVIL], ["--spool", f"/dev/null/{EVIL}", "status"],
        ["--" + EVIL], ["worker", "start", "--count", EVIL], ["enqueue", "--run-at", EVIL, "true"],
    ],
    ids=str,
)  # fmt: skip
def test_errors_are_harmless(spool_dir: Path, words: list[str]) -> None:
    """Error messages repeat what was typed, which may come from anywhere."""
    harmless(on_terminal(*words))


@pytest.mark.parametrize("language", ["json", "yaml", "lines"])
def test_files_of_jobs_are_harmless(spool_dir: Path, tmp_path: Path, language: str) -> None:
    """`check` prints texts from the files, as escapes."""
    good, bad = {"command": f"true {EVIL}"}, {"command": "true", "priority": EVIL, "id": EVIL}
    text = {
        "json": json.dumps([good, bad]),
        "yaml": f"- command: true\n- {json.dumps(bad)}\n- *{EVIL}\n",
        "lines": f"{json.dumps(good)}\n{json.dumps(bad)}\n{EVIL}\n",
    }[language]
    path = tmp_path / f"jobs{EVIL.replace('/', '')}.{language}"
    path.write_text(text)
    harmless(on_terminal("enqueue", "--file", str(path)))


def test_a_settings_file_is_harmless(spool_dir: Path) -> None:
    """Errors in settings quote keys and values, as escapes."""
    Spool(spool_dir).refresh()
    for text in (
        f'"\\e]0;owned\\a{chr(92)}u202e": 1\n',
        'timeout: "\\e[2J"\n',
        'incoming: "\\e[2J"\n',
        f"timeout: {EVIL}\n",
    ):
        (spool_dir / "config.yaml").write_text(text)
        for words in (["status"], ["config", "get"], ["config", "set", "priority", "4"], ["worker", "start"]):
            harmless(on_terminal(*words))
        assert "error" in on_terminal("config", "get", "x").text
        from support import end_workers

        end_workers(spool_dir)
