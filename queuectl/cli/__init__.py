"""The command line: arguments in, text out. `main` is the entry point, and turns errors into exit codes.

Exit codes: 0 done, 1 refused or not found, 2 what was typed is wrong, 3 an error of the spool or the disk, 4 no space on the disk,
70 a bug in queuectl, 130 interrupted, 141 the reader of the output has closed it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from queuectl.cli import lost_output
from queuectl.errors import ConfigError, JobNotFound, QueuectlError, SpoolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

COMPLETE_VAR = "_QUEUECTL_COMPLETE"
_FEWEST_FILES = 16
"""With a smaller limit of open files, a command could not finish what it has begun."""

_BUG, _INTERRUPTED, _NO_READER = 70, 130, 141


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the words after the program's name. None: from sys.argv.

    Returns:
        the exit code.
    """
    lost_output.reset()
    if args is None:
        _use_utf8()
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        # Without this, a character that the terminal cannot show would abort the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _guarded(lambda: _run(words))
    code = _guarded(_flush) or code
    _guarded(_say_what_was_done)
    if code == _INTERRUPTED:
        _forget_interrupt()
    return code


def _forget_interrupt() -> None:
    """Let `python -m queuectl` end with our exit code, and not die of SIGINT once more.

    Python notes that a Ctrl+C ended an `exec` of text, as dataclasses and namedtuple use it, also when the error is
    caught later. Its end looks at that note. The next text that runs clears it (run_eval_code_obj in pythonrun.c).
    """
    exec("")  # noqa: S102 - nothing is run


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding.

    Job files are UTF-8. In another encoding, Python would hand other bytes to a command than its file holds, or refuse
    characters that the encoding lacks.
    """
    words, python = sys.orig_argv, sys.executable
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or getattr(sys, "frozen", False):
        return
    if os.name == "posix" and python and words:
        os.execv(python, [python, "-X", "utf8", *words[1:]])


def _run(words: list[str]) -> int:
    if hasattr(os, "sysconf") and 0 <= os.sysconf("SC_OPEN_MAX") < _FEWEST_FILES:
        from queuectl.system import open_files

        open_files.require(_FEWEST_FILES)
    instruction = os.environ.get(COMPLETE_VAR)
    from queuectl.cli import fast_path

    if not instruction and (code := fast_path.run(words)) is not None:
        return code
    from queuectl.cli.base import Session
    from queuectl.cli.root import root

    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": Session()}, "queuectl", COMPLETE_VAR, instruction)
    session = Session()
    with root.make_context("queuectl", words, obj=session) as ctx:
        try:
            told = root.invoke(ctx)
        except JobNotFound:
            session.tell_if_new()
            raise
    if not {"-q", "--quiet"} & {*words}:
        session.tell_if_new()
    if session.settings_fault:
        raise ConfigError(session.settings_fault, hint=fast_path.FAULT_HINT)
    return told if isinstance(told, int) else 0


def _flush() -> int:
    """Write buffered output now, while an error can be reported properly. At exit Python would print a traceback."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            lost_output.lose_output(error)
    return 0


def _say_what_was_done() -> int:
    text = lost_output.summary()
    if text:
        from queuectl.cli import render

        render.note(text)
    return 0


def _guarded(do: Callable[[], int]) -> int:
    """Call `do`; print any error in one line, and return its exit code."""
    try:
        return do()
    except QueuectlError as error:
        _print_error(str(error), error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _print_error("interrupted", None)
        return _INTERRUPTED
    except BrokenPipeError:
        lost_output.forget(sys.stdout)
        return _NO_READER
    except OSError as error:
        # Errors of the spool are SpoolErrors. An OSError without a file name comes from writing the output.
        if error.filename is None:
            lost_output.forget(sys.stdout)
        verb, target = ("use", error.filename) if error.filename else ("write", "the output")
        known = SpoolError.from_os(verb, target, error)
        _print_error(str(known), None)
        return known.exit_code
    except Exception as error:
        code = _click_code(error)
        if code is not None:
            return code
        import traceback

        traceback.print_exc()
        _print_error("this is a bug in queuectl; the lines above say where", None)
        return _BUG


def _click_code(error: Exception) -> int | None:
    """Print an error of click and return its exit code; None for any other error. It does not import click."""
    if "click" not in sys.modules:
        return None
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        _print_error(*_usage_text(error))
        return error.exit_code
    return None


def _usage_text(error: click.ClickException) -> tuple[str, str | None]:
    """A usage error in our style: no capital, no full stop, and the help page as the hint."""
    text = " ".join(error.format_message().split())
    if text[:1].isupper() and not text[1:2].isupper():
        text = text[0].lower() + text[1:]
    hint: str | None = getattr(error, "hint", None)
    ctx = getattr(error, "ctx", None)
    if hint is None and ctx is not None:
        hint = f"{ctx.command_path} --help"
    return text.rstrip("."), hint


def _print_error(message: str, hint: str | None) -> None:
    try:
        from queuectl.cli import render
    except OSError:  # no file can be opened, not even that of a module
        if sys.stderr is not None:
            print(f"error: {ascii(message)[1:-1]}", file=sys.stderr)
        return
    with suppress(OSError):
        render.note(f"error: {render.clip(message)}")
        if hint:
            render.note(f"hint: {render.clip(hint)}")
