"""What an idle worker is woken by, and what its watch costs."""

from __future__ import annotations

from .run import Mutant

_IDLE = "tests/worker/test_idle.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"idle: {name}", file, old, new, tuple(f"{_IDLE}{test}" for test in tests))


IDLE = (
    _mutant(
        "nobody listens to what happens in the spool",
        "worker/idle.py",
        "kinds.get(path, watcher.CONTENT)",
        "kinds.get(path, watcher.SELF)",
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
        "watcher.SELF | watcher.DONT_FOLLOW",
        "watcher.SELF",
        "a_link_on_the_way_that_leads_elsewhere_is_noticed",
    ),
    _mutant(
        "a claim is not heard",
        "worker/idle.py",
        "layout.pending: watcher.NAMES",
        "layout.pending: watcher.SELF",
        "every_change_ends_the_sleep[a claim]",
        "a_colleague_that_has_something_in_hand_is_looked_at_every_second",
    ),
    _mutant(
        "what is listened to twice is heard as the second time says",
        "system/watcher.py",
        "mask | MASK_ADD",
        "mask",
        "every_change_ends_the_sleep[paused]",
    ),
    _mutant(
        "no look after it listens",
        "worker/idle.py",
        "            if not self._is_unchanged(has_request):\n                return False\n            if not self._wake_up",
        "            if not self._wake_up",
        "what_changes_while_it_begins_to_listen_is_seen",
    ),
    _mutant(
        "a sleep without end",
        "worker/idle.py",
        "min(MAX_SLEEP, self._maintenance.quiet_for())",
        "self._maintenance.quiet_for()",
        "what_is_not_told_is_found_by_the_look_that_bounds_the_sleep",
    ),
    _mutant(
        "what is not told is not told each time",
        "worker/idle.py",
        "                    self._no_sleep_until = time.monotonic() + NO_SLEEP_FOR\n",
        "                    pass\n",
        "what_is_not_told_is_found_by_the_look_that_bounds_the_sleep",
    ),
    _mutant(
        "a job that expires waits for the next look",
        "worker/idle.py",
        "min(MAX_SLEEP, self._maintenance.quiet_for())",
        "MAX_SLEEP",
        "a_job_expires_at_its_moment",
    ),
    _mutant(
        "a due job waits for the next look",
        "worker/idle.py",
        "min(longest, seconds), has_request",
        "longest, has_request",
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
        " and not watch.has_other_events and self._readiness.at_rest",
        " and not watch.has_other_events",
        "no_job_starts_on_a_disk_that_has_filled_up_meanwhile",
    ),
    _mutant(
        "a job alone is all that counts",
        "worker/idle.py",
        " and not watch.has_other_events and self._readiness.at_rest",
        " and self._readiness.at_rest",
        "no_job_starts_in_a_spool_opened_meanwhile",
    ),
    _mutant(
        "the end of the parent tells nobody",
        "worker/idle.py",
        "self._wake_up.wait(seconds, self.leave_fd)",
        "self._wake_up.wait(seconds)",
        "workers_asleep_leave_with_the_one_who_started_them",
    ),
    _mutant(
        "nobody is asked",
        "worker/idle.py",
        "if self.must_ask or ",
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
        "self.snapshot.unchanged_for < SLEEP_AFTER",
        "False",
        "a_long_sleep_needs_calm",
    ),
    _mutant(
        "half of it is listened to",
        "system/watcher.py",
        "        except OSError:\n            self.remove_added()\n            return False\n        return True",
        "        except OSError:\n            return False\n        return True",
        "where_not_everything_can_be_listened_to_it_looks_as_before",
    ),
    _mutant(
        "it goes on listening to what leaves",
        "system/watcher.py",
        "        if any(watch == self._home[0] for watch, _ in more):\n",
        "        if False:\n",
        "a_watch_that_was_extended_reports_as_before",
    ),
    *(
        Mutant(
            f"watch: {name}", "system/watcher.py", old, new, (f"tests/worker/test_wake_up.py::test_{test}",)
        )
        for name, old, new, test in (
            (
                "jobs inherit it",
                "            os.set_inheritable(self.fd, False)",
                "            pass",
                "a_watch_has_no_thread_and_is_not_inherited",
            ),
            (
                "what cannot be read counts as watched",
                "        if watch < 0:",
                "        if False:",
                "a_folder_that_may_not_be_read_is_no_watch",
            ),
            (
                "the instance is not given back",
                "        self._inotify._is_reading = False\n",
                "",
                "arming_and_dropping_leaks_nothing",
            ),
            (
                "a short drain loads watchdog",
                "(is_loaded or time.monotonic() >= self._load_at)",
                "True",
                "a_short_drain_loads_no_watchdog",
            ),
        )
    ),
)
