"""The exceptions of queuectl, as another process gets them."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

import queuectl
from queuectl import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def unpickled(error: errors.QueuectlError) -> errors.QueuectlError:
    same: errors.QueuectlError = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    return same


EXAMPLES: tuple[errors.QueuectlError, ...] = (
    errors.QueuectlError("a fact", hint="queuectl list"),
    errors.JobError("a job is wrong"),
    errors.JobNotFound("job1"),
    errors.DuplicateId("job1", "dead"),
    errors.KeyTaken("backup", "job1", "pending"),
    errors.InvalidJob("is empty", field="command", hint="queuectl check", at=(3, 14)),
    errors.UnknownField("enqueue() got an unexpected keyword argument 'prio'"),
    errors.MoveError("job 'job1' is dead", hint="queuectl show job1"),
    errors.ConfigError("unknown setting 'x'"),
    errors.Shortage("it needs 4 gpu, and there are 2", hint="queuectl config set resources gpu=4"),
    errors.WorkerError("no worker started"),
    errors.StillUnderWay("job1 has not ended", ["job1"], hint="queuectl list"),
    errors.SpoolError.from_os("read", "/spool", OSError(5, "Input/output error")),
    errors.SpoolError.from_os("write", "/spool", OSError(28, "No space left on device")),
    errors.IndexBehind("the index cannot be brought up to date: another process has the index"),
    errors.NeverStarts("no job is called typo, so this could never start", hint="queuectl list"),
    errors.NotSent("there is no sendmail here", hint="queuectl notify mail --smtp HOST …"),
    errors.NotSentNow("hooks.example.org: connection refused"),
    errors.StillNeeded("job 'a' cannot be deleted: job 'b' waits for it", hint="queuectl set b after="),
    errors.StartRefused("no process can be started: resource temporarily unavailable"),
    errors.QueuedUnsafely(["job1", "job2"], OSError(5, "Input/output error")),
)


def kinds(kind: type[errors.QueuectlError]) -> Iterator[type[errors.QueuectlError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from kinds(below)


def test_there_is_an_example_of_each_error_and_each_can_be_imported() -> None:
    """A new error is tried here, too, and a program can catch it by its public name."""
    assert {type(one) for one in EXAMPLES} == set(kinds(errors.QueuectlError))
    assert [
        kind.__name__ for kind in kinds(errors.QueuectlError) if kind.__name__ not in queuectl.__all__
    ] == []


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [unpickled, copy.copy])
def test_an_error_reaches_another_process_with_its_fields(
    error: errors.QueuectlError, again: Callable[[errors.QueuectlError], errors.QueuectlError]
) -> None:
    """`multiprocessing.Pool.map` over `enqueue` waited for ever for an error that could not be unpickled."""
    error.add_note("a note")
    error.queued = ["job0"]
    same = again(error)

    assert (type(same), str(same), same.args) == (type(error), str(error), error.args)
    assert vars(same) == vars(error)
    assert (same.exit_code, same.hint) == (error.exit_code, error.hint)
