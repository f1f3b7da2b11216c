"""Workers start with the machine: the unit says exactly what was meant, and an installation is done fully or not at all."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.errors import QueuectlError
from queuectl.layout import Layout
from queuectl.worker import service, service_units

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is neither systemd nor launchd")

ODD = '/srv/my 100% "spool" $HOME \\back;slash\' -- <&> ä'


def made(**fields: Any) -> service_units.Service:
    given = {
        "name": "q",
        "program": ("/usr/bin/env",),
        "root": "/srv/spool",
        "count": 2,
        "user": None,
        "path": "/bin",
    }
    return service_units.Service(**{**given, "stop_timeout": 900, **fields})


def words_of(value: str, *, variables: bool) -> list[str]:
    """Split a line of a unit as systemd.syntax(7) and systemd.service(5) say; `$` is only read behind the program."""
    words: list[str] = []
    word: str | None = None
    quote, at = "", 0
    while at < len(value):
        here = value[at]
        if here == "\\":
            at += 1
            word = (word or "") + value[at]
        elif quote and here == quote:
            quote = ""
        elif not quote and here in "\"'" and word is None:
            quote, word = here, ""
        elif not quote and here == " ":
            words, word = [*words, word or ""], None
        else:
            word = (word or "") + here
        at += 1
    # A single one begins a specifier, which stands for something else.
    words = [re.sub("%%?", lambda mark: mark[0][1:], part) for part in [*words, word or ""]]
    return [words[0], *(re.sub(r"\$\$|\$\w*", _expanded, part) for part in words[1:])] if variables else words


def _expanded(found: re.Match[str]) -> str:
    """No variable is set; a doubled mark is one."""
    return "$" if found[0] == "$$" else ""


def setting(unit: str, name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", unit, flags=re.MULTILINE)
    return str(found)


@given(
    root=st.text(st.sampled_from("ab/ %$\"'\\;#-{}<>&é"), min_size=1, max_size=12).map("/".__add__),
    path=st.text(st.sampled_from("ab/ %$\"'\\:"), max_size=12),
)
def test_systemd_reads_exactly_the_words_that_were_meant(root: str, path: str) -> None:
    """Whatever a path holds, quoting neither splits it, nor expands it, nor swallows a character."""
    one = made(root=root, path=path)
    unit = service_units.systemd_unit(one)

    assert words_of(setting(unit, "ExecStart"), variables=True) == one.words
    assert words_of(setting(unit, "Environment"), variables=False) == [f"PATH={path}"]
    assert service_units.is_ours(unit, root)
    assert not service_units.is_ours(unit, root + "x")


@given(root=st.text(st.sampled_from("ab/ %$\"'\\;#-{}<>&é"), min_size=1, max_size=12).map("/".__add__))
def test_launchd_reads_exactly_the_words_that_were_meant(root: str) -> None:
    """The property list is XML that says the same."""
    one = made(root=root)
    data = service_units.launchd_plist(one)

    assert plistlib.loads(data)["ProgramArguments"] == one.words
    assert service_units.is_ours(data.decode(), root)
    assert not service_units.is_ours(data.decode(), root + "x")


@pytest.mark.parametrize("kind", ["user", "system"])
def test_systemd_has_no_complaint(tmp_path: Path, kind: str) -> None:
    """Systemd's own checker accepts the unit, odd paths and all."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "queuectl.service"
    unit.write_text(service_units.systemd_unit(made(root=ODD, user="root" if kind == "system" else None)))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)

    done = subprocess.run(
        ["systemd-analyze", "verify", f"--{kind}", "--man=no", unit],
        capture_output=True, text=True, check=False, timeout=50,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)},
    )  # fmt: skip

    assert (done.returncode, [line for line in done.stderr.splitlines() if "queuectl" in line]) == (0, []), (
        done.stderr
    )


def test_unit_says_how_workers_live_and_end() -> None:
    """Running jobs finish. A restart follows a crash, but not a stop by a person or a usage error."""
    unit = service_units.systemd_unit(made())

    assert {name: setting(unit, name) for name in ("KillMode", "TimeoutStopSec", "Restart", "RestartPreventExitStatus",
                                                   "ExecReload", "OOMPolicy", "WantedBy")} == {
        "KillMode": "mixed", "TimeoutStopSec": "900s", "Restart": "on-failure", "RestartPreventExitStatus": "2",
        "ExecReload": "/bin/kill -HUP $MAINPID", "OOMPolicy": "continue", "WantedBy": "default.target",
    }  # fmt: skip
    assert "User=" not in unit
    system = service_units.systemd_unit(made(user="jobs"))
    assert (setting(system, "User"), setting(system, "WantedBy")) == ("jobs", "multi-user.target")


@pytest.mark.parametrize(
    "fields", [{"root": "/a\nb"}, {"root": "/\udcff"}, {"path": "/\x1b"}, {"name": "a b"}, {"name": "../x"}]
)
def test_what_no_unit_can_hold_is_refused(fields: dict[str, Any]) -> None:
    """A line end in a path would begin a new line of the unit."""
    with pytest.raises(QueuectlError):
        made(**fields)


@pytest.mark.parametrize(
    ("root", "name"),
    [("/h/.queuectl", "queuectl"), ("/srv/thumbnails", "queuectl-thumbnails"), ("/srv/my jobs!", "queuectl-my-jobs"), ("/", "queuectl-spool")],
)  # fmt: skip
def test_each_spool_has_a_service_of_its_own(root: str, name: str) -> None:
    """Two spools of a user do not use the same unit."""
    assert service_units.default_name(root, "/h/.queuectl") == name


FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$FAKE_LOG"
case "$*" in
*--property=Linger*) echo "Linger=${FAKE_LINGER:-no}";;
*show-environment*) exit "${FAKE_LOGIN:-0}";;
*enable*) exit "${FAKE_ENABLE:-0}";;
esac
"""


@pytest.fixture
def tools(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose systemctl, loginctl and launchctl only note how they were called; returns the notes."""
    folder = spool_dir.parent / "bin"
    folder.mkdir()
    for name in ("systemctl", "loginctl", "launchctl"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    log = spool_dir.parent / "calls"
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_LOG", str(log))
    return log


def calls(log: Path) -> list[str]:
    """The calls of the tools since the last time, without those that only ask."""
    lines = log.read_text().splitlines()
    log.write_text("")
    return [line for line in lines if not re.search(r"show-|print ", line)]


def test_install_writes_starts_and_says_what_is_left(cli: Cli, spool_dir: Path, tools: Path) -> None:
    """One command installs it; it also names the command that makes services outlive the login."""
    done = cli("service", "install", "--count", "3", expect=0)

    unit = spool_dir.parent / "home" / ".config" / "systemd" / "user" / "queuectl-spool.service"
    assert done.stdout.splitlines()[:3] == [
        f"wrote {unit}",
        "ran: systemctl --user daemon-reload",
        "ran: systemctl --user enable --now queuectl-spool.service",
    ]
    assert re.fullmatch(
        r"left to run: loginctl enable-linger \S+  # or .*log out.*", done.stdout.splitlines()[3]
    )
    assert calls(tools) == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now queuectl-spool.service",
    ]
    assert f"--spool {spool_dir} worker start --foreground --count 3\n" in unit.read_text()
    assert cli("service", "print", "--count", "3", expect=0).stdout == unit.read_text()


def test_print_changes_nothing_and_tells_programs_too(cli: Cli, spool_dir: Path, tools: Path) -> None:
    """A person looks before anything is done; a program gets the path and the text."""
    page = cli("service", "print", "--stop-timeout", "1h", expect=0)
    told = json.loads(cli("service", "print", "--stop-timeout", "1h", "--json", expect=0).stdout)

    assert told["unit"] == page.stdout
    assert page.stderr == f"for {told['path']}\n"
    assert "\nTimeoutStopSec=3600s\n" in page.stdout
    assert calls(tools) == []
    assert not spool_dir.exists()
    assert "--run-as works only with --system" in cli("service", "print", "--run-as", "root", expect=2).stderr
    assert (
        "no user 'nobody-here'"
        in cli("service", "print", "--system", "--run-as", "nobody-here", expect=1).stderr
    )


def test_installing_again_changes_nothing(
    cli: Cli, spool_dir: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call changes nothing. Another count is written, and the restart is left to the person."""
    monkeypatch.setenv("FAKE_LINGER", "yes")
    cli("service", "install", expect=0)
    again = json.loads(cli("service", "install", "--json", expect=0).stdout)
    other = json.loads(cli("service", "install", "--count", "2", "--json", expect=0).stdout)

    assert (again["changed"], again["left"]) == (False, [])
    assert other["changed"] is True
    assert [one["command"] for one in other["left"]] == ["systemctl --user restart queuectl-spool.service"]


def test_uninstall_undoes_it_and_leaves_the_jobs(cli: Cli, spool_dir: Path, tools: Path) -> None:
    """The unit is gone, the service was stopped, the spool is as it was; a second time there is nothing to do."""
    Spool(spool_dir).enqueue("true", id="job1")
    cli("service", "install", expect=0)
    calls(tools)
    done = cli("service", "uninstall", expect=0)

    assert calls(tools) == [
        "systemctl --user disable --now queuectl-spool.service",
        "systemctl --user daemon-reload",
    ]
    assert done.stdout.startswith("deleted ")
    assert not list((spool_dir.parent / "home" / ".config" / "systemd" / "user").iterdir())
    assert Spool(spool_dir).get("job1").state == "pending"
    assert "no service to uninstall" in cli("service", "uninstall", expect=0).stderr


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_unit_of_somebody_else_is_not_touched(cli: Cli, spool_dir: Path, tools: Path, verb: str) -> None:
    """A unit of that name that was written by hand, or for another spool, stays as it is."""
    cli("service", "install", "--name", "jobs", expect=0)
    unit = spool_dir.parent / "home" / ".config" / "systemd" / "user" / "jobs.service"
    before = unit.read_text()
    calls(tools)
    other = cli("--spool", spool_dir.parent / "other", "service", verb, "--name", "jobs", expect=1)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    by_hand = cli("service", verb, "--name", "jobs", expect=1)

    assert "was not made for the spool" in other.stderr
    assert "was not made for the spool" in by_hand.stderr
    assert before
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert calls(tools) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("login", "systemd does not run for this user here"),
        ("tool", "there is no systemctl here"),
        ("spool", "the workers would not start: "),
        ("open", "the workers would do nothing: "),
    ],
)
def test_what_would_not_work_is_refused_before_anything_is_written(
    cli: Cli, spool_dir: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    """No login session, no systemd, a spool that cannot be used, one that others can write."""
    if fault == "login":
        monkeypatch.setenv("FAKE_LOGIN", "1")
    elif fault == "tool":
        (tools.parent / "bin" / "systemctl").unlink()
        monkeypatch.setenv("PATH", str(tools.parent / "bin"))
    elif fault == "spool":
        spool_dir.write_text("a file")
    else:
        Layout(spool_dir).create()
        (spool_dir / "pending").chmod(0o777)
    done = cli("service", "install", expect=1)

    assert told in done.stderr
    assert calls(tools) == []
    assert not (spool_dir.parent / "home" / ".config").exists()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("warning: slow\nerror: no such spool\nhint: make one\n", "no such spool"),
        ("Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'x'\n", "ModuleNotFoundError: No module named 'x'"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_line_that_says_why_is_told(told: str, reason: str) -> None:
    """The first line of a traceback says nothing."""
    assert service._error_in(told) == reason


def test_services_of_the_machine_are_roots(
    spool_dir: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users are told so before anything is tried."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    one = service.describe(Layout(spool_dir), user="root")

    with pytest.raises(QueuectlError, match="only root can set up"):
        service.Installer(one, "systemd").install()
    assert calls(tools) == []


def test_refusal_of_the_manager_is_told(cli: Cli, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemctl says comes back in one line, with the unit to look at."""
    monkeypatch.setenv("FAKE_ENABLE", "5")
    done = cli("service", "install", expect=1)

    assert done.stderr.startswith(
        "error: systemctl --user enable --now queuectl-spool.service: exit code 5\nhint: the unit is /"
    )


def test_system_unit_goes_where_the_machine_looks(
    spool_dir: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root: into /etc/systemd/system, without --user, and nobody has to linger."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(service, "SYSTEM_UNITS", str(spool_dir.parent / "etc"))
    layout = Layout(spool_dir)
    layout.create()
    one = service.describe(layout, name="jobs", user=service.owner_for_system(layout, None))
    monkeypatch.setattr(service, "BOOTED", str(spool_dir))
    report = service.Installer(one, "systemd").install()

    assert (one.user, report.left) == ("root", [])
    assert calls(tools) == ["systemctl daemon-reload", "systemctl enable --now jobs.service"]
    assert setting((spool_dir.parent / "etc" / "jobs.service").read_text(), "User") == "root"
    assert service.Installer(one, "systemd").uninstall().changed
    monkeypatch.setattr(service, "BOOTED", str(spool_dir / "no"))
    with pytest.raises(QueuectlError, match="not run by systemd"):
        service.Installer(one, "systemd").install()


def test_agent_of_launchd_is_loaded_and_unloaded(cli: Cli, spool_dir: Path, tools: Path) -> None:
    """The same verbs on a Mac; a second install of the same leaves the running agent alone."""
    domain = f"gui/{os.getuid()}"
    cli("service", "install", "--for", "launchd", expect=0)
    plist = spool_dir.parent / "home" / "Library" / "LaunchAgents" / "queuectl-spool.plist"
    assert calls(tools) == [f"launchctl bootstrap {domain} {plist}"]
    record = plistlib.loads(plist.read_bytes())
    assert (record["RunAtLoad"], record["KeepAlive"]) == (True, {"SuccessfulExit": False})
    cli("service", "install", "--for", "launchd", expect=0)
    assert calls(tools) == []
    cli("service", "uninstall", "--for", "launchd", expect=0)
    assert calls(tools) == [f"launchctl bootout {domain}/queuectl-spool"]
    assert not plist.exists()


@pytest.fixture
def slurm(tools: Path, spool_dir: Path) -> Path:
    """A machine with Slurm's commands; returns the shared folder, which is set."""
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        (tools.parent / "bin" / name).write_text("#!/bin/sh\n")
        (tools.parent / "bin" / name).chmod(0o755)
    share = spool_dir.parent / "share"
    share.mkdir(mode=0o700)
    Layout(spool_dir).create()
    (spool_dir / "config.yaml").write_text(f"slurm_dir: {share}\n")
    return share


@pytest.mark.usefixtures("slurm")
def test_a_dispatcher_has_a_service_of_its_own(
    cli: Cli, spool_dir: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside that of the workers. Its end must not end an sbatch, which may have handed over its jobs."""
    monkeypatch.setenv("SLURM_CONF", "/srv/slurm.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    one = service.describe(Layout(spool_dir), engine="slurm")
    report = service.Installer(one, "systemd").install()

    assert report.unit.endswith("/queuectl-spool-slurm.service")
    assert calls(tools)[-1] == "systemctl --user enable --now queuectl-spool-slurm.service"
    unit = Path(report.unit).read_text()
    assert f"--spool {spool_dir} worker start --foreground --engine slurm\n" in unit
    assert (setting(unit, "KillMode"), setting(unit, "TimeoutStopSec")) == ("process", "60s")
    assert '\nEnvironment="SLURM_CONF=/srv/slurm.conf"\n' in unit
    system = service_units.systemd_unit(made(engine="slurm", user="jobs"))
    assert setting(system, "After") == "remote-fs.target munge.service"
    record = plistlib.loads(service_units.launchd_plist(one))
    assert (record["AbandonProcessGroup"], record["ExitTimeOut"]) == (True, 60)
    assert cli("service", "uninstall", "--engine", "slurm", expect=0).stdout.startswith("deleted ")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("root", "root cannot hand jobs to Slurm"),
        ("folder", "slurm_dir is not set"),
        ("commands", "sinfo is not found"),
    ],
)
def test_a_dispatcher_that_would_leave_at_once_is_not_installed(
    spool_dir: Path, slurm: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    """Its service would start it again every five seconds."""
    assert slurm.is_dir()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if fault == "root" else 4711)
    if fault == "folder":
        (spool_dir / "config.yaml").unlink()
    elif fault == "commands":
        (tools.parent / "bin" / "sinfo").unlink()
        monkeypatch.setattr("queuectl.worker.service_units.search_path", lambda _: str(tools.parent / "bin"))
    with pytest.raises(QueuectlError, match=told):
        service.Installer(service.describe(Layout(spool_dir), engine="slurm"), "systemd").install()
    assert calls(tools) == []
    assert not (spool_dir.parent / "home" / ".config").exists()


@pytest.mark.parametrize("words", [("--count", "2"), ("--queue", "gpu"), ("--stop-timeout", "1h")])
def test_what_means_nothing_for_a_dispatcher_is_refused(cli: Cli, words: tuple[str, str]) -> None:
    """It is one, it serves the queues of its engine, and nothing waits for its end."""
    assert words[0] in cli("service", "print", "--engine", "slurm", *words, expect=2).stderr


def test_unit_runs_workers_that_reload_and_stop(cli: Cli, spool_dir: Path) -> None:
    """What ExecStart says, started as a service starts it: it works, reads its settings on HUP, and ends on TERM."""
    unit = cli("service", "print", "--count", "2", expect=0).stdout
    environment = dict(word.split("=", 1) for word in words_of(setting(unit, "Environment"), variables=False))
    process = subprocess.Popen(
        words_of(setting(unit, "ExecStart"), variables=True),
        env={**environment, "HOME": str(spool_dir.parent)}, cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    import signal

    from support import finished, wait_until

    wait_until(lambda: len([one for one in Spool(spool_dir).workers() if one.pid]) == 2)
    process.send_signal(signal.SIGHUP)
    cli("enqueue", "--id", "job1", "true", expect=0)
    wait_until(lambda: finished(spool_dir, "job1"))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert out.count("settings read again") == 2
