"""The settings of a spool, read from their file; and what jobs get by default, which the file of their queue may change."""

from __future__ import annotations

import os

from queuectl.errors import ConfigError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job.fields import DEFAULT_QUEUE, is_queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.job.record import Job
    from queuectl.layout import Layout


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a spool. Durations are seconds, sizes bytes; None means unset. `keys.KEYS` explains each."""

    max_retries: int = 3
    backoff_base: float = 2
    max_backoff: float = 86400
    timeout: float = 20
    priority: int = 5
    jitter: float | None = None
    retry_on: list[int] | None = None
    give_up_on: list[int] | None = None
    worker_count: int | None = None
    concurrency: int = 1
    stop_timeout: float = 30
    kill_grace: float = 5
    crash_limit: int = 3
    log_limit: int = 10 << 20
    output_limit: int = 4096
    compress_logs: float | None = None
    settle_time: float = 2
    min_free_space: int = 4 << 20
    durability: str = "full"
    keep_done: int | str | None = None
    keep_dead: int | str | None = None
    keep_logs: int | str | None = None
    incoming: str | None = None
    incoming_users: str | None = None
    resources: dict[str, int] = field(default_factory=dict)
    between_queues: str = "age"
    engine: str = "local"
    slurm_dir: str | None = None
    slurm_jobs: int = 200
    slurm_pack: int = 100
    slurm_short: float = 60
    slurm_fence: float = 600
    slurm_options: list[str] | None = None


def load(layout: Layout) -> tuple[Settings, list[str]]:
    """Read the settings of a spool; without a file, all have their built-in values.

    Returns:
        the settings, and a list of warnings, one line each.

    Raises:
        ConfigError: the file cannot be read or parsed, or a value is bad; the message names file, line and key.
    """
    path = layout.settings_file()
    if path is None:
        return Settings(), []
    from queuectl.config import file
    from queuectl.config.keys import KEYS, example_of, is_unset, nearest

    warnings = []
    if path == layout.config_yaml and os.path.lexists(layout.config_json):
        warnings.append("config.yaml and config.json are both there: config.yaml is used")
    found: dict[str, Any] = {}
    for entry in file.entries(path, file.read(path)):
        name, where = file.key_of(entry.name), file.place(path, entry.line)
        if name not in KEYS:
            warnings.append(f"{where}: unknown setting {entry.name!r}{nearest(name)}")
            continue
        if name in found:
            warnings.append(f"{where}: {name} stands twice, the last one counts")
        key = KEYS[name]
        try:
            found[name] = key.default if is_unset(key, entry.value) else key.check(entry.value)
        except ValueError as error:
            hint = f"queuectl config set {name} {example_of(key)}"
            raise ConfigError(f"{where}: {name}: {error}", hint=hint) from None
    return Settings(**found), warnings


class JobDefaults:
    """What a job gets for a field that it leaves out: the value of its queue's file, else that of the settings.

    It is copied onto the job when that is accepted. Most queues have no file: then one look at the disk is all. While
    a file is not valid, its values from before stay in force. The engine of a queue is found in the same way, and is not
    copied: a queue that moves to a cluster takes its waiting jobs along.

    Attributes:
        settings: the settings of the spool.
    """

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self.settings = settings
        self._layout = layout
        self._known: dict[str, tuple[object, Mapping[str, Any], Settings]] = {}

    def of(self, queue: str | None) -> Settings:
        """Return the settings with the defaults of this queue. It looks at the disk once for each queue.

        Raises:
            ConfigError: the file of the queue is not valid, and has not been before.
        """
        known = self._known.get(queue or DEFAULT_QUEUE)
        return known[2] if known else self.look(queue)

    def look(self, queue: str | None) -> Settings:
        """Do the same, and look whether the file has changed. The result is the same object while nothing has.

        Raises:
            ConfigError: as for `of`.
        """
        from queuectl.config import stamp

        name = queue or DEFAULT_QUEUE
        if not is_queue(name):
            return self.settings  # the check of the field refuses it; here it must not lead out of the folder
        seen = stamp.of(self._layout.queue_file(name))
        known = self._known.get(name)
        if known is not None and (seen == known[0] or stamp.is_being_written(seen)):
            return known[2]
        try:
            defaults = self._read(name) if seen else {}
        except ConfigError:
            if known is None:
                raise
            return known[2]
        merged = known[2] if known and defaults == known[1] else _with(self.settings, defaults)
        self._known[name] = seen, defaults, merged
        return merged

    def _read(self, name: str) -> Mapping[str, Any]:
        from queuectl.config import queue_file

        found = queue_file.load(self._layout, name)
        return found.defaults if found.engine is None else {**found.defaults, "engine": found.engine}

    def options_of(self, queue: str | None) -> list[str]:
        """Return the options for sbatch that the file of a queue has. It looks at the disk.

        Raises:
            ConfigError: the file is not valid.
        """
        from queuectl.config import queue_file

        name = queue or DEFAULT_QUEUE
        if not os.path.lexists(self._layout.queue_file(name)):
            return []
        return queue_file.load(self._layout, name).options or []

    def refresh(self, settings: Settings) -> bool:
        """Look at the file of each known queue again; return True if a default is different now.

        Args:
            settings: the settings of the spool as they are now.
        """
        before = {name: known[2] for name, known in self._known.items()}
        if settings != self.settings:
            self.settings = settings
            self._known = {
                name: (seen, defaults, _with(settings, defaults))
                for name, (seen, defaults, _) in self._known.items()
            }
        changed = [name for name, was in before.items() if self.look(name) != was]
        return bool(changed)

    def fill_in(self, job: Job) -> None:
        """Copy the defaults onto a job. If the file of its queue is not valid, it gets those of the spool.

        This is for a job that has been accepted before: nothing may keep it from being recorded.
        """
        try:
            job.fill_in(self.of(job.queue))
        except ConfigError:
            job.fill_in(self.settings)


def _with(settings: Settings, defaults: Mapping[str, Any]) -> Settings:
    if not defaults:
        return settings
    given: dict[str, Any] = {name: getattr(settings, name) for name in Settings.__match_args__}
    return Settings(**{**given, **defaults})


def is_given_by_queue(layout: Layout, queue: str, name: str) -> bool:
    """Return True if the file of a queue has this default for its jobs.

    Raises:
        ConfigError: the file is not valid.
    """
    from queuectl.config import queue_file

    return os.path.lexists(layout.queue_file(queue)) and name in queue_file.load(layout, queue).defaults


def is_given(layout: Layout, name: str) -> bool:
    """Return True if the settings file of the spool has this setting; False if the built-in value applies.

    Raises:
        ConfigError: the file cannot be read or parsed.
    """
    path = layout.settings_file()
    if path is None:
        return False
    from queuectl.config import file

    given = {file.key_of(entry.name): entry.value for entry in file.entries(path, file.read(path))}
    return given.get(name) is not None
