"""The best trial and the failed ones, kept up to date so that no decision has to scan all trials."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from saccade.errors import SearchFailedError
from saccade.study.trial import Status, Trial

NUM_FAILURES = 10
"""A search ends if this many trials have failed for the same reason, and none has not failed."""


class Standings:
    """The best trial, and the reasons of those that failed; the study appends to the list of its trials by number."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        # A heap: the best score first, the earliest trial among equals. Outdated entries are dropped when met.
        self._scores: list[tuple[float, int]] = []
        self._reasons: set[str] = set()
        self._num_failed = 0

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score that did not fail, the earliest among equals; None without one."""
        while self._scores:
            negative_score, number = self._scores[0]
            trial = self._trials[number]
            best = trial.best_report
            if trial.status is not Status.FAILED and best is not None and -best.score == negative_score:
                return trial
            heapq.heappop(self._scores)
        return None

    @property
    def is_hopeless(self) -> bool:
        """Whether all of at least `NUM_FAILURES` trials have failed for the same reason."""
        num = len(self._trials)
        return num >= NUM_FAILURES and num == self._num_failed and len(self._reasons) == 1

    def scored(self, trial: Trial) -> None:
        """Add a trial that has reported."""
        if trial.best_report is not None and trial.best_report is trial.reports[-1]:
            heapq.heappush(self._scores, (-trial.best_report.score, trial.number))

    def failed(self, trial: Trial) -> None:
        """Add a trial that has failed."""
        assert trial.failure is not None
        self._num_failed += 1
        self._reasons.add(trial.failure.reason)


def all_failed(trials: Sequence[Trial], *, is_given_up: bool) -> SearchFailedError:
    """Return the error with the reasons of failed trials and the first traceback."""
    failures = [trial.failure for trial in trials if trial.failure is not None]
    if not failures:
        return SearchFailedError(f"The time limit ended before any of {len(trials)} trials had a score; increase it.")
    reasons = list(dict.fromkeys(failure.reason for failure in failures))
    if is_given_up:
        num = f"The search was stopped after {len(failures)} trials, which all"
    else:
        num = "The only trial" if len(failures) == 1 else f"All {len(failures)} trials"
    if len(reasons) == 1:
        message = f"{num} failed: {reasons[0]}"
    else:
        message = f"{num} failed, for {len(reasons)} reasons:\n" + "\n".join(f"  - {reason}" for reason in reasons)
    first = failures[0].traceback.strip()
    return SearchFailedError(f"{message}\n\nTraceback of the first failure:\n{first}" if first else message)
