"""What a list shows is in its address, there and back, whatever was typed."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.web import query
from queuectl.web.query import BadQuery

WORDS = st.text("abcZ09_-", min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["pending", "dead", "completed", "failed", "processing"]),
        "tag": WORDS,
        "queue": WORDS,
        "command": TEXTS,
        "reason": TEXTS,
        "worker": TEXTS,
        "engine": st.sampled_from(["local", "slurm", "local slurm"]),
        "exit": st.integers(-(10**6), 10**6).map(str),
        "held": st.sampled_from(["yes", "no"]),
        "sort": st.sampled_from(sorted(query.SORTS)),
        "since": st.sampled_from(["1d", "2h", "yesterday", "2026-01-01"]),
    },
)


@settings(max_examples=50)
@given(GIVEN)
def test_an_address_says_the_same_there_and_back(fields: dict[str, str]) -> None:
    """No filter is lost on the way, and none comes in."""
    view = query.read(fields.items())
    again = query.read(parse_qsl(view.but()))

    assert again.given == view.given == fields
    assert {name for name in fields if name not in {"sort", "since"}} == {
        name for name, is_set in (
            ("state", view.where.states), ("tag", view.where.tags), ("queue", view.where.queues), ("command", view.where.command),
            ("reason", view.where.reason), ("worker", view.where.worker), ("engine", view.where.engines), ("exit", view.where.exit_codes), ("held", view.where.held is not None),
        ) if is_set
    }  # fmt: skip


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([*query._NAMES, *query.PLACES, "x"]), st.text(max_size=12)), max_size=4
    )
)
def test_whatever_comes_is_read_or_refused_in_words(pairs: list[tuple[str, str]]) -> None:
    """Never an error of ours."""
    with contextlib.suppress(BadQuery):
        view = query.read(pairs)
        assert query.read(parse_qsl(view.but())).given == view.given


def test_links_change_one_thing_and_begin_anew() -> None:
    """A click on a tag in the third part of a list goes to the first part of what has this tag."""
    view = query.read([("state", "dead"), ("after", "17")])

    assert view.but(tag="x") == "state=dead&tag=x"
    assert view.but(state=None) == ""


def test_a_list_of_one_state_has_no_others() -> None:
    """The dead jobs are not those that wait."""
    with pytest.raises(BadQuery, match="this list has no pending jobs"):
        query.read([("state", "pending")], states=("dead",))
