"""What a final predictor may be made of: trials, and soups of them, with what they say of the held-out images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.training.classifier import Blueprint
from saccade.training.ensemble import (
    Judgement,
    best_single,
    cross_fit,
    equal_scores_differ_by,
    judge,
    select_weights,
    weighted_mean,
)
from saccade.training.own_parts import OwnPart
from saccade.training.problem import Problem
from saccade.training.task import ImageTask
from saccade.training.trial_files import BLUEPRINT, outputs_file, weights_file
from saccade.trial import Status, Trial

MOST_BYTES = 2**29
"""Of all candidates' predictions together; those with lower scores are left out."""


@dataclass(frozen=True)
class Candidate:
    """A network with its weights, and its predictions for the held-out images.

    Attributes
    ----------
    trial : int
        Its number; of a soup, that of the best trial in it.
    config : dict
        The hyperparameters of that trial.
    blueprint : Blueprint
        The network.
    weights : Path
        The file of its weights.
    predictions : ndarray, shape (num_images, num_outputs)
        As `Problem.activate` returns them.
    soup : tuple of int
        The trials whose weights were averaged; empty for a trial's own.
    """

    trial: int
    config: dict[str, Any]
    blueprint: Blueprint
    weights: Path
    predictions: np.ndarray
    soup: tuple[int, ...] = ()

    @property
    def own_network(self) -> OwnPart | None:
        """The network of the user's own, if it is one."""
        model = self.config.get("model")
        return model if isinstance(model, OwnPart) else None


@dataclass(frozen=True)
class Combination:
    """What was found to be best: one candidate, or several with weights.

    Attributes
    ----------
    members : list of Candidate
        The one with the highest score first.
    weights : list of float
        How much each counts; they sum to 1.
    judgement : Judgement
        What is to be said of it: cross-fitted for an ensemble; of a single candidate, what it does on all images.
    ensemble, single : Judgement or None
        What cross-fitting found of both, where there were several candidates.
    """

    members: list[Candidate]
    weights: list[float]
    judgement: Judgement
    ensemble: Judgement | None = None
    single: Judgement | None = None


def read_blueprint(trial: Trial) -> Blueprint:
    """Return the blueprint in a trial's folder."""
    return Blueprint.from_json(json.loads((Path(trial.folder) / BLUEPRINT).read_text(encoding="utf-8")))


def read_predictions(outputs: Path, task: ImageTask) -> np.ndarray | None:
    """Return the predictions in a file of a network's outputs; None unless it has those of all held-out images."""
    try:
        rows: np.ndarray = np.load(outputs, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # it has been removed, or cut short
        return None
    if rows.shape != (len(task.val.targets), task.problem.num_outputs) or not np.isfinite(rows).all():
        return None
    return activated(rows, task.problem)


def activated(outputs: np.ndarray, problem: Problem) -> np.ndarray:
    """Return predictions of raw outputs, both of shape (num_images, num_outputs)."""
    return problem.activate(torch.from_numpy(outputs)).numpy()


def read_candidates(trials: Sequence[Trial], task: ImageTask) -> list[Candidate]:
    """Return the trials whose weights, and outputs for all held-out images, are there; the highest score first."""
    candidates: list[Candidate] = []
    num_bytes = 0
    for trial in ranked(trials):
        assert trial.best_report is not None
        folder, epoch = Path(trial.folder), trial.best_report.epoch
        weights = weights_file(folder, epoch)
        predictions = read_predictions(outputs_file(folder, epoch), task) if weights.is_file() else None
        if predictions is None:
            continue
        num_bytes += predictions.nbytes
        if num_bytes > MOST_BYTES and candidates:
            break
        candidates.append(Candidate(trial.number, trial.config, read_blueprint(trial), weights, predictions))
    return candidates


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have a score and did not fail, the highest score first, the earliest among equals."""
    usable = [trial for trial in trials if trial.best_report is not None and trial.status is not Status.FAILED]
    return sorted(usable, key=lambda trial: (-_score(trial), trial.number))


def _score(trial: Trial) -> float:
    return -math.inf if trial.best_report is None else trial.best_report.score


def combine(
    candidates: Sequence[Candidate],
    task: ImageTask,
    max_members: int = 5,
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Combination:
    """Return the best single candidate, or an ensemble where cross-fitting says that it is better.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    task : ImageTask
        The held-out images, and what judges.
    max_members : int
        The most members of an ensemble; with 1 there is none.
    seed : int
        See `saccade.training.ensemble.cross_fit`.
    seconds_left : callable
        Without time there is no ensemble.

    Raises
    ------
    DataError
        When the metric is not defined on the held-out images.
    """
    targets, problem, metric = task.val.targets, task.problem, task.metric
    best = candidates[best_single([one.predictions for one in candidates], targets, problem, metric)]
    alone = Combination([best], [1.0], judge(best.predictions, targets, problem, metric))
    candidates = _with_one_own_network(candidates, best)
    if max_members == 1 or len(candidates) == 1:
        return alone
    predictions = [one.predictions for one in candidates]
    judged = cross_fit(predictions, targets, problem, metric, max_members, seed, seconds_left)
    if judged is None:
        return alone
    ensemble, single = judged
    alone = Combination(alone.members, alone.weights, alone.judgement, ensemble, single)
    weights = select_weights(predictions, targets, problem, max_members, seed)
    chosen = [number for number in range(len(candidates)) if weights[number]]
    is_better = ensemble.is_better_than(single, equal_scores_differ_by(len(targets), problem))
    if len(chosen) == 1 or not is_better:
        return alone
    scores = {number: metric.score(metric(targets, predictions[number], problem)) for number in chosen}
    chosen.sort(key=lambda number: (-scores[number], number))
    members = [candidates[number] for number in chosen]
    return Combination(members, [float(weights[number]) for number in chosen], ensemble, ensemble, single)


def mean_predictions(combination: Combination) -> np.ndarray:
    """Return what a combination predicts for the held-out images, by which its weights were chosen."""
    return weighted_mean([one.predictions for one in combination.members], combination.weights)


def _with_one_own_network(candidates: Sequence[Candidate], best: Candidate) -> list[Candidate]:
    """Leave out networks of the user's own but for one: a predictor is loaded with one of them at most."""
    own = next((one.own_network for one in [best, *candidates] if one.own_network is not None), None)
    return [one for one in candidates if one.own_network in (None, own)]
