"""`queuectl engine check`: each thing that keeps jobs from running on a cluster is found, and told with what helps.

The faults are made for real, on a real cluster where they can be, else with a runner that runs here.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import faults
import pytest
import real_slurm

from queuectl.config import queue_file
from queuectl.config.change import set_value
from queuectl.config.queues import Queues
from queuectl.config.settings import load
from queuectl.doctor import doctor
from queuectl.engine import check, place, slurm
from queuectl.engine.check import Finding, targets
from queuectl.errors import ConfigError, SpoolError
from queuectl.layout import Layout
from queuectl.worker import dispatch_check

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from queuectl.engine.slurm import Run

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")


AS_ROOT = (
    "error: root cannot hand jobs to Slurm: whoever is root on a node could run commands as root here\n"
    "hint: use a spool of an ordinary user\n"
)


@pytest.fixture
def layout(spool_dir: Path, share: Path) -> Layout:
    """A spool that has such a folder."""
    made = Layout(spool_dir)
    made.create()
    set_value(made, "slurm_dir", str(share))
    return made


def found(
    layout: Layout, command: Callable[[Sequence[str]], Run] = slurm.run, wait: float = 30
) -> list[Finding]:
    queues = Queues(layout)
    return list(check.check(layout, load(layout)[0], queues, wait=wait, may_be_root=True, command=command))


def faults_of(
    layout: Layout, command: Callable[[Sequence[str]], Run] = slurm.run, wait: float = 30
) -> list[tuple[str, str]]:
    return [(one.text, one.hint) for one in found(layout, command, wait) if one.hint]


def is_clean(share: Path) -> bool:
    """Nothing is left in the folder but that of the spool."""
    return {path.name for one in share.iterdir() for path in one.iterdir()} <= {"owner.json"}


# -- here --------------------------------------------------------------------------------------------------------------


class Here:
    """Slurm's commands, with a node that is this machine.

    Args:
        edit: changes the script before it runs there.
    """

    def __init__(self, edit: Callable[[str], str] = lambda text: text) -> None:
        self.edit = edit
        self.calls: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> Run:
        """Run one of them."""
        self.calls.append(list(words))
        if words[0] == "sbatch":
            program, folder = words[-2:]
            text = self.edit(Path(program).read_text())
            done = subprocess.run(
                [sys.executable, "-c", text, folder],
                env={"SLURMD_NODENAME": "n7", "SLURM_JOB_ID": "1"},
                check=False,
            )
            return 0, f"{done.returncode}\n", ""
        if words[0] == "squeue":
            return 0, "COMPLETED|None|n7\n", ""
        return 0, "batch*|3|0/12/0/12\n" if "--format=%P|%D|%C" in words else "slurm 22.05.8\n", ""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Its commands are found, whether Slurm is installed or not."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return Here()


@pytest.mark.parametrize(
    "said",
    [
        "sinfo: error: fetch_config: DNS SRV lookup failed\nsinfo: fatal: Could not establish a configuration source",
        "sinfo has not answered within 30s\nsinfo: error: s_p_parse_file: cannot stat file /x/slurm.conf: No such file",
    ],
)
def test_a_head_without_slurm_conf_is_told_how_to_name_it(layout: Layout, here: Here, said: str) -> None:
    """`scontrol ping` would say the same."""
    [(fact, hint)] = faults_of(layout, lambda words: (1, "", said) if words[0] == "sinfo" else here(words))
    assert fact == f"slurm does not answer: {said.splitlines()[-1]}"
    assert hint == "export SLURM_CONF=/etc/slurm/slurm.conf"


def test_a_cluster_that_is_well_has_no_faults(layout: Layout, share: Path, here: Here) -> None:
    """Each thing that was proved is told; and nothing is left."""
    texts = [one.text for one in found(layout, here)]
    assert faults_of(layout, here) == []
    assert re.fullmatch(
        r"slurm 22\.05\.8 answers in 0\.\d\ds; sbatch, squeue, scancel, sinfo found", texts[0]
    )
    assert texts[1] == "partition batch (default): 3 nodes, 12 CPUs"
    assert texts[2].startswith(f"{share}: hard links hold")
    assert re.fullmatch(
        r"the default partition: probe ran on n7 after \d+\.\ds, record back after \d+\.\ds", texts[3]
    )
    assert re.fullmatch(rf"{share} seen alike by n7 \(python 3\.\d+ at /usr/bin/python3\)", texts[4])
    assert is_clean(share)


def test_a_clock_that_is_wrong_is_told(layout: Layout, here: Here) -> None:
    """Its records would say that jobs began in another hour."""
    for shift, words in ((7200, "ahead of"), (-7200, "behind")):
        here.edit = lambda text, shift=shift: text.replace("time.time()", f"(time.time() + {shift})")  # type: ignore[misc]
        [(fact, hint)] = faults_of(layout, here)
        assert re.fullmatch(rf"the clock of n7 is 7\d\d\ds {words} this one", fact)
        assert hint == "srun -w n7 date"


def test_missing_commands_are_named(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the folder is examined all the same."""
    for name in ("squeue", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    first, second = found(layout)
    assert first == Finding(f"sbatch, scancel are not in PATH: {tmp_path}", "queuectl guide slurm")
    assert "hard links hold" in second.text


def test_a_folder_that_is_not_named_is_told(layout: Layout, here: Here) -> None:
    Path(layout.config_yaml).unlink()
    assert faults_of(layout, here) == [
        ("the setting slurm_dir is unset", "queuectl config set slurm_dir /shared/queuectl")
    ]


def test_a_folder_that_cannot_be_used_is_told(layout: Layout, share: Path, here: Here) -> None:
    """Missing, a file, in the spool, writable by others: one line each, and nothing is sent."""
    share.chmod(0o770)
    [(fact, hint)] = faults_of(layout, here)
    assert fact.startswith(f"slurm_dir {share} can be written by others")
    assert hint == f"chmod go-w {share}"
    share.rmdir()
    [(fact, hint)] = faults_of(layout, here)
    assert "slurm_dir" in fact
    assert hint == f"mkdir -m 700 {share}"
    share.write_text("")
    [(fact, _)] = faults_of(layout, here)
    assert fact == f"slurm_dir {share} is not a folder"
    Path(layout.config_yaml).write_text(f"slurm_dir: {layout.root}/done\n")
    [(fact, _)] = faults_of(layout, here)
    assert "must not lie in each other" in fact
    if os.geteuid() == 0:
        share.unlink()
        share.mkdir(mode=0o700)
        os.chown(share, 4711, 4711)
        set_value(layout, "slurm_dir", str(share))
        [(fact, _)] = faults_of(layout, here)
        assert fact == f"slurm_dir {share} belongs to another user (uid 4711)"
    assert "sbatch" not in {words[0] for words in here.calls}


def test_a_folder_that_cannot_be_used_is_not_set(spool_dir: Path, share: Path, cli: Cli) -> None:
    """A path that is mistyped is found when it is typed, and not by the first job."""
    lost = f"{share}/lost"
    done = cli("config", "set", "slurm_dir", lost, expect=1)
    assert done.stderr == (
        f"error: cannot use slurm_dir {lost}: no such file or directory\nhint: mkdir -m 700 {lost}\n"
    )
    share.chmod(0o770)
    assert f"hint: chmod go-w {share}" in cli("config", "set", "slurm_dir", str(share), expect=1).stderr
    share.chmod(0o700)
    assert "must be an absolute path" in cli("config", "set", "slurm_dir", "lost", expect=2).stderr
    assert not (spool_dir / "config.yaml").exists()
    assert cli("config", "set", "slurm-dir", str(share), expect=0).stdout == f"slurm-dir = {share}\n"
    assert cli("config", "set", "slurm_dir", "none", expect=0).stdout == "slurm_dir = unset\n"


def test_the_place_of_another_spool_is_told(layout: Layout, share: Path, here: Here) -> None:
    """A copied spool would answer for the jobs of the first one."""
    spool, _ = place.prepare(str(share), layout, "elsewhere")
    [(fact, hint)] = faults_of(layout, here)
    assert fact.startswith(f"{share}/{spool} belongs to {os.path.realpath(layout.root)} on elsewhere")
    assert hint.startswith("in the copy: rm data/spool-id")


def test_a_folder_that_is_not_the_one_where_jobs_are_is_told(
    layout: Layout, share: Path, tmp_path: Path, here: Here
) -> None:
    """Found empty, all that runs in the other one would be run again."""
    _, home = place.prepare(str(share), layout, socket.gethostname())
    claims = Path(layout.claims("slurm"))
    claims.mkdir()
    place.remember(str(claims), home)
    (claims / "a.json").write_text("{}")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    set_value(layout, "slurm_dir", str(other))
    [(fact, hint)] = faults_of(layout, here)
    assert fact == f"jobs are out in {home}, and slurm_dir is another folder now"
    assert hint == f"queuectl config set slurm_dir {share}"


def test_a_server_that_does_not_answer_holds_nobody_up(
    layout: Layout, share: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard-mounted share lets a call hang for ever."""
    gate = threading.Event()
    monkeypatch.setattr(check, "PATIENCE", 0.05)
    monkeypatch.setattr(place, "prepare", lambda *_, **__: gate.wait())
    assert faults_of(layout, here) == [(f"{share} has not answered within 0s", f"ls {share}")]
    gate.set()


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file server never answers. When its connection is closed, all calls that hang fail."""
    folder = tmp_path / "hung"
    folder.mkdir()
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        faults.must_not_skip("only root can mount a file system, and /dev/fuse must be there")
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    try:
        if libc.mount(b"hung", bytes(folder), b"fuse", 0, options):
            faults.must_not_skip(f"mount: {os.strerror(ctypes.get_errno())}")
        yield folder
    finally:
        os.close(server)
        libc.umount2(bytes(folder), 2)  # at once, whoever still looks at it


def test_a_share_that_really_hangs_is_told_by_whoever_looks_at_it(
    layout: Layout, hung: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check, the one who sets it, a dispatcher that starts, and the doctor: each says so and returns."""
    monkeypatch.setattr(check, "PATIENCE", 0.1)
    monkeypatch.setattr(dispatch_check, "PATIENCE", 0.1)
    monkeypatch.setattr(dispatch_check, "COMMANDS", ())
    Path(layout.config_yaml).write_text(f"slurm_dir: {hung}\n")
    text = f"{hung} has not answered within 0s"
    assert faults_of(layout, here) == [(text, f"ls {hung}")]
    with pytest.raises(ConfigError, match="has not answered within"):
        check.refuse_unusable(str(hung), layout)
    with pytest.raises(SpoolError, match="has not answered within"):
        dispatch_check.check(layout, load(layout)[0], may_be_root=True)
    assert [one.fact for one in doctor.examine(layout) if one.kind == "slurm_dir"] == [text]


def test_a_probe_runs_wherever_jobs_would(layout: Layout) -> None:
    """Once for each partition with its options; where there is no such queue, in the default partition."""

    def names() -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        return [(*one,) for one in targets(Queues(layout), load(layout)[0])]

    assert names() == [("", (), ())]
    queue_file.change(layout, "here", {"limit": 1})
    for name in ("a", "b"):
        queue_file.change(layout, name, {"engine": "slurm", "partition": "gpu"})
    queue_file.change(layout, "c", {"engine": "slurm", "partition": "gpu", "options": "--qos=low"})
    gpu = [("gpu", (), ("a", "b")), ("gpu", ("--qos=low",), ("c",))]
    assert names() == gpu
    set_value(layout, "engine", "slurm")
    assert names() == [*gpu, ("", (), ("here",))]


# -- a real cluster ----------------------------------------------------------------------------------------------------


PATIENCE = pytest.mark.timeout(180)
"""Slurm answers late beside other tests."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A controller and three nodes."""
    with real_slurm.started(tmp_path_factory.mktemp("s")) as folder:
        yield folder


@PATIENCE
def test_a_probe_runs_on_a_node_and_nothing_is_left(
    cluster: Path, layout: Layout, share: Path, cli: Cli
) -> None:
    """As a person sees it, and a program; what a queue says wrong is told with the words of Slurm."""
    assert cluster.exists()
    root = os.geteuid() == 0
    done = cli("engine", "check", expect=1 if root else 0, timeout=60)
    assert re.search(r"^the default partition: probe ran on n[123] after ", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\nok\n") is not root
    assert done.stderr == (AS_ROOT if root else "")
    queue_file.change(layout, "gpu", {"engine": "slurm", "partition": "nope"})
    queue_file.change(layout, "big", {"engine": "slurm", "options": "--constraint=nope"})
    done = cli("engine", "check", "slurm", expect=1, timeout=60)
    assert done.stderr.removeprefix(AS_ROOT) == (
        "error: the default partition (queue big): sbatch refuses: Batch job submission failed: Invalid feature specification\n"
        "hint: queuectl queue show big\n"
        "error: partition nope (queue gpu): sbatch refuses: Batch job submission failed: Invalid partition name specified\n"
        "hint: queuectl queue show gpu\n"
    )
    told = json.loads(cli("engine", "check", "--json", expect=1, timeout=60).stdout)
    assert (told["ok"], len(told["faults"])) == (False, 3 if root else 2)
    assert is_clean(share)
    assert os.listdir(layout.pending) == []


@PATIENCE
def test_a_node_that_lacks_the_folder_or_python_is_told(cluster: Path, layout: Layout, share: Path) -> None:
    """Slurm accepts both, and says later that the job has failed."""
    assert cluster.exists()

    def sees_nothing(words: Sequence[str]) -> Run:
        return slurm.run([word.replace(str(share), "/nowhere") for word in words[:-2]] + list(words[-2:]))

    def has_no_python(words: Sequence[str]) -> Run:
        if words[0] == "sbatch":
            script = share / words[-2]
            script.write_text(script.read_text().replace("#!/usr/bin/python3", "#!/usr/bin/no-python"))
        return slurm.run(words)

    [(fact, hint)] = faults_of(layout, sees_nothing)
    assert re.fullmatch(
        rf"the default partition: the probe was started on n[123] and has found no {share} there \(FAILED, .+\)",
        fact,
    )
    assert re.fullmatch(rf"srun -w n[123] ls -ld {share}", hint)
    [(fact, hint)] = faults_of(layout, has_no_python)
    assert "the probe has failed on n" in fact
    assert "bad interpreter(/usr/bin/no-python -IS): No such file or directory" in fact
    assert re.fullmatch(r"srun -w n[123] /usr/bin/python3 --version", hint)
    assert is_clean(share)


@PATIENCE
def test_a_probe_that_waits_is_told_and_taken_back(cluster: Path, layout: Layout, share: Path) -> None:
    """With Slurm's own reason, as only the admin of the cluster knows what is to be done."""
    assert cluster.exists()
    state = ["scontrol", "update", "partitionname=batch"]
    subprocess.run([*state, "state=down"], check=True, timeout=30)
    told = ("the default partition: the probe has waited in slurm for 1s: PartitionDown", "sinfo -R")
    try:
        # Slurm takes its time until it says why.
        wait_until(lambda: faults_of(layout, wait=1) == [told], timeout=30)
    finally:
        subprocess.run([*state, "state=up"], check=True, timeout=30)
    assert subprocess.run(["squeue", "--me", "-h"], capture_output=True, check=True).stdout == b""
    assert is_clean(share)


@PATIENCE
def test_a_controller_that_is_away_is_told(
    cluster: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is munge, without which nothing of Slurm answers."""
    conf = (cluster / "slurm.conf").read_text().replace("MessageTimeout=10", "MessageTimeout=1")
    mine = tmp_path / "slurm.conf"
    monkeypatch.setenv("SLURM_CONF", str(mine))
    mine.write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1", conf))
    [(fact, hint)] = faults_of(layout)
    assert fact.startswith("slurm does not answer: ")
    assert "Unable to contact slurm controller (connect failure)" in fact
    assert hint == "scontrol ping"
    mine.write_text(conf.replace("munge.sock", "no.sock"))
    [(fact, hint)] = faults_of(layout)
    assert "Munge encode failed" in fact
    assert hint == "systemctl status munge"
