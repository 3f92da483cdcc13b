"""Rungs: the epochs at which trials are compared, and from which only the best are trained further."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from dataclasses import dataclass

_Place = tuple[float, int]
"""The negative score of a trial and its number: the best trial comes first, the earliest among equals."""

# Chosen by replaying recorded curves (benchmarks.search_regret). From this many complete trainings in the time limit:
# the first comparison after LATE_GRACE of a training; one trial in 3 is promoted instead of one in 2.
_NUM_FOR_HARD_CHOICE, _NUM_FOR_LATE_GRACE, _LATE_GRACE = 4, 8, 0.04
_NUM_TRIALS_FOR_HARD_CHOICE = 9
"""With fewer trials, promoting one in 3 would leave fewer than two comparisons."""


class Rung:
    """An epoch at which trials are compared.

    All operations take logarithmic time in the number of trials, apart from shifting a list in memory.
    """

    def __init__(self, epoch: int, reduction_factor: float, *, is_top: bool = False) -> None:
        self.epoch, self.reduction_factor, self.is_top = epoch, reduction_factor, is_top
        self._scores: dict[int, float] = {}
        self._failed: set[int] = set()
        self._places: list[_Place] = []  # sorted
        self._paused: list[_Place] = []  # a heap
        self._finished: list[_Place] = []  # a heap

    def __len__(self) -> int:
        """Return the number of trials that have reached the rung, later failures included."""
        return len(self._places)

    @property
    def num_top(self) -> int:
        """Size of the top fraction: 1/η of the trials that have reached the rung, rounded down."""
        return int(len(self) / self.reduction_factor + 1e-9)  # so that 6.6 / 2.2 is 3, not 2.9999

    def enter(self, trial: int, score: float) -> None:
        """Add the score with which a trial has reached the rung; a second score of the trial is ignored."""
        if trial not in self._scores:
            self._scores[trial] = score
            insort(self._places, (-score, trial))

    def in_top_fraction(self, trial: int, *, at_least: int = 0) -> bool:
        """Return whether a trial on the rung is in the top fraction, or among the `at_least` best."""
        return self._num_better((-self._scores[trial], trial)) < max(at_least, self.num_top)

    def leads(self, trial: int) -> bool:
        """Return whether a trial is the best on the rung, apart from failed ones."""
        return trial == next((other for _, other in self._places if other not in self._failed), None)

    def fail(self, trial: int) -> None:
        """Mark a trial on the rung as failed; it keeps its place."""
        self._failed.add(trial)

    def _num_better(self, place: _Place) -> int:
        return bisect_left(self._places, place)

    def pause(self, trial: int) -> None:
        """Add a paused trial, which may be trained further."""
        heapq.heappush(self._paused, (-self._scores[trial], trial))

    def best_paused(self) -> _Place | None:
        """Return the place of the best paused trial; None without one."""
        return self._paused[0] if self._paused else None

    def has_promotable(self) -> bool:
        """Return whether a paused trial, which is then the best one, is in the top fraction."""
        return bool(self._paused) and self._num_better(self._paused[0]) < self.num_top

    def pop_paused(self) -> int:
        """Remove the best paused trial, and return its number."""
        return heapq.heappop(self._paused)[1]

    def finish(self, trial: int) -> None:
        """Add a trial that cannot be trained further, but with which trials on higher rungs are compared."""
        heapq.heappush(self._finished, (-self._scores[trial], trial))

    def pop_finished_in_top(self) -> int | None:
        """Remove the best finished trial and return its number; None if it is not in the top fraction."""
        if self._finished and self._num_better(self._finished[0]) < self.num_top:
            return heapq.heappop(self._finished)[1]
        return None

    def score(self, trial: int) -> float:
        """Return the score with which a trial has reached the rung."""
        return self._scores[trial]


class Bracket:
    """Rungs at the epochs grace·η^k, each created when the first trial is on its way to it.

    Grace 0 is the report before the first epoch, if there is one; the next rungs are then 1·η^k. The highest rung is at
    `max_epochs`, and the `num_skipped` lowest ones are left out.
    """

    def __init__(
        self, grace_epochs: int, reduction_factor: float, max_epochs: int | None = None, *, num_skipped: int = 0
    ) -> None:
        self.grace_epochs, self.reduction_factor, self.max_epochs = grace_epochs, reduction_factor, max_epochs
        self.num_skipped = num_skipped
        self.rungs: list[Rung] = []
        self._last_epoch = -1
        self._num_passed = 0

    @property
    def epochs(self) -> list[int]:
        """Epochs of all rungs; without `max_epochs`, of those created so far."""
        if self.max_epochs is not None:
            while self.rung(len(self.rungs)) is not None:
                pass
        return [rung.epoch for rung in self.rungs]

    def rung(self, level: int) -> Rung | None:
        """Return a rung by number, from 0; None above the highest."""
        while len(self.rungs) <= level and not (self.rungs and self.rungs[-1].is_top):
            power = self._num_passed - (1 if self.grace_epochs == 0 else 0)
            epoch = 0 if power < 0 else round(max(1, self.grace_epochs) * self.reduction_factor**power)
            epoch = max(epoch, self._last_epoch + 1)  # with a small η, two powers may round to the same epoch
            self._last_epoch = epoch = epoch if self.max_epochs is None else min(epoch, self.max_epochs)
            self._num_passed += 1
            is_top = epoch == self.max_epochs
            if self._num_passed > self.num_skipped or is_top:
                self.rungs.append(Rung(epoch, self.reduction_factor, is_top=is_top))
        return self.rungs[level] if level < len(self.rungs) else None

    @property
    def relative_cost(self) -> float:
        """Epochs trained per trial that starts in the bracket; without `max_epochs`, up to the first rung only."""
        first = self.rung(0)
        assert first is not None
        num_promotions = len(self.epochs) - 1 if self.max_epochs is not None else 0
        # Each further rung has 1/η of the trials, which are trained for (η - 1) times as long as before.
        return max(1, first.epoch) * (1 + num_promotions * (1 - 1 / self.reduction_factor))


@dataclass
class TrialProgress:
    """The position of a trial in its bracket."""

    trial: int  # the trial's number
    bracket: Bracket  # its bracket
    level: int = 0  # number of rungs that it has reached, which is the number of the next one
    is_on_rung: bool = False  # whether it has not been trained further since the last rung
    is_over: bool = False  # whether it has ended, or was told to stop
    last_score: float | None = None  # the score of its last report

    @property
    def rung(self) -> Rung | None:
        """The last rung that the trial has reached."""
        return self.bracket.rung(self.level - 1) if self.level else None

    @property
    def next_rung(self) -> Rung | None:
        """The next rung; None on the highest."""
        return self.bracket.rung(self.level)

    def report(self, epoch: int, score: float) -> None:
        """Enter all rungs up to an epoch.

        An epoch that is reported again, because the trial was restarted, is below the next rung and changes nothing.
        """
        self.last_score, self.is_on_rung, self.is_over = score, False, False
        while (rung := self.next_rung) is not None and epoch >= rung.epoch:
            rung.enter(self.trial, score)
            self.level, self.is_on_rung = self.level + 1, True

    def end(self) -> None:
        """Enter the next rung with the last score: the trial has ended before it."""
        if self.is_over or self.last_score is None:
            return
        self.is_over = True
        if not self.is_on_rung and self.next_rung is not None:
            self.next_rung.enter(self.trial, self.last_score)
            self.level, self.is_on_rung = self.level + 1, True
        self._finish_on_rung()

    def fail(self) -> None:
        """Mark the trial as failed on all rungs that it has reached."""
        for level in range(self.level):
            if (rung := self.bracket.rung(level)) is not None:
                rung.fail(self.trial)

    def promote(self) -> None:
        """Enter the next rung with the score of this one: the trial cannot be trained further."""
        if self.rung is not None and self.next_rung is not None:
            self.next_rung.enter(self.trial, self.rung.score(self.trial))
            self.level += 1
            self._finish_on_rung()

    def _finish_on_rung(self) -> None:
        if self.rung is not None and not self.rung.is_top:
            self.rung.finish(self.trial)


def choose_rungs(max_epochs: int, time_limit_s: float, epoch_s: float, num_workers: int = 1) -> tuple[int, float]:
    """Return `grace_epochs` and `reduction_factor` for the number of complete trainings that a time limit allows.

    With few, trials are compared from the first epoch on, and one in two is promoted; with more, later, and one in
    three: among the best rules on recorded curves (`benchmarks.search_regret`), although the differences are small.
    """
    epochs_in_a_row = time_limit_s / epoch_s if epoch_s > 0 else math.inf
    # No trial can be trained for longer than the time limit, however many workers there are.
    longest = max(1.0, min(max_epochs, epochs_in_a_row))
    num_complete = num_workers * epochs_in_a_row / longest
    grace_epochs = max(1, int(longest * _LATE_GRACE)) if num_complete >= _NUM_FOR_LATE_GRACE else 1
    return grace_epochs, 3.0 if num_complete >= _NUM_FOR_HARD_CHOICE else 2.0


def choose_rungs_for(num_trials: float, max_epochs: int) -> tuple[int, float]:
    """Return `grace_epochs` and `reduction_factor` for a number of trials without a time limit.

    There are as many rungs as reduce all trials to one. So with few trials the first comparison is late.
    """
    factor = 3 if num_trials >= _NUM_TRIALS_FOR_HARD_CHOICE else 2
    grace_epochs, num_left = max_epochs, num_trials
    while num_left >= factor and grace_epochs > 1:
        grace_epochs, num_left = math.ceil(grace_epochs / factor), num_left / factor
    return grace_epochs, float(factor)
