"""Asynchronous successive halving: start many trials, and train only the best of them further; and its variants."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

from saccade.checks import real_number, whole_number
from saccade.errors import UnknownNameError
from saccade.events import EpochDone
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.rungs import Bracket, Rung, TrialProgress, choose_rungs, choose_rungs_for
from saccade.study.trial import Decision, Job, Status, Trial

HalvingType = Literal["promotion", "stopping"]

DEFAULT_EPOCHS = 50
"""The epochs of a whole training for `AutoScheduler` if `max_epochs` is not given."""


class ASHAScheduler(Scheduler):
    """Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020).

    Trials are compared at *rungs*: after `grace_epochs`, and after η, η², … times as many epochs. Each trial is trained
    to the first rung and pauses. A free worker trains the best paused trial that is in the top 1/η of its rung to the
    next rung, from its checkpoint; the highest rung comes first. If there is no such trial, a new one is created.

    Details that the paper leaves open:

    - If no trial can be created or promoted, the search ends and paused trials stay paused. Only the best trial of a
      rung is promoted even if it is one of fewer than η, so that some trial is trained to its end.
    - With a time limit, the paused trial with the best score continues instead, until the time is up.
    - The score at a rung is that of the rung's epoch, not the best one so far. Reports before the first rung, such as
      that of a linear probe as epoch 0, are not compared, unless `grace_epochs` is 0.
    - A trial that ends before its next rung, because its configuration has fewer epochs, enters that rung with its last
      score, and the rungs above while it is in the top fraction. Other trials are compared with it.
    - A trial that fails keeps its place in the comparison, and is not trained further.
    - A trial that was interrupted between two rungs continues to the next one before all other jobs.
    - A trial without checkpoints cannot pause. It is stopped or continues at once: see "stopping".

    Numbers out of range raise a HyperparameterError, another type an UnknownNameError.

    As trials that come later may be promoted as well, slightly more than 1/η of all trials are promoted in the end.

    Parameters
    ----------
    max_epochs : int or None
        The epoch of the highest rung, at which trials are stopped. None trains the best to the end of their
        configurations.
    grace_epochs : int
        The epoch of the lowest rung. 0 compares the reports before the first epoch, if trials make one.
    reduction_factor : float
        η, above 1: one trial in η is trained η times as long.
    type : {"promotion", "stopping"}
        With "stopping", trials do not pause: at a rung, a trial continues if it is in the top 1/η so far, or is the
        best, and is stopped otherwise. That needs no checkpoints, but early decisions rest on few trials.

    Examples
    --------
    >>> import saccade
    >>> def train(config, report):
    ...     for epoch in range(1, 10):
    ...         report(epoch=epoch, score=config["x"] * epoch)
    >>> space, scheduler = {"x": saccade.Categorical(5, 6, 4, 2, 1, 3)}, ASHAScheduler(grace_epochs=3)
    >>> result = saccade.tune(train, space, searcher="grid", scheduler=scheduler, verbosity=0)
    >>> [trial.num_epochs for trial in result.trials]
    [9, 9, 3, 3, 3, 3]
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        grace_epochs: int = 1,
        reduction_factor: float = 3,
        type: HalvingType = "promotion",  # noqa: A002 (AutoGluon's name)
    ) -> None:
        self.grace_epochs = whole_number("grace_epochs", grace_epochs, 0, meaning="the epoch of the first comparison")
        self.max_epochs = max_epochs
        if max_epochs is not None:
            meaning = "the epoch of the last comparison, not before the first"
            self.max_epochs = whole_number("max_epochs", max_epochs, max(1, self.grace_epochs), meaning=meaning)
        self.reduction_factor = real_number(
            "reduction_factor",
            reduction_factor,
            "a number above 1, for instance 3: one trial in 3 is trained 3 times as long",
            above=1,
            below=math.inf,
        )
        if type not in get_args(HalvingType):
            raise UnknownNameError.of("type of successive halving", type, get_args(HalvingType))
        self.type = type
        self.brackets = self._make_brackets()
        self._progress: dict[int, TrialProgress] = {}
        self._interrupted: dict[int, None] = {}  # in the order of their interruption
        self._running: set[int] = set()

    def on_start(self, state: StudyState) -> None:
        """Note the trials that an earlier process was training; the study puts them before all others."""
        self._running = {trial.number for trial in state.trials if trial.status is Status.RUNNING}

    def next_job(self, state: StudyState) -> Job | None:
        """Return a job of a trial that was interrupted, is promoted, is new, or is the best paused one."""
        trial: Trial | None = None
        while self._interrupted and trial is None:
            trial = state.trials[next(iter(self._interrupted))]
            del self._interrupted[trial.number]
            trial = trial if self._can_train(trial, state) else None
        trial = trial or self._next_promoted(state) or state.new_trial()
        if trial is None:
            trial = self._next_paused(state) if state.seconds_left < math.inf else self._next_leader(state)
        if trial is None:
            return None
        # A decision at a rung ends the job, if there is a checkpoint.
        self._progress_of(trial.number).is_on_rung = False
        self._running.add(trial.number)
        checkpoint = trial.reports[-1].checkpoint if trial.reports else None
        return Job(trial.number, trial.config, self.max_epochs, checkpoint)

    def on_report(self, report: EpochDone) -> Decision:
        """Pause a trial at a rung, and stop it at the highest."""
        progress = self._progress_of(report.trial)
        progress.report(report.epoch, report.score)
        self._interrupted.pop(report.trial, None)
        self._promote_finished()
        if report.is_last:
            return Decision.CONTINUE
        if progress.next_rung is None:
            return Decision.STOP
        if not progress.is_on_rung or progress.rung is None:
            return Decision.CONTINUE
        if self.type == "promotion" and report.checkpoint is not None:
            return Decision.PAUSE
        if progress.rung.in_top_fraction(report.trial, at_least=1):
            return Decision.CONTINUE
        progress.is_over = True
        return Decision.STOP

    def on_job_end(self, trial: Trial) -> None:
        """Add a trial that is paused, or has ended, to its rung."""
        self._running.discard(trial.number)
        progress = self._progress_of(trial.number)
        if trial.status is Status.PAUSED:
            # With "stopping", a paused trial on a rung had been told to continue, and was interrupted.
            if self.type == "stopping" or not progress.is_on_rung or progress.rung is None:
                self._interrupted[trial.number] = None
            elif not progress.rung.is_top:
                progress.rung.pause(trial.number)
        elif trial.status in (Status.COMPLETED, Status.STOPPED):
            progress.end()
        elif trial.status is Status.FAILED:
            progress.fail()
        self._promote_finished()

    def _make_brackets(self) -> list[Bracket]:
        return [Bracket(self.grace_epochs, self.reduction_factor, self.max_epochs)]

    def _bracket_of(self, trial: int) -> Bracket:  # noqa: ARG002
        """Return the bracket of a trial, always the same for the same number."""
        return self.brackets[0]

    def _progress_of(self, trial: int) -> TrialProgress:
        if trial not in self._progress:
            self._progress[trial] = TrialProgress(trial, self._bracket_of(trial))
        return self._progress[trial]

    def _promote_finished(self) -> None:
        """Let finished trials in the top fraction enter the next rungs, from the lowest rung up.

        This is done after every event, so that a resumed search gets the same result.
        """
        for bracket in self.brackets:
            for rung in list(bracket.rungs):
                while (number := rung.pop_finished_in_top()) is not None:
                    self._progress[number].promote()

    def _next_promoted(self, state: StudyState) -> Trial | None:
        rungs = [rung for bracket in self.brackets for rung in bracket.rungs]
        for rung in sorted(rungs, key=lambda rung: -rung.epoch):
            while rung.has_promotable():
                if (trial := self._pop(rung, state)) is not None:
                    return trial
        return None

    def _next_leader(self, state: StudyState) -> Trial | None:
        """Return the best trial of the highest rung with paused trials, unless a running one may become better."""
        for bracket in self.brackets:
            if any(self._progress_of(number).bracket is bracket for number in self._running):
                continue
            for rung in reversed(bracket.rungs):
                while (place := rung.best_paused()) is not None and rung.leads(place[1]):
                    if (trial := self._pop(rung, state)) is not None:
                        return trial
        return None

    def _next_paused(self, state: StudyState) -> Trial | None:
        """Return the paused trial with the best score; among equals, that on the highest rung."""
        while True:
            paused = [
                (place, -rung.epoch, rung)
                for bracket in self.brackets
                for rung in bracket.rungs
                if (place := rung.best_paused()) is not None
            ]
            if not paused:
                return None
            if (trial := self._pop(min(paused, key=lambda each: each[:2])[2], state)) is not None:
                return trial

    def _pop(self, rung: Rung, state: StudyState) -> Trial | None:
        """Remove the best paused trial of a rung, and return it; None if it cannot be trained."""
        trial = state.trials[rung.pop_paused()]
        progress = self._progress[trial.number]
        is_here = progress.is_on_rung and progress.rung is rung
        return trial if is_here and self._can_train(trial, state) else None

    @staticmethod
    def _can_train(trial: Trial, state: StudyState) -> bool:
        return trial.status is Status.PAUSED and state.has_time_for(trial)


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


class AutoScheduler(Scheduler):
    """ASHA with rungs and a reduction factor chosen for the search; it works with every searcher.

    With a time limit the rungs are chosen when the first epoch has been measured. Without one they follow from the
    number of trials: most trials end paused, and one is trained to its end.

    Parameters
    ----------
    max_epochs : int or None
        The most epochs of any configuration; None if that is unknown.

    Examples
    --------
    >>> import saccade
    >>> space, scheduler = {"x": saccade.Real(0, 1)}, AutoScheduler(max_epochs=9)
    >>> result = saccade.tune(lambda config: config["x"], space, scheduler=scheduler, num_trials=3, verbosity=0)
    >>> len(result.trials)
    3
    """

    def __init__(self, max_epochs: int | None = None) -> None:
        self.max_epochs = max_epochs
        self._longest = DEFAULT_EPOCHS if max_epochs is None else max_epochs
        self._state: StudyState | None = None
        self._asha: ASHAScheduler | None = None
        self._before: list[EpochDone | Trial] = []  # reports and ended jobs before the rungs are chosen

    def on_start(self, state: StudyState) -> None:
        """Choose the rungs, unless an epoch must be measured first."""
        self._state = state
        self._choose(state)

    def next_job(self, state: StudyState) -> Job | None:
        """Return ASHA's next job; a new trial while no epoch has been measured."""
        self._state = state
        if self._asha is not None:
            return self._asha.next_job(state)
        trial = state.new_trial()
        return None if trial is None else Job(trial.number, trial.config)

    def on_report(self, report: EpochDone) -> Decision:
        """Return ASHA's decision; the report of the first measured epoch chooses the rungs."""
        if self._asha is not None:
            return self._asha.on_report(report)
        self._before.append(report)
        if self._state is not None:
            self._choose(self._state)
        return Decision.CONTINUE

    def on_job_end(self, trial: Trial) -> None:
        """Pass on which trials are paused."""
        if self._asha is not None:
            self._asha.on_job_end(trial)
        else:
            self._before.append(replace(trial))  # with its current status

    def _choose(self, state: StudyState) -> None:
        """Choose the rungs, unless an epoch must be measured first, and pass everything so far to ASHA."""
        if math.isinf(state.seconds_left):
            grace_epochs, factor = choose_rungs_for(state.num_trials, self._longest)
        else:
            epoch_s = [each.seconds for each in self._before if isinstance(each, EpochDone) and each.epoch >= 1]
            if not epoch_s:
                return
            grace_epochs, factor = choose_rungs(self._longest, state.seconds_left, epoch_s[0], state.num_workers)
            grace_epochs = min(grace_epochs, self._longest)
        self._asha = ASHAScheduler(self.max_epochs, grace_epochs, factor)
        for each in self._before:
            if isinstance(each, EpochDone):
                self._asha.on_report(each)
            else:
                self._asha.on_job_end(each)
        self._asha.on_start(state)
