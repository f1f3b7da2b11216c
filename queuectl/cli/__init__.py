"""The command line: arguments in, text out. `main` is the entry, and the only place that turns errors into exit codes.

Exit codes: 0 done, 1 refused or not found, 2 usage, 3 the spool or the disk, 4 no room, 70 a bug of queuectl,
130 interrupted, 141 the reader of the output went away.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from queuectl.errors import QueuectlError, SpoolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

COMPLETE_VAR = "_QUEUECTL_COMPLETE"
_BUG, _INTERRUPTED, _NO_READER = 70, 130, 141


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the words after the program's name; None takes them from sys.argv.

    Returns:
        the exit code.
    """
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not cost the command its work.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _guarded(lambda: _run(words))
    return _guarded(_flush) or code


def _run(words: list[str]) -> int:
    instruction = os.environ.get(COMPLETE_VAR)
    if not instruction:
        from queuectl.cli import fast_path

        if fast_path.enqueue(words):
            return 0
    from queuectl.cli.base import Session
    from queuectl.cli.root import root

    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": Session()}, "queuectl", COMPLETE_VAR, instruction)
    with root.make_context("queuectl", words, obj=Session()) as ctx:
        code = root.invoke(ctx)
    return code if isinstance(code, int) else 0


def _flush() -> int:
    """Write out what is buffered while an error can still be told; at exit Python would only grumble."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return 0


def _forget_output() -> None:
    """Point stdout at nothing, so that the flush at exit cannot fail a second time."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _guarded(do: Callable[[], int]) -> int:
    """Do it, and turn what goes wrong into words and an exit code."""
    try:
        return do()
    except QueuectlError as error:
        _tell(str(error), error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _tell("interrupted", None)
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return _NO_READER
    except OSError as error:
        # The spool's own accidents come worded; what has no name is the stream that we print to.
        if error.filename is None:
            _forget_output()
        doing, what = ("use", error.filename) if error.filename else ("write", "the output")
        known = SpoolError.from_os(doing, what, error)
        _tell(str(known), None)
        return known.exit_code
    except Exception as error:
        code = _click_code(error)
        if code is not None:
            return code
        import traceback

        traceback.print_exc()
        _tell("this is a bug in queuectl; the lines above tell where", None)
        return _BUG


def _click_code(error: Exception) -> int | None:
    """Tell an error of click's and return its exit code; None if it is none. Not imported only to find that out."""
    if "click" not in sys.modules:
        return None
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        _tell(*_usage_words(error))
        return error.exit_code
    return None


def _usage_words(error: click.ClickException) -> tuple[str, str | None]:
    """Word a usage error as ours are: no capital, no full stop, and the help page as the hint."""
    text = " ".join(error.format_message().split())
    if text[:1].isupper() and not text[1:2].isupper():
        text = text[0].lower() + text[1:]
    hint: str | None = getattr(error, "hint", None)
    ctx = getattr(error, "ctx", None)
    if hint is None and ctx is not None:
        hint = f"{ctx.command_path} --help"
    return text.rstrip("."), hint


def _tell(message: str, hint: str | None) -> None:
    from queuectl.cli import render

    with suppress(OSError):
        render.note(f"error: {render.clip(message)}")
        if hint:
            render.note(f"hint: {render.clip(hint)}")
