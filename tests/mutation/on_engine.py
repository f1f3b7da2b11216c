"""Mutants of what runs jobs on a cluster."""

from __future__ import annotations

from .run import Mutant

_VERDICT = "tests/engine/test_verdict.py::test_"
_NODE = "tests/engine/test_node.py::test_"
_PACE = "tests/engine/test_pace.py::test_"
_PLACE = "tests/engine/test_place.py::test_"
_NAME = "tests/control/test_dispatcher_name.py::test_"
_HANDOVER = "tests/worker/test_handover.py::test_"
_CHECK = "tests/engine/test_check.py::test_"
_DOCTOR = "tests/doctor/test_engines.py::test_"
_CLUSTER = "tests/config/test_cluster.py::test_"
_WISHES = "tests/engine/test_wishes.py::test_"
_ENDINGS = "tests/engine/test_endings.py::test_"
_SLURM = "tests/engine/test_slurm.py::test_"
_TRACKER = "tests/engine/test_tracker.py::test_"
_PACKS = "tests/engine/test_packs.py::test_"

ENGINE = (
    Mutant(
        "engine: an attempt is given up before its runner has ended it",
        "engine/verdict.py",
        "        return self.fence + self.grace + MARGIN\n",
        "        return self.fence / 2\n",
        (f"{_VERDICT}a_begun_attempt_is_given_up_only_after_its_runner_has_ended_it",),
    ),
    Mutant(
        "engine: a begun attempt of a silent runner is taken back as if it had not begun",
        "engine/verdict.py",
        "    if seen.claim is Claim.RUNNER:\n",
        "    if seen.claim is Claim.RUNNER and not seen.left:\n",
        (f"{_VERDICT}a_job_goes_back_only_with_a_claim_of_ours",),
    ),
    Mutant(
        "engine: silence counts while the shared folder is away",
        "engine/verdict.py",
        "            self.seconds += max(0.0, min(now - self._looked_at, self._gap))\n",
        "            self.seconds += now - self._looked_at\n",
        (f"{_VERDICT}silence_does_not_count_while_the_share_is_away",),
    ),
    Mutant(
        "engine: whoever comes has the claim",
        "engine/node.py",
        "        return (status.st_dev, status.st_ino) == self._identity\n",
        "        return True\n",
        (
            f"{_NODE}what_is_revoked_never_begins",
            f"{_NODE}several_runners_share_a_pack_and_no_attempt_runs_twice",
        ),
    ),
    Mutant(
        "engine: a claim is the dispatcher's whoever has made it",
        "engine/packs.py",
        "            return os.path.samestat(os.lstat(claim), os.lstat(by))\n",
        "            return os.path.lexists(claim)\n",
        (f"{_NODE}what_is_revoked_never_begins", f"{_PACKS}who_has_what_is_told_by_inodes"),
    ),
    Mutant(
        "engine: the answer of link decides about a claim",
        "engine/packs.py",
        "            refusal = error\n",
        "            return False\n",
        (f"{_NODE}a_claim_counts_although_link_says_that_it_is_there",),
    ),
    Mutant(
        "engine: a command outlives its killed runner",
        "engine/guard.py",
        "                elif group:\n                    end_group(group, grace)\n                return\n",
        "                return\n",
        (f"{_NODE}a_command_does_not_outlive_its_killed_runner",),
    ),
    Mutant(
        "engine: a command outlives a runner that is killed while it starts it",
        "engine/guard.py",
        "                    _end_started(mark, grace)\n",
        "                    pass\n",
        (f"{_NODE}a_command_that_was_being_started_ends_with_its_runner",),
    ),
    Mutant(
        "engine: a command goes on while its runner hangs",
        "engine/guard.py",
        "        if group > 0 and clock() - beaten > fence:\n",
        "        if False:\n",
        (f"{_NODE}a_runner_that_cannot_beat_ends_its_command[stopped]",),
    ),
    Mutant(
        "engine: Slurm's TERM is taken for the command's own end",
        "engine/node.py",
        "        if code and self._signals.term and not reason:\n",
        "        if False:\n",
        (f"{_NODE}what_slurm_ends_says_so_and_nothing_more_is_begun[all]",),
    ),
    Mutant(
        "engine: a runner begins more without a guard",
        "engine/node.py",
        " and self._guard.is_alive()\n",
        "\n",
        (f"{_NODE}a_runner_begins_nothing_when_its_guard_is_gone",),
    ),
    Mutant(
        "engine: any runner's word about an attempt counts",
        "engine/packs.py",
        " and self._has(runner, record, found)",
        "",
        (f"{_PACKS}a_record_counts_only_from_the_runner_that_has_the_claim",),
    ),
    Mutant(
        "engine: a claim is deleted while a late runner can make it anew",
        "engine/packs.py",
        "            os.rename(self.folder, gone)\n        remove(gone)\n",
        "            remove(self.folder)\n",
        (f"{_PACKS}a_pack_loses_its_name_before_any_claim_is_deleted",),
    ),
    Mutant(
        "engine: a run that goes on is sent once more",
        "engine/tracker.py",
        "        known[0].reopen(known[1])\n        return True\n",
        "        return False\n",
        (
            f"{_TRACKER}a_job_that_somebody_moves_back_by_hand_is_not_sent_twice",
            f"{_TRACKER}the_next_dispatcher_does_not_send_it_twice_either",
        ),
    ),
    Mutant(
        "engine: the end of an earlier pack is told of a new one",
        "engine/tracker.py",
        "            known[0].close(known[1])  # that",
        "            pass  # that",
        (f"{_TRACKER}what_was_taken_back_is_told_of_once_although_it_was_sent_anew",),
    ),
    Mutant(
        "engine: a full engine buries jobs",
        "engine/tracker.py",
        "            handed.sends -= 1  # it",
        "            pass  # it",
        (f"{_TRACKER}an_engine_that_is_full_for_long_buries_nothing",),
    ),
    Mutant(
        "engine: an answer from before a send counts for it",
        "engine/handed.py",
        "        if poll.asked_at <= self.sent_at:\n            return\n",
        "",
        (f"{_TRACKER}an_answer_from_before_a_send_says_nothing_of_it",),
    ),
    Mutant(
        "engine: Slurm runs a pack again after it has lost a node",
        "engine/slurm.py",
        '        "--no-requeue",',
        '        "--requeue",',
        (f"{_SLURM}nothing_of_a_job_is_on_the_command_line_but_its_wishes",),
    ),
    Mutant(
        "engine: a failed sbatch has refused, whatever it says",
        "engine/slurm.py",
        "    return Answer.UNKNOWN, text  # it",
        "    return Answer.REFUSED, text  # it",
        (f"{_SLURM}a_failed_sbatch_has_refused_only_when_it_says_so",),
    ),
    Mutant(
        "engine: an answer counts from when it came",
        "engine/slurm.py",
        "                poll = Poll(asked_at, rows, ",
        "                poll = Poll(now, rows, ",
        (f"{_SLURM}a_poll_tells_when_it_was_asked",),
    ),
    Mutant(
        "engine: a preempted job pays for it",
        "job/outcome.py",
        "_UNCHARGED = (Ending.STOPPED, Ending.PREEMPTED)\n",
        "_UNCHARGED = (Ending.STOPPED,)\n",
        (f"{_ENDINGS}a_preempted_job_waits_again_at_once_and_pays_nothing",),
    ),
    Mutant(
        "engine: nobody is asked why a runner was ended",
        "engine/tracker.py",
        '        if record.how == "terminated" and (row is None or row.is_live):\n',
        "        if False:\n",
        (f"{_TRACKER}the_engine_is_asked_why_it_has_ended_a_runner",),
    ),
    Mutant(
        "engine: any option of sbatch may be given",
        "config/cluster.py",
        "    if name not in ALLOWED:\n",
        "    if not name:\n",
        (f"{_CLUSTER}options_of_the_dispatcher_are_refused",),
    ),
    Mutant(
        "engine: a job is queued for a cluster that is not set up",
        "config/cluster.py",
        "    if settings.slurm_dir is None:\n",
        "    if False:\n",
        (f"{_CLUSTER}enqueue_for_a_cluster_that_is_not_set_up_is_refused",),
    ),
    Mutant(
        "engine: a queue that says slurm runs where the settings say",
        "config/queues.py",
        "    return queues.get(name).engine or settings.engine\n",
        "    return settings.engine\n",
        (f"{_CLUSTER}the_file_of_a_queue_says_where_its_jobs_run",),
    ),
    Mutant(
        "engine: the check does not see that the clock of a node is wrong",
        "engine/probe.py",
        "        if not self._sent_time - CLOCKS <= record.started <= self._seen_time + CLOCKS:\n",
        "        if False:\n",
        (f"{_CHECK}a_clock_that_is_wrong_is_told",),
    ),
    Mutant(
        "engine: a probe stays on the share",
        "engine/probe.py",
        "                self._pack.delete()\n",
        "                self._pack.look()\n",
        (f"{_CHECK}a_cluster_that_is_well_has_no_faults",),
    ),
    Mutant(
        "engine: the doctor has a pack deleted whose jobs are claimed",
        "doctor/engines.py",
        '    if not any(f"{job}.json" in claimed for job, _ in keys) and',
        "    if",
        (f"{_DOCTOR}a_share_that_is_well_is_no_finding",),
    ),
    Mutant(
        "engine: what must not run twice shares a pack",
        "engine/wishes.py",
        "        if one.alone or not 0 < one.timeout <= short:\n",
        "        if not 0 < one.timeout <= short:\n",
        (f"{_WISHES}only_short_jobs_of_one_shape_share_a_pack",),
    ),
    Mutant(
        "engine: the next dispatcher does not know the run of a dropped file again",
        "worker/handover.py",
        "        self._date([claims",
        "        ([claims",
        (f"{_HANDOVER}a_dispatcher_that_dies_at_once_leaves_runs_that_the_next_one_collects",),
    ),
    Mutant(
        "engine: a wish to cancel is forgotten when the job has not begun",
        "worker/handover.py",
        "is_cancelled=event.is_cancelled)",
        "is_cancelled=False)",
        (f"{_HANDOVER}what_has_not_begun_goes_back_as_it_was",),
    ),
    Mutant(
        "engine: a second dispatcher starts after the lock file of the first one was deleted",
        "control/registration.py",
        "            is_free = lock is not None and not is_folder_locked(layout.claims(engine))\n",
        "            is_free = lock is not None\n",
        (f"{_NAME}an_engine_has_one_dispatcher[lock]",),
    ),
    Mutant(
        "engine: helpers are sent although one waits already",
        "engine/tracker.py",
        " and not handed.is_queued:",
        ":",
        (f"{_TRACKER}a_pack_gets_help_while_processors_are_idle",),
    ),
    Mutant(
        "engine: a deleted data/ hides what runs on the cluster",
        "engine/place.py",
        " or _id_by_owner(folder, mine)",
        "",
        (f"{_PLACE}it_is_found_again_when_data_is_deleted",),
    ),
    Mutant(
        "engine: a copied spool answers for the jobs of the first one",
        "engine/place.py",
        "    if owner != mine:\n",
        "    if False:\n",
        (f"{_PLACE}a_copied_spool_is_refused",),
    ),
    Mutant(
        "engine: jobs are sent again at once to somebody who cancels them",
        "engine/pace.py",
        "        if now < self.rests_until:\n            return 0\n",
        "",
        (f"{_PACE}feeding_rests_when_others_cancel_our_jobs",),
    ),
    Mutant(
        "engine: a beat after a sleep hides the sleep",
        "engine/node.py",
        "            self.lapsed_at = began\n",
        "            pass\n",
        (f"{_NODE}a_beat_after_a_sleep_does_not_hide_the_sleep",),
    ),
)
