"""Cross-validation of the best recipe: a network for each fold, trained on the other folds.

With few images a tenth of them is too small a validation set, and to train without them costs as much. In k-fold
cross-validation (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974) all images serve
both purposes. The predictions of the networks are averaged. Each image has an out-of-fold prediction, by the network
that was not trained on it: neither its weights nor the length of its training depend on that image.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from saccade.data.splitting import Groups, joined_groups, split_folds
from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.numerics.device import cpu_threads
from saccade.selection.candidates import Candidate, activate, read_blueprint, read_predictions
from saccade.selection.combination import Combination
from saccade.selection.ensemble import evaluate
from saccade.study.life import TIME_LIMIT
from saccade.study.study import GRACE_S
from saccade.study.trial import Decision, Job, LocalFiles, Reporter, Trainable, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer, ranks_of
from saccade.training.trial_files import BEST, save_outputs

OUTPUTS = "fold.outputs.npy"  # a network's raw outputs for the images of its fold, as in `trial_files`
TRAIN_ONLY = -1  # the fold of images that are in every training set: without them a class might be missing in one
VALIDATION_COST = 1 / 3  # time of validation on an image, in units of training on one: forward without backward
MARGIN = 1.1  # factor on the time that folds are expected to take


@dataclass(frozen=True)
class FoldCosts:
    """The time of training on folds."""

    ratio: float  # of all folds, in units of the best trial's time up to its best epoch
    num_rounds: int  # trainings one after the other on one worker, each with its own setup
    num_members: int  # files of weights in the predictor

    @classmethod
    def of(cls, num_train: int, num_val: int, num_folds: int, num_workers: int) -> FoldCosts:
        """Return the costs of trainings where a trial has `num_train` training and `num_val` validation images."""
        num_rounds = math.ceil(num_folds / max(1, num_workers))
        of_fold = (num_train + num_val) * (num_folds - 1 + VALIDATION_COST) / num_folds
        return cls(MARGIN * num_rounds * of_fold / (num_train + VALIDATION_COST * num_val), num_rounds, num_folds)


def fold_numbers(targets: np.ndarray, problem: Problem, groups: Groups, num_folds: int, seed: int = 0) -> np.ndarray:
    """Return the stratified fold of each image, equal for equal `groups`; `TRAIN_ONLY` for a class's only one."""
    strata = problem.strata(targets)
    folds = split_folds(strata, num_folds, np.random.default_rng(seed), groups)
    # A class with a single group cannot be in a fold: no training image of it would be left.
    groups = joined_groups(len(targets), groups)
    num_different = pd.Series(groups).groupby(strata).transform("nunique").to_numpy()
    folds[np.isin(groups, groups[num_different == 1])] = TRAIN_ONLY
    if len(np.setdiff1d(folds, [TRAIN_ONLY])) < num_folds:
        raise DataError(
            f"num_folds={num_folds} is too many for {len(set(groups.tolist()))} different images or groups: each fold "
            "requires one of a class that has another one. Pass a smaller number, or leave out num_folds"
        )
    return folds


class FoldTrainable(Trainable):
    """Trains networks on all folds but one: one job for each fold.

    The configuration of a job is ``{"fold": int, "config": dict}``. Its folder gets the files of a trial, and `OUTPUTS`
    when the job is done. The weights of the job's last epoch count, whatever its score. The training images of `task`
    are those of all `folds`.
    """

    def __init__(self, task: ImageTask, folds: np.ndarray) -> None:
        self.task, self.folds = task, folds

    def task_of(self, fold: int) -> ImageTask:
        """Return the task of training without a fold, which is the validation set."""
        is_left_out = self.folds == fold
        return replace(
            self.task,
            train=self.task.train.take(~is_left_out),
            val=self.task.train.take(is_left_out),
            # The score of one fold is not used, and some metrics are not defined on so few images.
            metric=make_metric(None, self.task.problem),
            is_refit=True,  # nothing may be selected on the images that evaluate
        )

    def train(self, job: Job, report: Reporter) -> str:
        """Train one network up to the job's last epoch, and write its outputs for the fold that was left out."""
        deadline = Deadline(job.seconds_left)
        assert job.files is not None
        with cpu_threads(self.task.num_threads), ranks_of(self.task) as ranks:
            task, recipe = self.task_of(job.config["fold"]), Recipe.of(job.config["config"])
            trainer = Trainer(task, recipe, job.files, job.trial, ranks)
            reason = trainer.run(replace(job, seconds_left=deadline.seconds_left()), report)
            if (outputs := trainer.validation.outputs) is not None:
                job.files.put(job.trial, OUTPUTS, None, lambda path: save_outputs(path, outputs))
        return reason

    def portable(self, job: Job) -> tuple[Job, LocalFiles]:
        """Return the job with the file of its pretrained weights, and the files of `ImageTask.portable`."""
        config, files = self.task.portable(job.config["config"], job.seconds_left)
        return replace(job, config={**job.config, "config": config}), files


class CrossValidation:
    """Trains the best trial's recipe on folds of the training and validation images together."""

    def __init__(self, task: ImageTask, num_folds: int, seed: int) -> None:
        every = task.train.joined(task.val)
        self.num_folds = num_folds
        self.folds = fold_numbers(every.targets, task.problem, every.groups, num_folds, seed)
        self.trainable = FoldTrainable(replace(task, train=every), self.folds)
        self._sizes = len(task.train.indices), len(task.val.indices)

    def costs(self, num_workers: int) -> FoldCosts:
        """Return the time that this many workers need."""
        return FoldCosts.of(*self._sizes, self.num_folds, num_workers)

    def run(
        self, executor: Executor, best: Trial, folder: Path, deadline: Deadline, notify: Listener
    ) -> Combination | None:
        """Train each fold up to the best epoch of `best`; return their mean, or None after a warning."""
        found, problem = None, self._train(executor, best, folder, deadline, notify)
        if not problem:
            try:
                found = self._combination(best, folder)
                problem = "" if found else "not all of them were finished"
            except DataError as error:  # the metric is not defined on these images
                problem = str(error)
        if problem:
            notify(Warned(f"no {self.num_folds} folds ({problem}); the best of the search is kept"))
        return found

    def _train(self, executor: Executor, best: Trial, folder: Path, deadline: Deadline, notify: Listener) -> str:
        """Train all folds; return the reason if that failed."""
        assert best.best_report is not None
        num_epochs = best.best_report.epoch
        config = {**best.config, "epochs": max(1, num_epochs)}
        executor.trainable = self.trainable
        waiting = deque(range(self.num_folds))
        started_s: dict[int, float] = {}
        taken_s: list[float] = []
        trial_s = sum(report.seconds for report in best.reports if report.epoch <= num_epochs)
        costs = self.costs(executor.num_workers)
        expected_s = trial_s * costs.ratio / costs.num_rounds / MARGIN
        num_done: dict[int, int] = {}  # epochs of each fold, the probe included
        problems: list[str] = []
        ended: set[int] = set()

        def submit() -> None:
            while waiting and executor.num_free and not problems:
                num_rounds = math.ceil(len(waiting) / executor.num_workers)
                need_s = num_rounds * max(taken_s, default=expected_s)
                if need_s > deadline.seconds_left():
                    problems.append(
                        f"{len(waiting)} of them take about {need_s:.1f} s, and "
                        f"{max(0.0, deadline.seconds_left()):.1f} s are left; increase time_limit"
                    )
                    return
                fold = waiting.popleft()
                started_s[fold] = deadline.elapsed_s()
                of_fold, left_s = {"fold": fold, "config": config}, deadline.seconds_left()
                executor.submit(Job(fold, of_fold, num_epochs, seconds_left=left_s, files=LocalTrialFiles(folder)))

        def handle(event: Event) -> Decision:
            match event:
                case EpochDone(trial=fold, epoch=epoch):
                    num_done[fold] = epoch + 1
                    notify(Progressed("training on folds", sum(num_done.values()), self.num_folds * (num_epochs + 1)))
                case JobDone(trial=fold, reason=reason) if reason == TIME_LIMIT:
                    ended.add(fold)
                    problems.append(f"fold {fold + 1}: {reason}")
                case JobFailed(trial=fold, reason=reason):
                    ended.add(fold)
                    problems.append(f"fold {fold + 1}: {reason}")
                case JobDone(trial=fold):
                    ended.add(fold)
                    taken_s.append(deadline.elapsed_s() - started_s[fold])
                    submit()
            return Decision.STOP if problems else Decision.CONTINUE

        submit()
        if started_s:
            executor.run_within_limits(
                handle, lambda: {fold: deadline.seconds_left() + GRACE_S for fold in started_s if fold not in ended}
            )
        return problems[0] if problems else ""

    def _combination(self, best: Trial, folder: Path) -> Combination | None:
        """Return the networks of all folds with their out-of-fold predictions; None unless all were finished."""
        assert best.best_report is not None
        task, epoch = self.trainable.task, best.best_report.epoch
        outputs = np.zeros((len(task.train.indices), task.problem.num_outputs), np.float32)
        files, weights = LocalTrialFiles(folder), []
        for fold in range(self.num_folds):
            file, path = files.get(fold, BEST, epoch), files.get(fold, OUTPUTS)
            if file is None or path is None or read_predictions(path, self.trainable.task_of(fold)) is None:
                return None
            weights.append(file)
            outputs[self.folds == fold] = np.load(path, allow_pickle=False)
        is_evaluated = self.folds != TRAIN_ONLY
        evaluated = task.train.take(is_evaluated)
        predictions, targets = activate(outputs[is_evaluated], task.problem), evaluated.targets
        first = self.trainable.task_of(0)
        own = best.number, best.config, read_blueprint(best), predictions, epoch
        return Combination(
            [Candidate(*own, file) for file in weights],
            [1 / self.num_folds] * self.num_folds,
            predictions,
            targets,
            f"out of fold: each of {len(targets)} images by the one of {self.num_folds} networks that was not trained "
            "on it",
            evaluate(predictions, targets, task.problem, task.metric, groups=evaluated.groups),
            num_folds=self.num_folds,
            groups=evaluated.groups,
            indices=evaluated.indices,
            split=(first.train, first.val),
        )
