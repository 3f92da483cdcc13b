"""The best recipe once for each of several folds: their networks are the predictor, and every image judges it.

With few images, a tenth of them is too few to judge by, and to learn without them costs as much. With folds all of them
do both. The predictions of the networks are averaged.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.selection.candidates import Candidate, Combination, read_blueprint, read_predictions
from saccade.selection.ensemble import judge
from saccade.selection.folds import OUTPUTS, TEACHES_ALWAYS, FoldOrder, FoldTrainable, fold_numbers, part_of
from saccade.selection.summary import combined_figures
from saccade.study.trial import Decision, Job, Trial
from saccade.training.task import ImageTask
from saccade.training.trial_files import save_outputs, weights_file

JUDGING_PART = 1 / 3
"""What an image costs that is judged, in those that are learned from: forward without backward."""

MARGIN = 1.1
"""How much longer folds may take than what the best trial took says."""


@dataclass(frozen=True)
class FoldCosts:
    """What the training of folds takes, in terms of what a search measures.

    Attributes
    ----------
    ratio : float
        How many times as long as the best trial, up to its best epoch.
    num_rounds : int
        How many trainings there are one after the other, each of which must be set up.
    num_members : int
        Files of weights that are copied.
    """

    ratio: float
    num_rounds: int
    num_members: int

    @classmethod
    def of(cls, num_train: int, num_val: int, num_folds: int, num_workers: int) -> FoldCosts:
        """Return the costs.

        Parameters
        ----------
        num_train, num_val : int
            Images that a trial of the search learns from, and is judged by.
        num_folds, num_workers : int
            How many trainings there are, and how many of them at once.

        Examples
        --------
        >>> costs = FoldCosts.of(90, 10, num_folds=5, num_workers=2)
        >>> costs.num_rounds, round(costs.ratio, 1)
        (3, 3.1)
        """
        num_images = num_train + num_val
        num_rounds = math.ceil(num_folds / max(1, num_workers))
        of_fold = num_images * (num_folds - 1 + JUDGING_PART) / num_folds
        ratio = MARGIN * num_rounds * of_fold / (num_train + JUDGING_PART * num_val)
        return cls(ratio, num_rounds, num_folds)


@dataclass(frozen=True)
class Folded:
    """What came of the folds.

    Attributes
    ----------
    combination : Combination
        The networks, each of which counts as much as the others.
    predictions, targets : ndarray, shape (num_images, num_outputs), and as `Problem.encode` returns them
        Of each image, what the network said of it that had not learned from it; and what is right.
    num_folds : int
        How many.
    """

    combination: Combination
    predictions: np.ndarray
    targets: np.ndarray
    num_folds: int

    def figures(self) -> dict[str, Any]:
        """Return what a summary says of it, over what it says of the best trial."""
        how = (
            f"out of fold: each of {len(self.targets)} images by that one of {self.num_folds} networks that had not "
            "learned from it"
        )
        figures = combined_figures(self.combination, self.num_folds)
        rows = [{**row, "fold": number} for number, row in enumerate(figures["ensemble"])]
        own = {"ensemble": rows, "valid_score_how": how, "num_folds": self.num_folds}
        return {
            **figures,
            **own,
            "calibrated_on": f"{len(self.targets)} images, out of fold",
        }


class Folding:
    """Trains the best trial's recipe on folds.

    Parameters
    ----------
    task : ImageTask
        The task of the search, whose training and validation images are divided together.
    num_folds, seed : int
        How many folds, and the seed of the draw.

    Raises
    ------
    DataError
        When there are too few images.
    """

    def __init__(self, task: ImageTask, num_folds: int, seed: int) -> None:
        every = task.train.joined(task.val)
        digests = np.asarray(task.store.digests)[every.indices].tolist()
        self.task, self.num_folds = replace(task, train=every), num_folds
        self.folds = fold_numbers(every.targets, task.problem, digests, num_folds, seed)
        self._num_train, self._num_val = len(task.train.indices), len(task.val.indices)

    def costs(self, num_workers: int) -> FoldCosts:
        """Return what it takes with so many workers."""
        return FoldCosts.of(self._num_train, self._num_val, self.num_folds, num_workers)

    def run(self, executor: Executor, best: Trial, folder: Path, deadline: Deadline, tell: Listener) -> Folded | None:
        """Train a network for each fold up to the best trial's best epoch, its schedule as long as that.

        Parameters
        ----------
        executor : Executor
            Idle, with its workers warm.
        best : Trial
            Its configuration and its best epoch count.
        folder : Path
            Where the files go.
        deadline : Deadline
            When it must be over. Folds that are not all finished by then are of no use.
        tell : callable
            Told of progress, and of the reason when nothing comes of it.

        Returns
        -------
        Folded or None
            None when the best of the search is what there is.
        """
        problem = self._train(executor, best, folder, deadline, tell)
        outputs = [] if problem else self._outputs(best, folder)
        if not problem and len(outputs) < self.num_folds:
            problem = f"{len(outputs)} of {self.num_folds} were finished"
        try:
            folded = None if problem else self._folded(best, folder, outputs)
        except DataError as error:  # the metric is not defined on these images
            folded, problem = None, str(error)
        if problem:
            tell(Warned(f"no {self.num_folds} folds ({problem}); the best of the search is kept"))
        return folded

    def _train(self, executor: Executor, best: Trial, folder: Path, deadline: Deadline, tell: Listener) -> str:
        """Train all folds; return the reason where that cannot be done."""
        assert best.best_report is not None
        num_epochs = best.best_report.epoch
        config = {**best.config, "epochs": max(1, num_epochs)}
        executor.trainable = FoldTrainable(self.task, self.folds)
        waiting = deque(range(self.num_folds))
        started_s: dict[int, float] = {}
        taken_s: list[float] = []
        trial_s = sum(report.seconds for report in best.reports if report.epoch <= num_epochs)
        costs = self.costs(executor.num_workers)
        expected_s = trial_s * costs.ratio / costs.num_rounds / MARGIN
        num_done: dict[int, int] = {}  # of each fold, the probe included
        problems: list[str] = []

        def submit() -> None:
            while waiting and executor.num_free and not problems:
                num_rounds = math.ceil(len(waiting) / executor.num_workers)
                need_s = num_rounds * max(taken_s, default=expected_s)
                if need_s > deadline.seconds_left():
                    problems.append(
                        f"{len(waiting)} of them take about {need_s:.1f} s, and "
                        f"{max(0.0, deadline.seconds_left()):.1f} s are left; give a longer time_limit"
                    )
                    return
                fold = waiting.popleft()
                started_s[fold] = deadline.elapsed_s()
                place, left_s = str(_folder(folder, fold)), deadline.seconds_left()
                order = FoldOrder(fold, config)
                job = Job(fold, {"order": order}, place, num_epochs, seconds_left=left_s)
                executor.submit(job)

        def handle(event: Event) -> Decision:
            match event:
                case EpochDone(trial=fold, epoch=epoch):
                    num_done[fold] = epoch + 1
                    tell(Progressed("training on folds", sum(num_done.values()), self.num_folds * (num_epochs + 1)))
                case JobFailed(trial=fold, reason=reason):
                    problems.append(f"fold {fold + 1}: {reason}")
                case JobDone(trial=fold):
                    taken_s.append(deadline.elapsed_s() - started_s[fold])
                    submit()
            return Decision.STOP if problems else Decision.CONTINUE

        submit()
        if started_s:
            executor.run(handle)
        return problems[0] if problems else ""

    def _outputs(self, best: Trial, folder: Path) -> list[np.ndarray]:
        """Return what each network says of its fold, raw, of those that were finished."""
        assert best.best_report is not None
        trainable, found = FoldTrainable(self.task, self.folds), []
        for fold in range(self.num_folds):
            place = _folder(folder, fold)
            is_there = weights_file(place, best.best_report.epoch).is_file()
            if is_there and read_predictions(place / OUTPUTS, trainable.of_fold(fold)) is not None:
                found.append(np.load(place / OUTPUTS, allow_pickle=False))
        return found

    def _folded(self, best: Trial, folder: Path, outputs: Sequence[np.ndarray]) -> Folded:
        assert best.best_report is not None
        every, is_judged = self.task.train, self.folds != TEACHES_ALWAYS
        rows = np.zeros((len(every.indices), self.task.problem.num_outputs), np.float32)
        for fold, of_fold in enumerate(outputs):
            rows[self.folds == fold] = of_fold
        judged = part_of(every, is_judged)
        task = replace(self.task, val=judged)
        save_outputs(folder / OUTPUTS, rows[is_judged])
        predictions = read_predictions(folder / OUTPUTS, task)
        assert predictions is not None
        judgement = judge(predictions, judged.targets, task.problem, task.metric)
        files = [weights_file(_folder(folder, fold), best.best_report.epoch) for fold in range(self.num_folds)]
        blueprint = read_blueprint(best)
        members = [Candidate(best.number, best.config, blueprint, file, predictions) for file in files]
        combination = Combination(members, [1 / len(members)] * len(members), judgement)
        return Folded(combination, predictions, judged.targets, self.num_folds)


def _folder(folder: Path, fold: int) -> Path:
    return folder / f"{fold:04d}"
