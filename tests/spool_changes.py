"""Every kind of change to a spool that an idle worker must notice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queuectl import Spool

from support import drop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


CHANGES: dict[str, Callable[[Path], object]] = {
    "a drop": lambda spool: drop(spool, "job", command="true"),
    "given up by hand": lambda spool: (spool / "dead" / "job.json").touch(),
    "a claim": lambda spool: (spool / "processing" / "worker-7" / "job.json").touch(),
    "another worker": lambda spool: (spool / "processing" / "worker-8").mkdir(),
    "a note": lambda spool: (spool / "data" / "workers" / "worker-7.stop").touch(),
    "settings": lambda spool: (spool / "config.yaml").write_text("timeout: 5\n"),
    "paused": lambda spool: (spool / "paused").touch(),
    "a queue paused": lambda spool: (spool / "queues" / "mail.paused").touch(),
    "a rule dropped": lambda spool: (spool / "rules" / "tick.yaml").write_text("when: {every: 1d}\n"),
    "a rule paused": lambda spool: (spool / "rules" / "tick.paused").touch(),
    "a queue limited": lambda spool: (spool / "queues" / "mail.yaml").write_text("limit: 1\n"),
    "opened": lambda spool: (spool / "done").chmod(0o770),
    "opened above": lambda spool: spool.parent.chmod(0o777),
    "another index": lambda spool: os.replace(spool / "data" / "copy", spool / "data" / "queuectl.db"),
    "a row": lambda spool: Spool(spool).enqueue("true"),
    "pending moved away": lambda spool: os.renames(spool / "pending", spool / "away" / "pending"),
}
