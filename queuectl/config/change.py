"""Changing the files of settings: one value of `config.yaml`, or some of another file, and nothing else in them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from queuectl.config import file
from queuectl.config.keys import KEYS, TEXTS, as_text, is_unset, mistyped, normalise
from queuectl.errors import SpoolError
from queuectl.system import files
from queuectl.system.locks import held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.layout import Layout

_LOCK_TIMEOUT = 30.0  # seconds
_UNIT_TEXT = r"[0-9]+(?:\.[0-9]+)?(?:ms|[smhdw]|[kmg](?:i?b)?)"


def set_value(layout: Layout, key: str, text: str) -> Any:
    """Change one setting in the spool's file; comments and the order of lines are kept.

    Args:
        text: the value as entered: 5, 0.5, 30s, 10M.

    Returns:
        the converted value.

    Raises:
        ConfigError: an unknown key, a bad value, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    known = KEYS[normalise(key)]
    if is_unset(known, text):
        unset_value(layout, key)
        return None
    try:
        typed = text.strip() if known.check in TEXTS else typed_value(text)
        value = known.check(typed)
        if known.name in ("incoming", "slurm_dir") and layout.contains(value):
            raise ValueError(f"must be outside of the spool {layout.root}, where nobody else may write")
    except ValueError as error:
        raise mistyped(f"{known.name}: {error}") from None
    _change(layout, {known.name: as_written(typed, value)})
    return value


def as_written(typed: object, value: Any) -> object:
    """Return a value as it is written into a file: with its unit, like 30s, if it was entered so."""
    if isinstance(typed, str) and re.fullmatch(_UNIT_TEXT, typed, re.ASCII | re.IGNORECASE):
        return typed
    return as_text(value) if isinstance(value, dict) else value


def unset_value(layout: Layout, key: str) -> None:
    """Remove one setting from the file, so that the built-in value applies again.

    Raises:
        ConfigError: an unknown key, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    name = normalise(key)
    if layout.settings_file() is not None:
        _change(layout, {name: None})


def typed_value(text: str) -> object:
    """Return a value as it was typed: a number if it looks like one, else the text."""
    text = text.strip()
    if re.fullmatch(r"[-+]?[0-9]{1,300}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", text, re.ASCII | re.IGNORECASE):
        return float(text)
    return text


def _change(layout: Layout, changes: Mapping[str, object]) -> None:
    layout.create()
    change_file(layout, layout.settings_file() or layout.config_yaml, changes)


def change_file(
    layout: Layout, path: str, changes: Mapping[str, object], check: Callable[[str], object] = lambda _: None
) -> None:
    """Write values into a file of settings, and remove those that are None. A lock keeps others from losing a change.

    Args:
        check: called with the new text before it is written; it raises an error if the text is not valid.

    Raises:
        ConfigError: the file cannot be read, or not be changed safely.
        SpoolError: the disk refused, or others keep the lock.
    """
    lock_path = os.path.join(layout.data, "config.lock")
    with held(lock_path, patience=_LOCK_TIMEOUT, busy="other processes have been changing settings"):
        text = file.read(path) if os.path.lexists(path) else ""
        for name, value in changes.items():
            text = file.changed(path, text, name, value)
        check(text)
        try:
            # realpath: if the file is a symbolic link, its target is replaced, and the link stays.
            files.replace(os.path.realpath(path), text.encode())
        except OSError as error:
            raise SpoolError.from_os("write", path, error) from None
