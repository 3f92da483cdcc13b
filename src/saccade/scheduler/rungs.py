"""Rungs: the epochs at which trials are compared, and only the best of them are trained further."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from dataclasses import dataclass

_Place = tuple[float, int]
"""Minus a trial's score, and its number: the best trial comes first, the earlier one among equals."""

# What `choose_rungs` goes by, found by replaying the curves: from this many whole trainings on, one trial in 3 goes on
# instead of one in 2; from this many on, the first comparison comes after this part of a training.
_NUM_FOR_HARD_CHOICE, _NUM_FOR_LATE_GRACE, _LATE_GRACE = 4, 8, 0.04
_NUM_TRIALS_FOR_HARD_CHOICE = 9
"""With fewer trials there would not be two comparisons with one trial in 3."""


class Rung:
    """An epoch at which trials are compared.

    All operations take logarithmic time in the number of trials (and a move of the list in memory).

    Parameters
    ----------
    epoch : int
        The epoch.
    reduction_factor : float
        One trial of so many is in front.
    is_top : bool
        Whether nothing is above it.

    Examples
    --------
    >>> rung = Rung(epoch=1, reduction_factor=2)
    >>> for trial, score in enumerate([0.1, 0.4, 0.3, 0.2]):
    ...     rung.enter(trial, score)
    >>> [rung.is_in_front(trial) for trial in range(4)]
    [False, True, True, False]
    """

    def __init__(self, epoch: int, reduction_factor: float, *, is_top: bool = False) -> None:
        self.epoch, self.reduction_factor, self.is_top = epoch, reduction_factor, is_top
        self._scores: dict[int, float] = {}
        self._failed: set[int] = set()
        self._places: list[_Place] = []
        self._paused: list[_Place] = []
        self._finished: list[_Place] = []

    def __len__(self) -> int:
        """Return how many trials have reached it, those that failed later among them."""
        return len(self._places)

    @property
    def num_in_front(self) -> int:
        """How many trials are in front: the best 1/η of those that have reached it, rounded down."""
        return int(len(self) / self.reduction_factor + 1e-9)  # 3 of 6.6 trials are not 2.9999

    def enter(self, trial: int, score: float) -> None:
        """Take up the score with which a trial reached this rung; a second one is not minded."""
        if trial not in self._scores:
            self._scores[trial] = score
            insort(self._places, (-score, trial))

    def is_in_front(self, trial: int, *, at_least: int = 0) -> bool:
        """Tell whether a trial that has reached this rung is one of those in front, or of the `at_least` best."""
        return self._num_better((-self._scores[trial], trial)) < max(at_least, self.num_in_front)

    def leads(self, trial: int) -> bool:
        """Tell whether a trial that has reached this rung is the best of those that have not failed."""
        return trial == next((other for _, other in self._places if other not in self._failed), None)

    def fail(self, trial: int) -> None:
        """Take note that a trial that has reached this rung has failed; it keeps its place."""
        self._failed.add(trial)

    def _num_better(self, place: _Place) -> int:
        return bisect_left(self._places, place)

    def pause(self, trial: int) -> None:
        """Keep a trial that waits here, to be trained further or not."""
        heapq.heappush(self._paused, (-self._scores[trial], trial))

    def best_paused(self) -> _Place | None:
        """Return the place of the best trial that waits; None if none does."""
        return self._paused[0] if self._paused else None

    def has_promotable(self) -> bool:
        """Tell whether one of the trials that wait is in front; the best one is, then."""
        # If the best of those that wait is not in front, none of the others can be: so only one is looked at.
        return bool(self._paused) and self._num_better(self._paused[0]) < self.num_in_front

    def pop_paused(self) -> int:
        """Let the best trial that waits go, and return its number."""
        return heapq.heappop(self._paused)[1]

    def finish(self, trial: int) -> None:
        """Keep a trial that cannot be trained further, but that trials above are to be compared with."""
        heapq.heappush(self._finished, (-self._scores[trial], trial))

    def pop_finished_in_front(self) -> int | None:
        """Let the best trial that cannot be trained further go, if it is in front, and return its number."""
        if self._finished and self._num_better(self._finished[0]) < self.num_in_front:
            return heapq.heappop(self._finished)[1]
        return None

    def score(self, trial: int) -> float:
        """Return the score with which a trial reached it."""
        return self._scores[trial]


class Ladder:
    """Rungs at the epochs grace·η^k, each made when the first trial is on its way to it.

    Parameters
    ----------
    grace_epochs : int
        The epoch of the lowest rung. 0 stands for the report before the first epoch, where there is one; the next
        rungs are then 1·η^k.
    reduction_factor : float
        η: how many times as many epochs the next rung has, and how many trials one is chosen from.
    max_epochs : int or None
        The epoch of the highest rung; None leaves the ladder without an end.
    num_skipped : int
        How many of the lowest rungs to leave out.

    Examples
    --------
    >>> Ladder(1, 3, 20).epochs
    [1, 3, 9, 20]
    >>> Ladder(1, 3, 20, num_skipped=2).epochs
    [9, 20]
    >>> Ladder(2, 3).rung(4).epoch
    162
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
        """Epochs of the rungs: of all when there is an end, else of those that trials are on their way to."""
        if self.max_epochs is not None:
            while self.rung(len(self.rungs)) is not None:
                pass
        return [rung.epoch for rung in self.rungs]

    def rung(self, level: int) -> Rung | None:
        """Return the rung of that number, from 0; None above the top."""
        while len(self.rungs) <= level and not (self.rungs and self.rungs[-1].is_top):
            epoch = self._next_epoch()
            self._num_passed += 1
            is_top = epoch == self.max_epochs
            if self._num_passed > self.num_skipped or is_top:
                self.rungs.append(Rung(epoch, self.reduction_factor, is_top=is_top))
        return self.rungs[level] if level < len(self.rungs) else None

    def _next_epoch(self) -> int:
        power = self._num_passed - (1 if self.grace_epochs == 0 else 0)
        epoch = 0 if power < 0 else round(max(1, self.grace_epochs) * self.reduction_factor**power)
        epoch = max(epoch, self._last_epoch + 1)  # a small η would round to the same epoch again
        self._last_epoch = epoch if self.max_epochs is None else min(epoch, self.max_epochs)
        return self._last_epoch

    @property
    def relative_cost(self) -> float:
        """Epochs that the ladder costs for each trial that begins on it, when one in η is trained to the next rung.

        A ladder without an end counts for its first rung alone.
        """
        first = self.rung(0)
        assert first is not None
        num_promotions = len(self.epochs) - 1 if self.max_epochs is not None else 0
        # At each further rung there are an η-th of the trials, which are trained for (η - 1) times as long as before.
        return max(1, first.epoch) * (1 + num_promotions * (1 - 1 / self.reduction_factor))


@dataclass
class Climber:
    """Where a trial stands on its ladder.

    Attributes
    ----------
    trial : int
        The trial's number.
    ladder : Ladder
        The ladder that it is on.
    level : int
        How many rungs it has reached, which is also the number of the next one.
    is_on_rung : bool
        Whether it has not been trained any further since it reached the last one.
    is_over : bool
        Whether it was told to stop, or has ended.
    last_score : float or None
        The score that it reported last.
    """

    trial: int
    ladder: Ladder
    level: int = 0
    is_on_rung: bool = False
    is_over: bool = False
    last_score: float | None = None

    @property
    def rung(self) -> Rung | None:
        """The last rung that it has reached."""
        return self.ladder.rung(self.level - 1) if self.level else None

    @property
    def next_rung(self) -> Rung | None:
        """The rung that it climbs to; None when it is at the top."""
        return self.ladder.rung(self.level)

    def report(self, epoch: int, score: float) -> None:
        """Train up to an epoch, past as many rungs as there are.

        An epoch that is reported again, because a trial was begun anew, is below the next rung and changes nothing.
        """
        self.last_score, self.is_on_rung, self.is_over = score, False, False
        while (rung := self.next_rung) is not None and epoch >= rung.epoch:
            rung.enter(self.trial, score)
            self.level, self.is_on_rung = self.level + 1, True

    def end(self) -> None:
        """Stand with the last score at the rung that it was on its way to."""
        if self.is_over or self.last_score is None:
            return
        self.is_over = True
        if not self.is_on_rung and self.next_rung is not None:
            self.next_rung.enter(self.trial, self.last_score)
            self.level, self.is_on_rung = self.level + 1, True
        self._finish_on_rung()

    def fail(self) -> None:
        """Lead nowhere any more."""
        for level in range(self.level):
            if (rung := self.ladder.rung(level)) is not None:
                rung.fail(self.trial)

    def climb(self) -> None:
        """Stand at the next rung with the score that it had at this one: a trial that cannot be trained further."""
        if self.rung is not None and self.next_rung is not None:
            self.next_rung.enter(self.trial, self.rung.score(self.trial))
            self.level += 1
            self._finish_on_rung()

    def _finish_on_rung(self) -> None:
        if self.rung is not None and not self.rung.is_top:
            self.rung.finish(self.trial)


def choose_rungs(max_epochs: int, time_limit_s: float, epoch_s: float, num_workers: int = 1) -> tuple[int, float]:
    """Return `grace_epochs` and `reduction_factor` for a search of so much time.

    What counts is how many trials the time could train in full. When these are few, trials are compared from the first
    epoch on, and of each two one goes on; where there is more time, the comparison may be later and harder. On recorded
    curves of fine-tuning of 50 epochs, the choice moves the regret little, and these choices were among the best.

    Parameters
    ----------
    max_epochs : int
        Epochs of a whole training.
    time_limit_s : float
        Seconds for the search; inf without a limit.
    epoch_s : float
        Seconds that an epoch of a typical trial takes.
    num_workers : int
        How many trials are trained at once.

    Examples
    --------
    >>> choose_rungs(max_epochs=50, time_limit_s=600, epoch_s=6)
    (1, 2.0)
    >>> choose_rungs(max_epochs=50, time_limit_s=86_400, epoch_s=60)
    (2, 3.0)
    """
    epochs_in_a_row = time_limit_s / epoch_s if epoch_s > 0 else math.inf
    # No trial can be trained for longer than the time limit, however many are trained at once.
    longest = max(1.0, min(max_epochs, epochs_in_a_row))
    num_whole = num_workers * epochs_in_a_row / longest
    grace_epochs = max(1, int(longest * _LATE_GRACE)) if num_whole >= _NUM_FOR_LATE_GRACE else 1
    return grace_epochs, 3.0 if num_whole >= _NUM_FOR_HARD_CHOICE else 2.0


def choose_rungs_for(num_trials: float, max_epochs: int) -> tuple[int, float]:
    """Return `grace_epochs` and `reduction_factor` for a search of so many trials that has all the time that it wants.

    There are as many comparisons as it takes to come from all trials to one, so that no epochs go into comparisons that
    have nothing left to choose from: with few trials the first one is late.

    Parameters
    ----------
    num_trials : float
        How many trials there will be; inf is not known.
    max_epochs : int
        Epochs of a whole training.

    Examples
    --------
    >>> choose_rungs_for(num_trials=20, max_epochs=50)
    (6, 3.0)
    >>> choose_rungs_for(num_trials=4, max_epochs=50)
    (13, 2.0)
    >>> choose_rungs_for(num_trials=1000, max_epochs=50)
    (1, 3.0)
    """
    factor = 3 if num_trials >= _NUM_TRIALS_FOR_HARD_CHOICE else 2
    grace_epochs, num_left = max_epochs, num_trials
    while num_left >= factor and grace_epochs > 1:
        grace_epochs, num_left = math.ceil(grace_epochs / factor), num_left / factor
    return grace_epochs, float(factor)
