"""What jobs want of a node: said once, checked, and the same for all that share a pack."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.engine.base import Shape
from queuectl.engine.wishes import Candidate, minutes, pack_size, packs, shape

PLAIN = Shape()


def test_needs_say_what_a_job_wants() -> None:
    """As on this machine: processors, GPUs, gigabytes."""
    assert shape({}) == PLAIN
    assert shape({"cpu": 4, "memory": 16, "gpu": 2}, "gpu", ["--qos=low"]) == Shape(
        4, 16384, "2", "gpu", ("--qos=low",)
    )


@pytest.mark.parametrize(
    ("needs", "more", "reason"),
    [
        ({"cpu": 1025}, (), "cpu must be 1 to 1024, not 1025"),
        ({"gpu": 65}, (), "gpu must be 1 to 64, not 65"),
        ({"memory": 0}, (), "memory must be 1 to 1048576, not 0"),
        ({"licence": 1}, (), "licence is not one of cpu, gpu, memory, which jobs on a cluster can need"),
        (
            {"gpu": 1},
            ("--gres=gpu:a100:1",),
            "gpu and the option --gres of its queue cannot be used together",
        ),
    ],
)
def test_what_a_cluster_does_not_have_is_refused(
    needs: dict[str, int], more: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        shape(needs, "", more)


@pytest.mark.parametrize(
    ("timeouts", "found"), [([60], 4), ([60] * 10, 13), ([1], 3), ([0.5, 3600], 63), ([0], 0), ([60, 0], 0)]
)
def test_slurms_limit_of_time_is_a_backstop(timeouts: list[float], found: int) -> None:
    """All time limits, the time to end each, and two minutes, upwards; none if a job has none."""
    assert minutes(timeouts, 5) == found
    assert found == 0 or found * 60 >= sum(timeouts) + 5 * len(timeouts) + 120


@pytest.mark.parametrize(
    ("ready", "slots", "size"),
    [(3, 48, 1), (48, 48, 1), (49, 48, 2), (600, 48, 13), (100_000, 48, 100), (5, 0, 5)],
)
def test_packs_are_so_large_that_all_slots_have_work(ready: int, slots: int, size: int) -> None:
    """Trap 12: the last jobs of a large pack would wait behind slow ones while processors idle."""
    assert pack_size(ready, slots, 100) == size


def test_only_short_jobs_of_one_shape_share_a_pack() -> None:
    """A long job would hold up those behind it; one that must not run twice must not be lost with others."""
    wide = Shape(cpus=4)
    jobs = [
        Candidate(0, PLAIN, 10), Candidate(1, wide, 10), Candidate(2, PLAIN, 60), Candidate(3, PLAIN, 61),
        Candidate(4, PLAIN, 0), Candidate(5, PLAIN, 10, alone=True), Candidate(6, PLAIN, 10),
    ]  # fmt: skip
    found = [[one.number for one in pack] for pack in packs(jobs, slots=1, most=100, short=60)]
    assert found == [[0, 2, 6], [1], [3], [4], [5]]


@given(
    st.lists(
        st.tuples(st.sampled_from([PLAIN, Shape(cpus=2)]), st.sampled_from([0, 5, 60, 61]), st.booleans()),
        max_size=40,
    ),
    st.integers(0, 9),
    st.integers(1, 9),
)
def test_each_job_is_in_one_pack_and_the_first_is_first(
    jobs: list[tuple[Shape, int, bool]], slots: int, most: int
) -> None:
    candidates = [
        Candidate(number, wants, timeout, alone) for number, (wants, timeout, alone) in enumerate(jobs)
    ]
    made = packs(candidates, slots=slots, most=most, short=60)
    assert sorted(one.number for pack in made for one in pack) == list(range(len(jobs)))
    assert all(len(pack) <= most and len({one.shape for one in pack}) == 1 for pack in made)
    assert all(pack == sorted(pack, key=lambda one: one.number) for pack in made)
    assert [pack[0].number for pack in made] == sorted(pack[0].number for pack in made)
    assert all(len(pack) == 1 for pack in made if any(one.alone or one.timeout in (0, 61) for one in pack))
