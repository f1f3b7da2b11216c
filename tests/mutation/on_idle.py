"""What an idle worker is woken by, and what its watch costs."""

from __future__ import annotations

from .run import Mutant

_IDLE = "tests/worker/test_idle.py::test_"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(f"idle: {name}", file, old, new, tuple(f"{_IDLE}{test}" for test in tests))


IDLE = (
    _mutant(
        "the spool is not watched",
        "worker/idle.py",
        "kinds.get(path, watcher.CONTENT)",
        "kinds.get(path, watcher.SELF)",
        "every_change_ends_the_sleep[a note]",
    ),
    _mutant(
        "the folders above are not watched",
        "worker/idle.py",
        "(*safe.above, layout.root)",
        "()",
        "every_change_ends_the_sleep[opened above]",
    ),
    _mutant(
        "the death of the worker that follows the rules wakes nobody",
        "worker/idle.py",
        "            more.append((lock, watcher.CLOSE_WRITE))",
        "            more.append((lock, watcher.SELF))",
        "a_worker_that_sleeps_follows_the_rules_as_soon_as_the_one_that_did_is_dead",
    ),
    _mutant(
        "a link on the way is followed",
        "worker/idle.py",
        "watcher.SELF | watcher.DONT_FOLLOW",
        "watcher.SELF",
        "a_link_on_the_way_that_leads_elsewhere_is_noticed",
    ),
    _mutant(
        "a claim wakes nobody",
        "worker/idle.py",
        "layout.pending: watcher.NAMES",
        "layout.pending: watcher.SELF",
        "every_change_ends_the_sleep[a claim]",
        "a_worker_with_a_claim_is_checked_every_second",
    ),
    _mutant(
        "a path watched twice is watched as the second time says",
        "system/watcher.py",
        "mask | MASK_ADD",
        "mask",
        "every_change_ends_the_sleep[paused]",
    ),
    _mutant(
        "no check after the watch is extended",
        "worker/idle.py",
        "            if not self._is_unchanged(has_request, each_rule=True):\n                return False\n            if not self._wake_up",
        "            if not self._wake_up",
        "a_change_while_the_watch_is_extended_is_seen",
    ),
    _mutant(
        "a sleep without end",
        "worker/idle.py",
        "min(MAX_SLEEP, self._maintenance.seconds_to_next())",
        "self._maintenance.seconds_to_next()",
        "a_change_without_an_event_is_found_by_the_check_that_ends_the_sleep",
    ),
    _mutant(
        "each change without an event is late",
        "worker/idle.py",
        "                    self._no_sleep_until = time.monotonic() + NO_SLEEP_FOR\n",
        "                    pass\n",
        "a_change_without_an_event_is_found_by_the_check_that_ends_the_sleep",
    ),
    _mutant(
        "a job that expires waits for the next check",
        "worker/idle.py",
        "min(MAX_SLEEP, self._maintenance.seconds_to_next())",
        "MAX_SLEEP",
        "a_job_expires_at_its_moment",
    ),
    _mutant(
        "a due job waits for the next check",
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
        "compression_of_logs_continues",
    ),
    _mutant(
        "a disk that filled up is not checked",
        "worker/idle.py",
        " and not watch.has_other_events and self._readiness.nothing_due",
        " and not watch.has_other_events",
        "no_job_starts_on_a_disk_that_has_filled_up_meanwhile",
    ),
    _mutant(
        "a job alone is all that counts",
        "worker/idle.py",
        " and not watch.has_other_events and self._readiness.nothing_due",
        " and self._readiness.nothing_due",
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
        "the owner is not asked",
        "worker/idle.py",
        "            self.must_ask\n            or self._snapshot",
        "            self._snapshot",
        "an_owner_that_must_be_asked_is_asked_every_second",
    ),
    _mutant(
        "a remote filesystem is believed",
        "worker/idle.py",
        "if mount is None or mount.is_remote:",
        "if False:",
        "a_spool_shared_with_another_machine_is_checked_as_before",
    ),
    _mutant(
        "it sleeps at once",
        "worker/idle.py",
        "self._snapshot.unchanged_for < SLEEP_AFTER",
        "False",
        "a_long_sleep_needs_some_seconds_without_a_change",
    ),
    _mutant(
        "a part of it is watched",
        "system/watcher.py",
        "        except OSError:\n            self.remove_added()\n            return False\n        return True",
        "        except OSError:\n            return False\n        return True",
        "where_not_everything_can_be_watched_it_checks_as_before",
    ),
    _mutant(
        "what leaves goes on to wake",
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
                "starting_and_stopping_leaks_nothing",
            ),
            (
                "it is read until no event is left",
                "            for _ in range(_MAX_READS):",
                "            while True:",
                "reading_ends_however_fast_events_arrive",
            ),
            (
                "nobody counts the descriptors",
                "        _require_descriptors(folder, _DESCRIPTORS)\n",
                "",
                "a_start_without_enough_descriptors_keeps_none",
            ),
            (
                "a folder made again is taken for the old one",
                "                if again[0] != self._home[0]:",
                "                if False:",
                "a_folder_made_again_before_the_added_watches_end_is_noticed",
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
