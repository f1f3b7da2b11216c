"""The services that `queuectl service` installs, under the real systemd: they start, run jobs, reload, end and stay away."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import faults
import pytest
from machine import USER, Machine, booted
from real_slurm import CLUSTER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's"),
    pytest.mark.timeout(240),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield from booted(tmp_path)


def test_a_service_of_the_machine_works_until_it_is_uninstalled(machine: Machine) -> None:
    """Jobs run as the given user. A reload, a killed worker, a restart and a stop lose none and repeat none that ended."""
    spool = "queuectl --spool /srv/jobs/spool"
    machine.run(f"{spool} enqueue --id first 'id -un'", user=USER)
    told = machine.run(f"{spool} service install --system --run-as {USER} --count 2 --name jobs").stdout
    assert "ran: systemctl enable --now jobs.service" in told
    assert "left to run" not in told
    machine.wait_for("test -e /srv/jobs/spool/done/first.json")
    assert machine.run(f"{spool} logs first", user=USER).stdout == f"{USER}\n"
    assert machine.run("systemctl is-enabled jobs.service").stdout == "enabled\n"

    machine.run("systemctl reload jobs.service")
    machine.wait_for("journalctl --no-pager --unit=jobs | grep 'settings read again'")

    # Two jobs run, and the whole service is killed as by a crash: systemd starts it again, and it takes them back.
    machine.run(
        f"{spool} enqueue --id long --timeout 60 'until [ -e /srv/jobs/go ]; do sleep 0.05; done; echo'",
        user=USER,
    )
    machine.wait_for("ls /srv/jobs/spool/processing/*/long.json")
    machine.run("systemctl kill --kill-whom=all --signal=KILL jobs.service")
    machine.wait_for("journalctl --no-pager --unit=jobs | grep 'took back long'")
    machine.wait_for("ls /srv/jobs/spool/processing/*/long.json && systemctl is-active jobs.service")

    # A stop waits for the job that runs.
    machine.run(f"{spool} service uninstall --name jobs --system & sleep 0.5; touch /srv/jobs/go; wait $!")
    machine.run("test -e /srv/jobs/spool/done/long.json")
    assert machine.run("systemctl is-active jobs.service", check=False).stdout == "inactive\n"
    assert machine.run("ls /etc/systemd/system/jobs.service", check=False).returncode
    assert machine.run(f"pgrep --uid {USER} --list-full", check=False).stdout == ""


def test_a_service_of_a_user_outlives_the_login(machine: Machine) -> None:
    """It is refused while systemd does not run for that user; what is said to be left to run makes it work."""
    refused = machine.run("queuectl service install", user=USER, check=False)
    assert refused.returncode == 1
    assert "systemd does not run for this user here" in refused.stdout
    machine.run(f"systemctl start user@$(id -u {USER}).service")
    told = machine.run("queuectl service install --count 1", user=USER).stdout
    (left,) = [line for line in told.splitlines() if line.startswith("left to run: ")]
    machine.run(left.removeprefix("left to run: "))
    machine.run("queuectl enqueue --id job1 'echo hello'", user=USER)
    machine.wait_for("test -e ~/.queuectl/done/job1.json", user=USER)

    again = machine.run("queuectl service install --count 1", user=USER).stdout
    assert "left to run" not in again
    machine.run("queuectl service uninstall", user=USER)
    assert machine.run("queuectl worker list --json", user=USER).stdout == "[]\n"
    assert machine.run("ls ~/.config/systemd/user", user=USER).stdout == ""


@pytest.mark.slow
def test_the_service_of_a_dispatcher_leaves_alone_what_runs_on_the_cluster(machine: Machine) -> None:
    """It is killed, started again by systemd, stopped and started by a person: one run, collected in the end."""
    if not shutil.which("slurmctld"):
        faults.must_not_skip("Slurm is not installed")
    shutil.copytree(CLUSTER.parent, machine.srv / "slurm_cluster")
    conf = "export SLURM_CONF=/srv/jobs/c/slurm.conf"
    # Slurm looks its own name up, and does not begin where all addresses are those of the loopback.
    machine.run('echo "127.0.0.1 localhost $(hostname)" > /etc/hosts; ip address add 10.0.0.1/32 dev lo')
    spool = f"{conf}; queuectl --spool /srv/jobs/spool"
    machine.run(
        "mkdir -m 700 /srv/jobs/share && /srv/slurm_cluster/testcluster.sh start /srv/jobs/c 1 2 >/srv/jobs/log 2>&1",
        user=USER,
    )
    machine.run(f"{spool} config set slurm_dir /srv/jobs/share && {spool} config set engine slurm", user=USER)
    told = machine.run(f"{spool} service install --system --run-as {USER} --engine slurm").stdout
    unit = "queuectl-spool-slurm.service"
    assert f"ran: systemctl enable --now {unit}" in told
    runs = "echo run >> /srv/jobs/ledger; until [ -e /srv/jobs/go ]; do sleep 0.05; done"
    machine.run(f"{spool} enqueue --id long --timeout 60 '{runs}'", user=USER)
    machine.wait_for("grep run /srv/jobs/ledger")

    machine.run(f"systemctl kill --signal=KILL {unit}")
    machine.wait_for(f"{spool} status | grep '^slurm: 1 run'", user=USER)
    machine.run(f"systemctl stop {unit}")
    assert "1 job is out on slurm, and no dispatcher runs" in machine.run(f"{spool} status", user=USER).stdout
    assert machine.run(f"{conf}; squeue --noheader --format=%T", user=USER).stdout == "RUNNING\n"
    machine.run(f"touch /srv/jobs/go; systemctl start {unit}")
    machine.wait_for("test -e /srv/jobs/spool/done/long.json")
    assert machine.run("cat /srv/jobs/ledger").stdout == "run\n"
    machine.run(f"{spool} service uninstall --system --engine slurm")
    machine.run("/srv/slurm_cluster/testcluster.sh stop /srv/jobs/c", user=USER)
