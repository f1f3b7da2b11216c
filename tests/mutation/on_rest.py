"""What ends the sleep of a worker at rest."""

from __future__ import annotations

from .run import Mutant

_REST = "tests/worker/test_idle.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"rest: {name}", file, old, new, tuple(f"{_REST}{test}" for test in tests))


REST = (
    _mutant(
        "nobody listens to what happens in the spool",
        "worker/idle.py",
        "kinds.get(path, inotify.CONTENT)",
        "kinds.get(path, inotify.SELF)",
        "every_change_ends_the_sleep[a note]",
    ),
    _mutant(
        "nobody listens to the folders above",
        "worker/idle.py",
        "(*safe.above, layout.root)",
        "()",
        "every_change_ends_the_sleep[opened above]",
    ),
    _mutant(
        "a link on the way is followed",
        "worker/idle.py",
        "inotify.SELF | inotify.DONT_FOLLOW",
        "inotify.SELF",
        "a_link_on_the_way_that_leads_elsewhere_is_noticed",
    ),
    _mutant(
        "a claim is not heard",
        "worker/idle.py",
        "layout.pending: inotify.NAMES",
        "layout.pending: inotify.SELF",
        "every_change_ends_the_sleep[a claim]",
        "a_colleague_that_has_something_in_hand_is_looked_at_every_second",
    ),
    _mutant(
        "what is listened to twice is heard as the second time says",
        "system/inotify.py",
        "mask | MASK_ADD",
        "mask",
        "every_change_ends_the_sleep[paused]",
    ),
    _mutant(
        "no look after it listens",
        "worker/idle.py",
        "            if not self._is_quiet(stirs):\n                return False\n            if not self._bell",
        "            if not self._bell",
        "what_changes_while_it_begins_to_listen_is_seen",
    ),
    _mutant(
        "a sleep without end",
        "worker/idle.py",
        "min(LONGEST, self._chores.quiet_for())",
        "self._chores.quiet_for()",
        "what_is_not_told_is_found_by_the_look_that_bounds_the_sleep",
    ),
    _mutant(
        "what is not told is not told each time",
        "worker/idle.py",
        "                    self._deaf_until = time.monotonic() + DEAF\n",
        "                    pass\n",
        "what_is_not_told_is_found_by_the_look_that_bounds_the_sleep",
    ),
    _mutant(
        "a job that expires waits for the next look",
        "worker/idle.py",
        "min(LONGEST, self._chores.quiet_for())",
        "LONGEST",
        "a_job_expires_at_its_moment",
    ),
    _mutant(
        "a due job waits for the next look",
        "worker/idle.py",
        "min(longest, seconds), stirs",
        "longest, stirs",
        "a_job_starts_at_its_moment",
    ),
    _mutant(
        "logs are compressed between sleeps",
        "worker/maintenance.py",
        "        if self._compressing is not None:\n            return 0.0\n",
        "",
        "a_log_half_compressed_is_gone_on_with",
    ),
    _mutant(
        "a disk that filled up is not looked at",
        "worker/idle.py",
        " and not watch.stirred and self._room.at_rest",
        " and not watch.stirred",
        "no_job_starts_on_a_disk_that_has_filled_up_meanwhile",
    ),
    _mutant(
        "a job alone is all that counts",
        "worker/idle.py",
        " and not watch.stirred and self._room.at_rest",
        " and self._room.at_rest",
        "no_job_starts_in_a_spool_opened_meanwhile",
    ),
    _mutant(
        "the end of the parent tells nobody",
        "worker/idle.py",
        "self._bell.wait(seconds, self.told_by)",
        "self._bell.wait(seconds)",
        "workers_asleep_leave_with_the_one_who_started_them",
    ),
    _mutant(
        "nobody is asked",
        "worker/idle.py",
        "if self.is_asked or ",
        "if ",
        "who_must_be_asked_is_asked_every_second",
    ),
    _mutant(
        "a remote filesystem is believed",
        "worker/idle.py",
        "if mount is None or mount.is_remote:",
        "if False:",
        "a_spool_shared_with_another_machine_is_looked_at_as_before",
    ),
    _mutant(
        "it listens at once",
        "worker/idle.py",
        "self.still.lasted < CALM",
        "False",
        "a_long_sleep_needs_calm",
    ),
    _mutant(
        "half of it is listened to",
        "system/watcher.py",
        "        except OSError:\n            self.narrow()\n            return False\n        return True",
        "        except OSError:\n            return False\n        return True",
        "where_not_everything_can_be_listened_to_it_looks_as_before",
    ),
    _mutant(
        "it goes on listening to what leaves",
        "system/inotify.py",
        "        if self._home in self._wide:\n",
        "        if False:\n",
        "an_ear_that_was_wide_hears_as_before",
    ),
)
