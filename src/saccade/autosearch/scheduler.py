"""The scheduler that goes by forecasts: it trains on what promises most for each second, and pauses the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from dataclasses import replace

from saccade.autosearch.searcher import Advice, AutoSearcher
from saccade.autosearch.steps import HORIZONS
from saccade.events import EpochDone
from saccade.scheduler.asha import ASHAScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.rungs import choose_rungs, choose_rungs_for
from saccade.space import canonical_key
from saccade.study.trial import Decision, Job, Status, Trial

MAX_WAITING = 256
"""When more trials are paused than this, half as many, the most promising ones, may still go on."""

THINKING_PART = 0.01
"""The part of the training time that may be spent on thinking again whether to go on with a running trial."""


DEFAULT_EPOCHS = 50
"""How long a whole training is taken to be where nobody says."""


class AutoScheduler(Scheduler):
    """Train one trial until another promises more, pause it, and come back to it when it promises most.

    With an `AutoSearcher` this is freeze-thaw scheduling [1]_: after each of a few epochs the searcher forecasts how
    the running trial, the paused ones and new ones will go on, and the step with the highest expected improvement for
    its cost comes next. So rungs and reduction factor follow from what the forecasts say of the time that remains.
    With any other searcher it is ASHA [2]_, with rungs chosen from the time limit and the measured cost of an epoch.

    Without a time limit there is nothing to weigh cost against, so it is ASHA with every searcher: the rungs are chosen
    from the number of trials and their epochs, most trials end paused, and one is trained to its end.

    Parameters
    ----------
    max_epochs : int or None
        The most epochs of any configuration, for the rungs of ASHA; None is not known.

    References
    ----------
    .. [1] K. Swersky, J. Snoek and R. P. Adams, "Freeze-thaw Bayesian optimization", arXiv:1406.3896, 2014.
    .. [2] L. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020.

    Examples
    --------
    >>> from saccade.executor import InlineExecutor
    >>> from saccade.study.study import Study
    >>> from saccade.searcher import RandomSearcher
    >>> from saccade.space import Real
    >>> from saccade.study.function import FunctionTrainable
    >>> trainable = FunctionTrainable(lambda config, report: report(epoch=1, score=config["x"]))
    >>> study = Study(InlineExecutor(trainable), RandomSearcher({"x": Real(0, 1)}), AutoScheduler(), num_trials=3)
    >>> study.run()
    >>> len(study.trials)
    3
    """

    def __init__(self, max_epochs: int | None = None) -> None:
        self.max_epochs = max_epochs
        self._state: StudyState | None = None
        self._asha: ASHAScheduler | None = None
        self._before: list[EpochDone | Trial] = []  # what came before there was a ladder: reports, and ends of jobs
        self._paused: dict[Hashable, Trial] = {}
        self._keys: dict[int, Hashable] = {}
        self._targets: dict[int, int] = {}
        self._since_s: dict[int, float] = {}  # training since a running trial was last thought about
        self._thinking_s = 0.0

    def on_start(self, state: StudyState) -> None:
        """Take up what a run that is resumed has left."""
        self._state = state
        self._paused = {self._key(trial): trial for trial in state.trials if trial.status is Status.PAUSED}
        if math.isinf(state.seconds_left):
            self._asha = self._told(self._ladder_for_trials(state), state)
        elif not isinstance(state.searcher, AutoSearcher):
            self._asha = self._measured_ladder(state)

    def next_job(self, state: StudyState) -> Job | None:
        """Return the job that promises most."""
        self._state = state
        if self._asha is not None:
            return self._job_of_ladder(self._asha, state)
        if isinstance(state.searcher, AutoSearcher):
            return self._advised_job(state, state.searcher)
        return self._first_job(state)

    def on_report(self, report: EpochDone) -> Decision:
        """Let the trial go on while it promises most."""
        if self._asha is not None:
            return self._asha.on_report(report)
        state = self._state
        if state is None or not isinstance(state.searcher, AutoSearcher):
            self._before.append(report)
            self._asha = None if state is None else self._measured_ladder(state)
            return Decision.CONTINUE
        since_s = self._since_s[report.trial] = self._since_s.get(report.trial, 0.0) + report.seconds
        is_due = report.epoch >= self._targets.get(report.trial, 1)
        is_cheap = since_s * THINKING_PART >= self._thinking_s
        # That a training begins with a probe tells nothing new, unless the probe was what it was begun for.
        may_leave = report.epoch in HORIZONS
        if report.is_last or report.checkpoint is None or not (is_due or (is_cheap and may_leave)):
            return Decision.CONTINUE
        return self._think_again(state, state.searcher, report)

    def on_end(self, trial: Trial) -> None:
        """Remember which trials are paused."""
        if self._asha is not None:
            self._asha.on_end(trial)
            return
        if self._state is None or not isinstance(self._state.searcher, AutoSearcher):
            self._before.append(replace(trial))  # with the status that it has now
        key = self._key(trial)
        self._paused.pop(key, None)
        if trial.status is Status.PAUSED:
            self._paused[key] = trial

    def _job_of_ladder(self, asha: ASHAScheduler, state: StudyState) -> Job | None:
        job = asha.next_job(state)
        if job is not None and job.checkpoint is not None and isinstance(state.searcher, AutoSearcher):
            trial = state.trials[job.trial]
            state.searcher.begin_again(self._key(trial), trial.num_epochs + 1)
        return job

    def _advised_job(self, state: StudyState, searcher: AutoSearcher) -> Job | None:
        self._drop_unpromising(searcher)
        can_begin = True
        late: set[Hashable] = set()
        while True:
            advice = self._ask(searcher, self._paused.keys() - late, state.seconds_left, can_begin=can_begin)
            if advice is None:
                return self._first_job(state) if can_begin and not state.trials else None
            if advice.key is None:
                trial = state.new_trial()
                if trial is None:  # there may be no more, or no time for one
                    can_begin = False
                    continue
            else:
                trial = self._paused[advice.key]
                if not state.has_time_for(trial):
                    late.add(advice.key)
                    continue
                searcher.begin_again(advice.key, advice.until_epoch)
                del self._paused[advice.key]
            self._targets[trial.number], self._since_s[trial.number] = advice.until_epoch, 0.0
            checkpoint = trial.reports[-1].checkpoint if trial.reports else None
            return Job(trial.number, trial.config, trial.folder, checkpoint=checkpoint)

    def _first_job(self, state: StudyState) -> Job | None:
        """Return the job of the first trial, which is begun however short the time is, so that there is a result."""
        trial = state.new_trial()
        return None if trial is None else Job(trial.number, trial.config, trial.folder)

    def _think_again(self, state: StudyState, searcher: AutoSearcher, report: EpochDone) -> Decision:
        key = self._key(state.trials[report.trial])
        searcher.pause(key)
        advice = self._ask(searcher, {*self._paused, key}, state.seconds_left, starts_first=False)
        self._since_s[report.trial] = 0.0
        if advice is not None and advice.key != key:
            return Decision.PAUSE
        # Without advice nothing would be ready in time; then the trial itself knows best what can still be done.
        until = report.epoch + 1 if advice is None else advice.until_epoch
        searcher.begin_again(key, until)
        self._targets[report.trial] = until
        return Decision.CONTINUE

    def _ask(self, searcher: AutoSearcher, paused: set[Hashable], seconds_left: float, **how: bool) -> Advice | None:
        start_s = time.perf_counter()
        advice = searcher.advise(paused, seconds_left, **how)
        self._thinking_s = time.perf_counter() - start_s
        return advice

    def _drop_unpromising(self, searcher: AutoSearcher) -> None:
        if len(self._paused) > MAX_WAITING:
            keys = sorted(self._paused, key=searcher.promise, reverse=True)
            self._paused = {key: self._paused[key] for key in keys[: MAX_WAITING // 2]}

    def _key(self, trial: Trial) -> Hashable:
        if trial.number not in self._keys:
            self._keys[trial.number] = canonical_key(trial.config)
        return self._keys[trial.number]

    def _measured_ladder(self, state: StudyState) -> ASHAScheduler | None:
        """Return ASHA with rungs for the time that is left; None before an epoch has been measured."""
        epoch_s = [each.seconds for each in self._before if isinstance(each, EpochDone) and each.epoch >= 1]
        if not epoch_s:
            return None
        longest = DEFAULT_EPOCHS if self.max_epochs is None else self.max_epochs
        grace_epochs, factor = choose_rungs(longest, state.seconds_left, epoch_s[0], state.num_workers)
        return self._told(ASHAScheduler(self.max_epochs, min(grace_epochs, longest), factor), state)

    def _ladder_for_trials(self, state: StudyState) -> ASHAScheduler:
        """Return ASHA with rungs for the number of trials."""
        longest = self.max_epochs
        if longest is None and isinstance(state.searcher, AutoSearcher):
            longest = state.searcher.num_epochs
        return ASHAScheduler(self.max_epochs, *choose_rungs_for(state.num_trials, longest or DEFAULT_EPOCHS))

    def _told(self, asha: ASHAScheduler, state: StudyState) -> ASHAScheduler:
        """Tell ASHA of what came before it."""
        for each in self._before:
            if isinstance(each, EpochDone):
                asha.on_report(each)
            else:
                asha.on_end(each)
        asha.on_start(state)
        return asha
