"""What a notification says that a rule about jobs sends."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from rules.test_hooks import write_rule

from queuectl import Spool
from queuectl.notify.message import compose

from support import drain, drop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

ENVIRONMENT = 'env -0 | grep -az ^QUEUECTL_ > environment; cp "${QUEUECTL_AFTER:-/dev/null}" after; :'


def heard(spool_dir: Path) -> dict[str, str]:
    """The variables of the hook that ran last."""
    folder = spool_dir.parent
    words = (folder / "environment").read_text().rstrip("\0").split("\0")
    found = dict(word.split("=", 1) for word in words)
    return found | ({"QUEUECTL_AFTER": str(folder / "after")} if "QUEUECTL_AFTER" in found else {})


@pytest.mark.parametrize(
    ("when", "subject"),
    [
        ("{job: dead}", "bad is dead: Exit code 1"),
        ("{job: recovered}", "late has recovered"),
        ("{job: empty}", "nothing of the spool is left to run"),
    ],
)
def test_the_subject_says_what_has_happened(spool_dir: Path, when: str, subject: str) -> None:
    write_rule(spool_dir, "alarm", when, command=ENVIRONMENT)
    drop(spool_dir, "bad", command="exit 1", max_retries=1)
    late = "test -e once || { : > once; exit 1; }"
    drop(spool_dir, "late", command=late, max_retries=2, max_backoff=0.01, cwd=str(spool_dir.parent))
    drain(spool_dir, wait_retries=True)

    message = compose(Spool(spool_dir), [], heard(spool_dir))
    assert message.subject.endswith(f"] {subject}")
    assert message.text.startswith(f"Spool      {spool_dir} on ")
    assert json.dumps(message.as_json())


def test_a_digest_names_all_of_them_and_the_period(spool_dir: Path) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h, at_least: 2}", command=ENVIRONMENT)
    for name in ("a", "b"):
        drop(spool_dir, name, command="exit 1", max_retries=1)
    drain(spool_dir)

    message = compose(Spool(spool_dir), [], heard(spool_dir))
    assert message.subject.endswith("] 2 jobs are dead")
    assert "\nPeriod     " in message.text
    assert "retry a b\n" in message.text


def test_a_trial_of_a_rule_is_told_as_one(spool_dir: Path) -> None:
    """It has waited for no job. It must not look like an alarm, nor like one about no job at all."""
    write_rule(spool_dir, "alarm", "{job: empty}", command=ENVIRONMENT)
    spool = Spool(spool_dir)
    spool.run_rule("alarm")
    drain(spool_dir)

    assert compose(spool, [], heard(spool_dir)).subject.endswith("] this is a trial")
