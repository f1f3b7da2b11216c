"""A machine whose process 1 is the real systemd: a container of this system's /usr, whose other folders are in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faults
import psutil

import queuectl

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, UID = "jobs", 4711
"""An ordinary user of the machine."""

FROM_HERE = (
    *("/etc/pam.d", "/etc/security", "/etc/dbus-1", "/etc/nsswitch.conf", "/etc/login.defs"),
    "/etc/alternatives",  # where the links to some programs are, such as those of Slurm
)
"""What Debian's programs look for in /etc."""

LEFT_OUT = ("systemd-firstboot.service", "systemd-tmpfiles-clean.timer", "ssh.socket", "apt-daily.timer")
"""Units that would ask a person, or do what nobody needs here."""

NEEDED = ("systemd-nspawn", "nsenter", "dbus-daemon", "setpriv")


class Machine:
    """Boot it, and run commands in it.

    Args:
        base: an empty folder. The machine sees `base/srv` as /srv.
    """

    def __init__(self, base: Path) -> None:
        if os.geteuid() != 0:
            faults.must_not_skip("only root can boot a machine")
        if missing := [name for name in NEEDED if not shutil.which(name)]:
            faults.must_not_skip(f"not installed: {' '.join(missing)}")
        self.srv = base / "srv"
        self.srv.mkdir()
        self._log = base / "boot.log"
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                self._words(base), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.pid = support.wait_until(self._first_process, 30, self._told)
            support.wait_until(self._has_booted, 45, self._told)
        except BaseException:
            self.close()
            raise

    def _words(self, base: Path) -> list[str]:
        accounts = {
            "passwd": Path("/etc/passwd").read_text(encoding="utf-8")
            + f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh\n",
            "group": Path("/etc/group").read_text(encoding="utf-8") + f"{USER}:x:{UID}:\n",
            "shadow": f"root:*:20000::::::\n{USER}:*:20000::::::\n",
        }
        for name, text in accounts.items():
            (base / name).write_text(text, encoding="utf-8")
        binds = [f"--bind-ro={base / name}:/etc/{name}" for name in accounts]
        # The service runs what is installed for this Python. That is the code under test, however it was installed.
        asked = [sys.executable, "-I", "-c", "import queuectl; print(queuectl.__path__[0])"]
        installed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        under_test = str(Path(queuectl.__file__).parent)
        if installed != under_test or not installed.startswith(sys.prefix):
            binds.append(f"--bind-ro={under_test}:{installed}")
        folders = {sys.prefix, sys.base_prefix}
        binds += [
            f"--bind-ro={path}" for path in sorted(folders) if not path.startswith("/usr/") and path != "/usr"
        ]
        binds += [f"--bind-ro={path}" for path in FROM_HERE if os.path.exists(path)]
        return [
            "systemd-nspawn", "--quiet", "--volatile=yes", "--directory=/", f"--machine=queuectl-{os.getpid()}",
            "--register=no", "--keep-unit", "--private-network", "--console=pipe", "--boot",
            *binds, f"--bind={self.srv}:/srv", "systemd.unit=basic.target", *(f"systemd.mask={unit}" for unit in LEFT_OUT),
        ]  # fmt: skip

    def _first_process(self) -> int:
        assert self._nspawn.poll() is None, self._told()
        children = psutil.Process(self._nspawn.pid).children()
        return next((one.pid for one in children if one.name() == "systemd"), 0)

    def _has_booted(self) -> bool:
        assert self._nspawn.poll() is None, self._told()
        return self.run("systemctl is-active basic.target", check=False).stdout == "active\n"

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def run(
        self, script: str, *, user: str = "root", check: bool = True, timeout: float = 40
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of sh in it; its two outputs come as one.

        Args:
            user: root or USER.
            timeout: seconds.
        """
        home = "/root" if user == "root" else f"/home/{USER}"
        env = {
            "HOME": home, "USER": user, "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": f"/run/user/{UID}",
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/usr/sbin:/bin:/sbin",
        }  # fmt: skip
        become = [] if user == "root" else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", *become, "/bin/sh", "-ec", f"cd {home}\n{script}"],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{script}: exit {done.returncode}\n{done.stdout}\n{self._journal()}")
        return done

    def _journal(self) -> str:
        return self.run("journalctl --no-pager --lines=40", check=False).stdout

    def wait_for(self, script: str, timeout: float = 20, **options: Any) -> None:
        """Run a script again and again until it succeeds."""
        support.wait_until(
            lambda: self.run(script, check=False, **options).returncode == 0,
            timeout,
            lambda: f"{script}\n{self._journal()}",
        )

    def close(self) -> None:
        """Take the power away, and wait until everything in it has ended."""
        for child in psutil.Process(self._nspawn.pid).children() if self._nspawn.poll() is None else ():
            child.kill()  # without its process 1 the kernel ends all others
        self._nspawn.wait(20)


def booted(base: Path) -> Iterator[Machine]:
    """A machine in which the users' programs work: /home, D-Bus and logins."""
    made = Machine(base)
    try:
        made.run(
            # Python may be there, as pyenv's is. This is the machine's own folder.
            "chmod a+rx /root\n"
            "systemctl start dbus.service systemd-logind.service\n"
            f"install -d -o {USER} -g {USER} -m 700 /home/{USER} /srv/jobs"
        )
        yield made
    finally:
        made.close()
