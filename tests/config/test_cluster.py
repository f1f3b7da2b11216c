"""What may be said about a cluster: options that harm nothing, folders that can be shared, needs that a node can have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.config import cluster, queue_file, settings
from queuectl.config.change import set_value
from queuectl.config.cluster import ALLOWED, MOST_OPTIONS, refuse_needs
from queuectl.config.queues import Queues, engine_of
from queuectl.config.settings import JobDefaults, Settings
from queuectl.errors import ConfigError, InvalidJob
from queuectl.layout import Layout
from queuectl.storage.queue_state import QueueView

from support import drop

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("value", ["gpu", "gpu,batch", "a.b-c_1"])
def test_partitions_are_names(value: str) -> None:
    assert cluster.partition(value) == value


@pytest.mark.parametrize("value", ["", "a b", "a;rm", "a,", ",a", "a\n", "ä", 3, None, ["a"]])
def test_what_is_no_partition_is_refused(value: object) -> None:
    """It would stand on a command line."""
    with pytest.raises(ValueError, match="must be names of partitions"):
        cluster.partition(value)


@pytest.mark.parametrize("name", ALLOWED)
def test_options_that_harm_nothing_are_passed_on(name: str) -> None:
    assert cluster.options([f"--{name}=x y", f"--{name}"]) == [f"--{name}=x y", f"--{name}"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "must be options like"),
        ("'", "has a quote without its end"),
        ({"--qos": "x"}, "must be options like"),
        (["qos=x"], "is not an option like"),
        (["-q x"], "is not an option like"),
        ([3], "must be a list of texts"),
        (["--wrap=id"], "--wrap.* is not one of --account, --qos, "),
        (["--array=1-9"], "is not one of"),
        (["--requeue"], "is not one of"),
        (["--output=/etc/x"], "is not one of"),
        (["--export=NONE"], "is not one of"),
        (["--time=1"], "is not one of"),
        (["--"], "is not one of"),
        (["--qos=a\nb"], "has a control character"),
    ],
)
def test_options_of_the_dispatcher_are_refused(value: Any, reason: str) -> None:
    """Names, output, time, arrays, requeueing: with another value it would lose its jobs, or run them twice."""
    with pytest.raises(ValueError, match=reason):
        cluster.options(value)


def test_options_are_typed_as_in_a_shell() -> None:
    """In a file they may be a list, so that a value with a space needs no second kind of quotes."""
    words = ["--account=lab", "--nodelist=n[1-3],n5", "--comment=two words"]
    assert cluster.options("--account=lab --nodelist=n[1-3],n5 '--comment=two words'") == words


def test_the_first_options_of_a_long_list_are_not_passed_on() -> None:
    """YAML with references can hold a list of millions."""
    assert cluster.options(["--exclusive"] * MOST_OPTIONS)
    with pytest.raises(ValueError, match="must be at most 32 options, not 33"):
        cluster.options(["--exclusive"] * (MOST_OPTIONS + 1))


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        ("engine", "cloud", "must be local or slurm, not 'cloud'"),
        (
            "slurm_dir",
            "relative/path",
            "must be an absolute path, the same on all nodes, not 'relative/path'",
        ),
        ("slurm_dir", "~/here", "must be an absolute path, the same on all nodes"),
        ("slurm_dir", "/a\nb", "must be an absolute path"),
        ("slurm_jobs", "0", "must be 1 to 100000, not 0"),
        ("slurm_jobs", "100001", "must be 1 to 100000"),
        ("slurm_pack", "0", "must be 1 to 1000, not 0"),
        ("slurm_pack", "1.5", "must be a whole number"),
        ("slurm_fence", "5s", "must be at least 30s, not '5s'"),
        ("slurm_short", "soon", "is not a duration"),
        ("slurm_options", "--wrap=id", "'--wrap' is not one of --account, --qos, "),
        ("slurm_options", "qos=low", "'qos=low' is not an option like --account=lab"),
        ("slurm_options", "--comment='a", "has a quote without its end"),
        ("slurm_options", "''", "'' is not an option like"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_name(
    layout: Layout, key: str, text: str, reason: str
) -> None:
    """When it is typed, and when it is found in the file; nothing is written."""
    with pytest.raises(ConfigError, match=f"^{key}: .*{re.escape(reason)}"):
        set_value(layout, key, text)
    assert not Path(layout.config_yaml).exists()


def test_a_setting_that_cannot_be_is_found_in_the_file(layout: Layout) -> None:
    Path(layout.config_yaml).write_text("timeout: 5\nslurm_options: [--array=1-9]\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2: slurm_options: '--array' is not one of"):
        settings.load(layout)


def test_the_shared_folder_is_not_the_spool(layout: Layout) -> None:
    """What nodes write there would be taken for jobs."""
    with pytest.raises(ConfigError, match="slurm_dir: must be outside of the spool"):
        set_value(layout, "slurm_dir", f"{layout.root}/pending")


def test_settings_of_a_cluster_are_written_and_read(layout: Layout) -> None:
    for key, text in (
        *(("engine", "slurm"), ("slurm_dir", "/shared/q"), ("slurm_jobs", "7"), ("slurm_pack", "1")),
        *(("slurm_short", "2m"), ("slurm_fence", "30s"), ("slurm_options", "--account=lab '--comment=a b'")),
    ):
        set_value(layout, key, text)
    found = settings.load(layout)[0]
    assert (found.engine, found.slurm_dir, found.slurm_jobs, found.slurm_pack) == ("slurm", "/shared/q", 7, 1)
    assert (found.slurm_short, found.slurm_fence) == (120, 30)
    assert found.slurm_options == ["--account=lab", "--comment=a b"]


def test_the_file_of_a_queue_says_where_its_jobs_run(layout: Layout) -> None:
    """A queue without the key is where the settings say."""
    Path(layout.queue_file("train")).write_text(
        "engine: slurm\npartition: gpu,batch\noptions: [--account=lab]\n"
    )
    Path(layout.queue_file("here")).write_text("engine: local\n")
    found = queue_file.load(layout, "train")
    assert (found.engine, found.partition, found.options) == ("slurm", "gpu,batch", ["--account=lab"])
    queues = Queues(layout)
    for engine in ("local", "slurm"):
        spool = Settings(engine=engine)
        assert [engine_of(name, queues, spool) for name in ("train", "here", "other")] == [
            *("slurm", "local"),
            engine,
        ]
        defaults = JobDefaults(layout, spool)
        assert [defaults.of(name).engine for name in ("train", "here", None)] == ["slurm", "local", engine]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engine: cloud", "engine: must be local or slurm, not 'cloud'"),
        ("engin: slurm", "unknown key 'engin'; did you mean engine?"),
        ("partition: a b", "partition: must be names of partitions, with commas between them, not 'a b'"),
        ("partition: 'a;rm'", "partition: must be names of partitions"),
        ("partition: ''", "partition: must be names of partitions"),
        ("options: [qos=x]", "options: 'qos=x' is not an option like --account=lab"),
        ("options: [--wrap=id]", "options: '--wrap' is not one of --account, --qos"),
        ('options: ["--qos=a\\nb"]', "options: the value of --qos has a control character"),
        ("options: [[--qos=a]]", "options: must be a list of texts like"),
    ],
)
def test_a_file_of_a_queue_that_is_wrong_is_refused_with_its_line(
    layout: Layout, text: str, told: str
) -> None:
    """A mistyped key is an error: its jobs would run on another machine than is meant."""
    Path(layout.queue_file("train")).write_text(f"limit: 2\n{text}\n")
    with pytest.raises(ConfigError, match=re.escape(f"train.yaml, line 2: {told}")):
        queue_file.load(layout, "train")


def test_queue_set_and_show_know_where_jobs_run(spool_dir: Path, cli: Cli) -> None:
    """What is printed can be given to `queue set` again."""
    words = ("engine=slurm", "partition=gpu", "options=--account=lab '--comment=a b'")
    done = cli("queue", "set", "train", "limit=2", *words, expect=0)
    assert done.stdout == (
        "train: limit=2 engine=slurm partition=gpu options='--account=lab '\"'\"'--comment=a b'\"'\"''\n"
    )
    assert queue_file.load(Layout(spool_dir), "train").options == ["--account=lab", "--comment=a b"]
    shown = cli("queue", "show", "train", expect=0).stdout
    assert re.search(
        r"^engine: +slurm\npartition: +gpu\noptions: +--account=lab '--comment=a b'$", shown, re.MULTILINE
    )
    one = Spool(spool_dir).queue("train")
    assert (one.engine, one.placement["partition"]) == ("slurm", "gpu")
    assert (
        cli("queue", "unset", "train", "options", "partition", expect=0).stdout
        == "train: limit=2 engine=slurm\n"
    )
    assert "must be local or slurm" in cli("queue", "set", "train", "engine=cloud", expect=2).stderr


@pytest.mark.parametrize(
    ("needs", "more", "reason"),
    [
        ({"gpu": 65}, [], "gpu must be 1 to 64, not 65"),
        ({"licence": 1}, [], "licence is not one of cpu, gpu, memory"),
        ({"gpu": 1}, ["--gres=gpu:a100:1"], "gpu and the option --gres of its queue"),
    ],
)
def test_enqueue_refuses_what_a_cluster_cannot_give(
    layout: Layout, needs: dict[str, int], more: list[str], reason: str
) -> None:
    """It would wait for ever, and nobody would know why."""
    set_value(layout, "slurm_dir", "/shared/q")
    queue_file.change(layout, "train", {"engine": "slurm", "options": more or None})
    with pytest.raises(InvalidJob, match=re.escape(f"needs: {reason}")):
        Spool(layout.root).enqueue("true", queue="train", needs=needs)
    assert list(Path(layout.pending).iterdir()) == []


def test_enqueue_asks_for_more_than_this_machine_has(layout: Layout) -> None:
    """The setting `resources` is that of this machine. A job of a cluster is not held to it, one of another queue is."""
    set_value(layout, "slurm_dir", "/shared/q")
    queue_file.change(layout, "train", {"engine": "slurm"})
    spool = Spool(layout.root)
    needs = {"cpu": 64, "memory": 512, "gpu": 8}
    many = [{"command": "true", "queue": "train", "needs": needs}] * 30
    assert len(spool.enqueue_many(many)) == 30
    with pytest.raises(ConfigError, match="no resource is called cpu"):
        spool.enqueue("true", needs=needs)
    view = QueueView(layout, spool._index, spool.settings())
    assert view.shortages() == {}
    assert (view.one("train").engine, view.one("default").engine) == ("slurm", "local")


def test_status_tells_of_dropped_jobs_that_a_cluster_cannot_run(layout: Layout, cli: Cli) -> None:
    set_value(layout, "slurm_dir", "/shared/q")
    queue_file.change(layout, "train", {"engine": "slurm"})
    drop(Path(layout.root), "a", command="true", queue="train", needs={"licence": 1})
    told = cli("status", expect=0)
    assert "1 job waits for more than there is: licence is not one of cpu, gpu, memory" in (
        told.stdout + told.stderr
    )


def test_enqueue_for_a_cluster_that_is_not_set_up_is_refused(spool_dir: Path, cli: Cli) -> None:
    """One line of fact, one hint; and nothing is queued."""
    cli("queue", "set", "train", "engine=slurm", expect=0)
    for words in (
        ("enqueue", "--queue", "train", "true"),
        ("enqueue", "--queue", "train", "--", "true", "x"),
    ):
        done = cli(*words, expect=1)
        assert done.stderr == (
            "error: jobs of queue train run on slurm, and the setting slurm_dir is unset\n"
            "hint: queuectl config set slurm_dir /shared/queuectl\n"
        )
    cli("enqueue", "true", expect=0)
    cli("config", "set", "engine", "slurm", expect=0)
    assert "jobs of this queue run on slurm" in cli("enqueue", "true", expect=1).stderr
    assert len(list((spool_dir / "pending").iterdir())) == 1


def test_needs_of_a_job_on_a_cluster() -> None:
    refuse_needs({"cpu": 4, "gpu": 2, "memory": 64}, ["--qos=low"])
    refuse_needs({"cpu": 4}, ["--gres=gpu:a100:1"])
    for needs in ({"cpu": 0}, {"cpu": 1025}, {"memory": 0}, {"disk": 1}):
        with pytest.raises(ValueError, match=r"must be 1 to|is not one of cpu, gpu, memory"):
            refuse_needs(needs)
