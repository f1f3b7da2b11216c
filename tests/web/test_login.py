"""A link works once and for ten minutes; a session ends; and no secret is kept where somebody could read it."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from asgi import Browser

from queuectl import Spool
from queuectl.web import sessions
from queuectl.web.options import Options
from queuectl.web.sessions import Links, Sessions

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_works_once(tmp_path: Path) -> None:
    """And a text that is no link never does; the file of a link does not tell it, and only its owner reads it."""
    links = Links(str(tmp_path))
    token = links.make()
    [path] = tmp_path.iterdir()

    assert token not in path.name
    assert path.stat().st_size == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(
        map(
            links.spend,
            ["", "x", path.name, path.name.removeprefix("login."), "../lock", "x" * 5000, "\udcff"],
        )
    )
    assert [links.spend(token), links.spend(token)] == [True, False]
    assert list(tmp_path.iterdir()) == []


def test_of_two_who_use_a_link_at_once_one_gets_in(tmp_path: Path) -> None:
    """In two threads of the server."""
    links = Links(str(tmp_path))
    for _ in range(20):
        token = links.make()
        won: list[bool] = []
        both = [
            threading.Thread(target=lambda token=token, won=won: won.append(links.spend(token)))
            for _ in range(4)
        ]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert sorted(won) == [False, False, False, True]


@pytest.mark.parametrize(("seconds", "works"), [(0, True), (599, True), (601, False), (-3600, False)])
def test_a_link_works_for_ten_minutes(tmp_path: Path, seconds: int, works: bool) -> None:
    """Also if the clock was set back. What is too old is deleted when the next one is made."""
    now = 1_795_003_200.0
    links = Links(str(tmp_path), lambda: now)
    token = links.make()
    now += seconds

    assert links.spend(token) is works
    links.make()
    now += 601
    links.make()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_of_somebody_else_is_none(tmp_path: Path) -> None:
    """A folder of its name, or a symbolic link, was not made by us."""
    links = Links(str(tmp_path))
    (tmp_path / "there").write_text("", encoding="utf-8")
    (tmp_path / f"login.{sessions.digest('a')}").symlink_to(tmp_path / "there")
    (tmp_path / f"login.{sessions.digest('b')}").mkdir()

    assert not links.spend("a")
    assert not links.spend("b")


def test_sessions_end_unused_after_hours_and_in_any_case_after_days() -> None:
    """A cookie that was left in a browser is worth nothing next week."""
    now = 0.0
    known = Sessions(lambda: now)
    cookie = known.begin()
    for _ in range(14):
        now += sessions.UNUSED - 1
        found = known.find([cookie])
        assert (found is not None) is (now <= sessions.LONGEST)

    other = known.begin()
    now += sessions.UNUSED + 1
    assert known.find([other]) is None
    assert known.find(["", "x", cookie]) is None


def test_sessions_are_kept_as_digests_and_not_without_number() -> None:
    """Whoever reads the memory of the server cannot go on as somebody; whoever logs in often fills it not."""
    known = Sessions(lambda: 1.0)
    cookies = [known.begin() for _ in range(sessions.MOST_SESSIONS + 5)]

    assert len(known._known) == sessions.MOST_SESSIONS
    assert not set(cookies) & set(known._known)
    assert known.find(cookies[-1:]) is not None


def test_login_sets_a_strict_cookie_and_goes_on_by_a_refresh(spool_dir: Path) -> None:
    """A redirect would lose a strict cookie if the link was opened from a file or another program."""
    Spool(spool_dir).enqueue("true")
    browser = Browser(spool_dir)
    token = browser.site.links.make()
    answer = browser.get(f"/login?token={token}")

    assert answer.status == 200
    assert 'http-equiv="refresh" content="0;url=/"' in answer.text
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert token not in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"
    again = browser.get(f"/login?token={token}")
    assert (again.status, "set-cookie" in again.headers) == (401, False)
    assert "queuectl web --url" in again.text


def test_who_guesses_waits(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each wrong link."""
    Spool(spool_dir).enqueue("true")
    browser = Browser(spool_dir)
    browser.site.login_pause = 1.0
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("queuectl.web.call._pause", wait)

    assert browser.get("/login?token=x").status == 401
    assert browser.get("/login?token=x&token=y").status == 401
    assert waited == [1.0, 1.0]


def test_logging_out_ends_the_session_and_no_other(spool_dir: Path) -> None:
    """In the server, and not only in the browser."""
    Spool(spool_dir).enqueue("true")
    browser = Browser(spool_dir).login()
    other = Browser(spool_dir, site=browser.site).login()

    assert browser.post("/logout").status == 200
    assert browser.get("/").status == 401
    assert other.get("/").status == 200


def test_a_redirect_file_goes_when_its_link_is_used(spool_dir: Path) -> None:
    """It holds the token."""
    Spool(spool_dir).enqueue("true")
    browser = Browser(spool_dir)
    (spool_dir / "data" / "web" / "open-1.html").write_text("token", encoding="utf-8")

    browser.login()

    assert [
        name for name in os.listdir(spool_dir / "data" / "web") if name.startswith(("open", "login"))
    ] == []


def behind_proxy(spool_dir: Path) -> Browser:
    options = Options(
        socket="/s", user_header="x-user", allow=frozenset({"ann"}), allow_read=frozenset({"bob"})
    )
    return Browser(spool_dir, options)


def test_a_proxy_names_the_user(spool_dir: Path) -> None:
    """Who is listed may act, who is listed as a reader may look, nobody else gets in, and a link is no way round."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    browser = behind_proxy(spool_dir)

    assert (
        browser.get("/").status
        == browser.get("/", x_user="eve").status
        == browser.get("/", x_user="").status
        == 403
    )
    assert browser.get("/", x_user="ann, eve").status == 403
    assert browser.ask("GET", "/", [("x-user", "ann"), ("x-user", "eve")]).status == 400
    assert browser.get(f"/login?token={browser.site.links.make()}").status == 401
    page = browser.get("/job/a", x_user="ann").text
    assert "ann</span>" in page
    token = browser.site.form_token_of("ann")
    assert token in page
    kind = [("content-type", "application/x-www-form-urlencoded"), ("origin", "http://127.0.0.1:8484")]
    for user, its_token, status in (
        ("bob", browser.site.form_token_of("bob"), 403),
        ("ann", "x", 403),
        ("ann", token, 303),
    ):
        answer = browser.ask("POST", "/job/a/hold", [*kind, ("x-user", user)], f"token={its_token}".encode())
        assert answer.status == status
    assert spool.row("a").held
    assert 'action="/job' not in browser.get("/job/a", x_user="bob").text
    assert " ann hold a\n" in (spool_dir / "data" / "web" / "actions.log").read_text(encoding="utf-8")


def test_the_header_of_a_proxy_is_refused_on_a_port(spool_dir: Path) -> None:
    """There anybody could write it."""
    Spool(spool_dir).enqueue("true")
    options = Options(user_header="x-user", allow=frozenset({"ann"}))

    assert Browser(spool_dir, options).get("/", x_user="ann").status == 400


def test_a_spool_that_others_can_change_is_not_shown(spool_dir: Path) -> None:
    """What is on the page could be theirs, and what is typed could run for them."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    browser = Browser(spool_dir).login()
    browser.site.refused = "the spool can be written by others"

    assert browser.get("/").status == browser.post("/job/a/hold").status == 503
    assert "can be written by others" in browser.get("/").text
    browser.site.refused = None
    assert browser.get("/").status == 200


def test_no_secret_is_on_the_disk(spool_dir: Path) -> None:
    """Neither the cookie nor the token of a form nor a link."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir)
    link = browser.site.links.make()
    browser.login()
    browser.post("/job/a/hold")
    secrets = [link, browser.cookie.partition("=")[2], browser.token]
    for path in (spool_dir / "data" / "web").iterdir():
        kept = path.name + path.read_text(encoding="utf-8")
        assert not [secret for secret in secrets if secret in kept]
