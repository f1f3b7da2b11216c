"""Mutants of what runs jobs on a cluster."""

from __future__ import annotations

from .run import Mutant

_VERDICT = "tests/engine/test_verdict.py::test_"

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
)
