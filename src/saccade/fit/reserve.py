"""What is kept for the end of a fit while the search runs: time, by measurement, and the files that may be needed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from saccade.events import Event, JobDone, JobFailed
from saccade.fit.options import FitOptions
from saccade.fit.time_budget import num_networks_kept
from saccade.study.objectives import cost_names, same_costs
from saccade.study.study import Study
from saccade.study.trial import Status, Trial
from saccade.training.trial_files import drop_files, probe_file


class SupersededWeights:
    """Removes what a trial has left on the disk once it can be neither continued nor the best one.

    Listen with it to the events of a study. A trial that is running or paused keeps its files; of those that have
    ended, the best one keeps its weights, also while another that has not ended yet leads: that one may still fail.
    Where costs are objectives too, that holds for each network, since only another network can cost less. For an
    ensemble the best trial of each of several networks is kept. Of probes one for each network is kept.

    Parameters
    ----------
    study : Study
        Trials that have ended already are tidied up at once.
    objectives : sequence of str
        As `saccade.study.objectives.check_objectives` returns them.
    num_networks : int
        Of how many networks the best trial is kept.
    """

    def __init__(self, study: Study, objectives: Sequence[str] = (), num_networks: int = 1) -> None:
        self._study = study
        has_costs = bool(cost_names(objectives))
        self._num_networks = float("inf") if has_costs else num_networks
        self._kept: dict[Hashable, Trial] = {}  # the best trial of each network
        self._probed: dict[Hashable, int] = {}  # the trial whose probe is kept, by network
        for trial in study.trials:
            self._settle(trial)

    def __call__(self, event: Event) -> None:
        """Tidy up after a job."""
        if isinstance(event, JobDone | JobFailed):
            self._settle(self._study.trials[event.trial])

    def _settle(self, trial: Trial) -> None:
        if trial.status in (Status.RUNNING, Status.PAUSED):
            return
        folder = Path(trial.folder)
        drop_files(folder, "last")
        if trial.status is Status.FAILED:
            _drop_weights(folder)
            return
        if self._probed.setdefault(same_costs(trial.config), trial.number) != trial.number:
            probe_file(folder).unlink(missing_ok=True)
        key = None if self._num_networks == 1 else same_costs(trial.config)
        before = self._kept.get(key, trial)
        self._kept[key] = max(before, trial, key=_rank)
        losers = [] if before is trial else [min(before, trial, key=_rank)]
        if len(self._kept) > self._num_networks:
            losers.append(self._kept.pop(min(self._kept, key=lambda name: _rank(self._kept[name]))))
        for loser in losers:
            _drop_weights(Path(loser.folder))


def _drop_weights(folder: Path) -> None:
    drop_files(folder, "best")
    drop_files(folder, "end")


def _rank(trial: Trial) -> tuple[float, int]:
    """Return what is largest for the best trial, the earliest among equals."""
    return (-float("inf") if trial.best_report is None else trial.best_report.score, -trial.number)


def superseded_weights(study: Study, settings: FitOptions) -> SupersededWeights:
    """Return what removes the files that neither the predictor nor what is combined for it can need."""
    return SupersededWeights(study, settings.objectives, num_networks_kept(settings.max_members))
