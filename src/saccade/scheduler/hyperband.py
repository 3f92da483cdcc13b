"""Hyperband: successive halving with several lowest rungs side by side."""

from __future__ import annotations

from saccade.checks import whole_number
from saccade.scheduler.asha import ASHAScheduler, HalvingType
from saccade.scheduler.rungs import Bracket


class HyperbandScheduler(ASHAScheduler):
    """Asynchronous Hyperband (Li et al., JMLR 2018; Li et al., MLSys 2020).

    Successive halving fails if the first epochs are misleading. Hyperband divides the time among *brackets*: the first
    one compares trials after `grace_epochs`, the next after η times as many, and so on; each works as `ASHAScheduler`.
    The number of new trials of a bracket is inversely proportional to the epochs that each costs, so that all brackets
    get about the same time. The bracket of a trial is determined by its number.

    Parameters
    ----------
    max_epochs, grace_epochs, reduction_factor, type
        As in `ASHAScheduler`; the lowest rung is that of the first bracket.
    num_brackets : int or None
        Number of brackets, at most that of the rungs below `max_epochs`, plus one without comparisons. None is that
        maximum, or 3 without `max_epochs`.

    Examples
    --------
    >>> scheduler = HyperbandScheduler(max_epochs=9)
    >>> [bracket.epochs for bracket in scheduler.brackets]
    [[1, 3, 9], [3, 9], [9]]
    >>> [scheduler.bracket(trial) for trial in range(8)]
    [0, 1, 0, 2, 0, 1, 0, 0]
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        grace_epochs: int = 1,
        reduction_factor: float = 3,
        num_brackets: int | None = None,
        type: HalvingType = "promotion",  # noqa: A002 (see ASHAScheduler)
    ) -> None:
        self.num_brackets = None if num_brackets is None else whole_number("num_brackets", num_brackets)
        super().__init__(max_epochs, grace_epochs, reduction_factor, type)
        costs = [bracket.relative_cost for bracket in self.brackets]
        self._fractions = [1 / cost / sum(1 / other for other in costs) for cost in costs]
        self._brackets: list[int] = []
        self._counts = [0] * len(costs)

    def bracket(self, trial: int) -> int:
        """Return the bracket, from 0, of the trial with that number, from 0."""
        while len(self._brackets) <= trial:
            # The bracket that is furthest behind its fraction of the trials comes next.
            num = len(self._brackets) + 1
            lags = [fraction * num - count for fraction, count in zip(self._fractions, self._counts, strict=True)]
            bracket = lags.index(max(lags))
            self._brackets.append(bracket)
            self._counts[bracket] += 1
        return self._brackets[trial]

    def _make_brackets(self) -> list[Bracket]:
        whole = Bracket(self.grace_epochs, self.reduction_factor, self.max_epochs)
        if self.max_epochs is None:
            num = 3 if self.num_brackets is None else self.num_brackets
        else:
            num = min(len(whole.epochs), self.num_brackets or len(whole.epochs))
        return [
            Bracket(self.grace_epochs, self.reduction_factor, self.max_epochs, num_skipped=skipped)
            for skipped in range(num)
        ]

    def _bracket_of(self, trial: int) -> Bracket:
        return self.brackets[self.bracket(trial)]
