"""Asynchronous successive halving: many trials are begun, and the best of them are trained further."""

from __future__ import annotations

import math
from typing import Literal, get_args

from saccade.errors import UnknownNameError
from saccade.events import EpochDone
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.options import reduction_factor_of, whole_number
from saccade.scheduler.rungs import Climber, Ladder, Rung
from saccade.study.trial import Decision, Job, Status, Trial

HalvingType = Literal["promotion", "stopping"]


class ASHAScheduler(Scheduler):
    """Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020).

    Trials are compared at *rungs*: after `grace_epochs`, and after η, η², … times as many epochs. Each trial is trained
    to the first rung and pauses. When a worker is free, the best trial that is paused at a rung, and is among the best
    1/η of all that have reached it, is trained to the next rung, from its checkpoint; the highest rung comes first.
    When there is no such trial, a new one is begun.

    What the paper leaves open is done so:

    - When no new trial can be begun and none is to be promoted, the search ends, and what is paused stays paused. Only
      the best trial of a rung then goes on even if it is one of fewer than η, so that some trial is trained to its end
      however few there are.
    - What is left of a time limit is not wasted: instead of that, the paused trial with the best score goes on to its
      next rung, and so on until the time is up, or all trials are at their ends.
    - The score at a rung is that of the rung's epoch, not the best one so far. What is reported before the first rung,
      such as a linear probe's score as epoch 0, is not compared, unless `grace_epochs` is 0.
    - A trial that ends before its next rung, because its configuration asks for fewer epochs, stands there with its
      last score, and on the rungs above for as long as it is in front. So it takes the place of one that is promoted,
      and others are compared with it.
    - A trial that fails keeps its place in the comparison, and is never trained further.
    - A trial that was interrupted between two rungs goes on to the next one before anything else is done.
    - A trial that offers no checkpoint cannot be continued later without being trained twice. It decides at once: see
      "stopping".

    As a trial that comes later may be better than those before it, and is promoted then, a few more than 1/η of all
    are promoted in the end.

    Parameters
    ----------
    max_epochs : int or None
        The epoch of the highest rung, at which trials are stopped. None trains the best to the end of their
        configurations.
    grace_epochs : int
        The epoch of the lowest rung. 0 compares the reports before the first epoch, where trials make one.
    reduction_factor : float
        η, above 1: one trial in η is trained η times as long.
    type : {"promotion", "stopping"}
        With "stopping" trials do not pause: one that reaches a rung goes on if it is among the best 1/η so far, or is
        the best, and is stopped for good otherwise. No checkpoints are needed, but what is decided early is decided
        on few trials.

    Raises
    ------
    HyperparameterError
        If a number cannot be.
    UnknownNameError
        If there is no such type.

    Examples
    --------
    >>> from saccade.study.function import FunctionTrainable
    >>> from saccade.executor import InlineExecutor
    >>> from saccade.study.study import Study
    >>> from saccade.searcher import GridSearcher
    >>> from saccade.space import Categorical
    >>> def train(config, report):
    ...     for epoch in range(1, 10):
    ...         report(epoch=epoch, score=config["x"] * epoch)
    >>> searcher = GridSearcher({"x": Categorical(5, 6, 4, 2, 1, 3)})
    >>> study = Study(InlineExecutor(FunctionTrainable(train)), searcher, ASHAScheduler(grace_epochs=3))
    >>> study.run()
    >>> [trial.num_epochs for trial in study.trials]
    [9, 9, 3, 3, 3, 3]
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        grace_epochs: int = 1,
        reduction_factor: float = 3,
        type: HalvingType = "promotion",  # noqa: A002 (the name that the API that Saccade revives has for it)
    ) -> None:
        self.grace_epochs = whole_number("grace_epochs", grace_epochs, 0, "the epoch of the first comparison")
        self.max_epochs = max_epochs
        if max_epochs is not None:
            meaning = "the epoch of the last comparison, not before the first"
            self.max_epochs = whole_number("max_epochs", max_epochs, max(1, self.grace_epochs), meaning)
        self.reduction_factor = reduction_factor_of(reduction_factor)
        if type not in get_args(HalvingType):
            raise UnknownNameError.of("type of successive halving", type, get_args(HalvingType))
        self.type = type
        self.ladders = self._make_ladders()
        self._climbers: dict[int, Climber] = {}
        self._interrupted: dict[int, None] = {}  # in the order of their interruption
        self._running: set[int] = set()

    def on_start(self, state: StudyState) -> None:
        """Learn which trials an earlier process was training; the study puts them before all others."""
        self._running = {trial.number for trial in state.trials if trial.status is Status.RUNNING}

    def next_job(self, state: StudyState) -> Job | None:
        """Return the next job: of a trial that was interrupted, is promoted, is new, or is the best that waits."""
        trial = self._next_interrupted(state) or self._next_promoted(state) or state.new_trial()
        if trial is None:
            trial = self._next_best(state) if state.seconds_left < math.inf else self._next_leader(state)
        return None if trial is None else self._job(trial)

    def on_report(self, report: EpochDone) -> Decision:
        """Let a trial go on to the next rung, and pause it there; stop it at the highest."""
        climber = self._climber(report.trial)
        climber.report(report.epoch, report.score)
        self._interrupted.pop(report.trial, None)
        self._climb_finished()
        if report.is_last:
            return Decision.CONTINUE
        if climber.next_rung is None:
            return Decision.STOP
        if not climber.is_on_rung or climber.rung is None:
            return Decision.CONTINUE
        if self.type == "promotion" and report.checkpoint is not None:
            return Decision.PAUSE
        if climber.rung.is_in_front(report.trial, at_least=1):
            return Decision.CONTINUE
        climber.is_over = True
        return Decision.STOP

    def on_job_end(self, trial: Trial) -> None:
        """Keep a trial that is paused, or has ended, where it can be found again."""
        self._running.discard(trial.number)
        climber = self._climber(trial.number)
        if trial.status is Status.PAUSED:
            # Where no trial pauses at a rung, one that stands on it was told to go on, and was ended by something else.
            if self.type == "stopping" or not climber.is_on_rung or climber.rung is None:
                self._interrupted[trial.number] = None
            elif not climber.rung.is_top:
                climber.rung.pause(trial.number)
        elif trial.status in (Status.COMPLETED, Status.STOPPED):
            climber.end()
        elif trial.status is Status.FAILED:
            climber.fail()
        self._climb_finished()

    def _make_ladders(self) -> list[Ladder]:
        return [Ladder(self.grace_epochs, self.reduction_factor, self.max_epochs)]

    def _ladder(self, trial: int) -> Ladder:  # noqa: ARG002
        """Return the ladder of a trial, always the same for the same number."""
        return self.ladders[0]

    def _climber(self, trial: int) -> Climber:
        if trial not in self._climbers:
            self._climbers[trial] = Climber(trial, self._ladder(trial))
        return self._climbers[trial]

    def _climb_finished(self) -> None:
        """Let trials that have ended take the places of those that are promoted, from the lowest rung up.

        It is done whenever something is learned, so that a search that is resumed comes to the same.
        """
        for ladder in self.ladders:
            for rung in list(ladder.rungs):
                while (number := rung.pop_finished_in_front()) is not None:
                    self._climbers[number].climb()

    def _next_interrupted(self, state: StudyState) -> Trial | None:
        while self._interrupted:
            number = next(iter(self._interrupted))
            del self._interrupted[number]
            if self._can_train(state.trials[number], state):
                return state.trials[number]
        return None

    def _next_promoted(self, state: StudyState) -> Trial | None:
        rungs = [rung for ladder in self.ladders for rung in ladder.rungs]
        for rung in sorted(rungs, key=lambda rung: -rung.epoch):
            while rung.has_promotable():
                if (trial := self._pop(rung, state)) is not None:
                    return trial
        return None

    def _next_leader(self, state: StudyState) -> Trial | None:
        """Return the best trial of the highest rung that it waits at, unless one that still runs may become better."""
        for ladder in self.ladders:
            if any(self._climber(number).ladder is ladder for number in self._running):
                continue
            for rung in reversed(ladder.rungs):
                while (place := rung.best_paused()) is not None and rung.leads(place[1]):
                    if (trial := self._pop(rung, state)) is not None:
                        return trial
        return None

    def _next_best(self, state: StudyState) -> Trial | None:
        while True:
            waiting = [
                (place, -rung.epoch, rung)
                for ladder in self.ladders
                for rung in ladder.rungs
                if (place := rung.best_paused()) is not None
            ]
            if not waiting:
                return None
            if (trial := self._pop(min(waiting, key=lambda each: each[:2])[2], state)) is not None:
                return trial

    def _pop(self, rung: Rung, state: StudyState) -> Trial | None:
        """Let the best trial that waits go; None if it cannot be trained, now or later."""
        trial = state.trials[rung.pop_paused()]
        climber = self._climbers[trial.number]
        is_here = climber.is_on_rung and climber.rung is rung
        return trial if is_here and self._can_train(trial, state) else None

    @staticmethod
    def _can_train(trial: Trial, state: StudyState) -> bool:
        return trial.status is Status.PAUSED and state.has_time_for(trial)

    def _job(self, trial: Trial) -> Job:
        """Return the job that trains a trial on; it is ended by a decision at a rung, where there is a checkpoint."""
        self._climber(trial.number).is_on_rung = False
        self._running.add(trial.number)
        checkpoint = trial.reports[-1].checkpoint if trial.reports else None
        return Job(trial.number, trial.config, trial.folder, self.max_epochs, checkpoint)
