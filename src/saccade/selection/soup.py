"""Greedy soups: the mean of the weights of several trials of one network, which predicts no slower than one of them.

The method is that of Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time" (ICML 2022): trials are added in the order of their scores, and each stays only if
the held-out images say that the mean is better for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from saccade.deadline import Deadline
from saccade.events import EpochDone
from saccade.inference.classifier import Blueprint, empty_classifier
from saccade.models.custom import OwnPart
from saccade.numerics.device import Numerics, choose_device, cpu_threads
from saccade.selection.candidates import activated, read_predictions
from saccade.selection.ensemble import Judgement, judge
from saccade.study.trial import Decision, Job, Reporter, Trainable
from saccade.training.task import ImageTask
from saccade.training.trial_files import save_outputs

WEIGHTS, OUTPUTS, RECORD = "soup.safetensors", "soup.outputs.npy", "soup.json"
"""Files of a soup: its weights, its outputs for the held-out images, and, written last, which trials are in it."""

LEAST_NORM_IMAGES = 256
"""How many training images at least, if there are so many, the statistics of batch normalisation come from."""

STATISTICS = ("running_mean", "running_var")

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Ingredient:
    """A trial that may go into a soup.

    Attributes
    ----------
    trial : int
        Its number.
    weights, outputs : Path
        The files of its weights, and of its outputs for the held-out images.
    """

    trial: int
    weights: Path
    outputs: Path


@dataclass(frozen=True)
class SoupOrder:
    """What a soup may be made of.

    Attributes
    ----------
    ingredients : list of Ingredient
        The trial with the highest score first; all of one blueprint.
    blueprint : Blueprint
        The network.
    own : OwnPart or None
        The network, where it is the user's own.
    amp : bool or None
        As in `Recipe`.
    tasting_s : float
        Seconds that judging one mean may take, as far as it is known.
    """

    ingredients: list[Ingredient]
    blueprint: Blueprint
    own: OwnPart | None = None
    amp: bool | None = None
    tasting_s: float = 0.0


@dataclass(frozen=True)
class Soup:
    """A mean of weights.

    Attributes
    ----------
    trials : list of int
        Whose weights they are.
    state : dict of Tensor
        The mean.

    Examples
    --------
    >>> soup = Soup([3], {"weight": torch.tensor([1.0])}).plus(5, {"weight": torch.tensor([2.0])})
    >>> soup.trials, soup.plus(6, {"weight": torch.tensor([6.0])}).state
    ([3, 5], {'weight': tensor([3.])})
    """

    trials: list[int]
    state: State = field(repr=False)

    def plus(self, trial: int, state: State) -> Soup:
        """Return the mean with one more; of whole numbers, such as counts of batches, the first trial's stay."""
        part = 1 / (len(self.trials) + 1)
        mean = {
            name: torch.lerp(tensor, state[name], part) if tensor.is_floating_point() else tensor
            for name, tensor in self.state.items()
        }
        return Soup([*self.trials, trial], mean)


class SoupTrainable(Trainable):
    """Makes soups: one job, one soup.

    The configuration of a job is ``{"order": SoupOrder(…)}``. If a second trial makes the mean better, the job's folder
    gets the files `WEIGHTS`, `OUTPUTS` and `RECORD`; otherwise nothing. Of each trial that was tried there is a report.

    Parameters
    ----------
    task : ImageTask
        The task of the search.
    """

    def __init__(self, task: ImageTask) -> None:
        self.task = task

    def train(self, job: Job, report: Reporter) -> str:
        """Make one soup, as far as time allows."""
        with cpu_threads(self.task.num_threads):
            return self._cook(job, job.config["order"], report)

    def _cook(self, job: Job, order: SoupOrder, report: Reporter) -> str:
        deadline = Deadline(job.seconds_left)
        first, *others = order.ingredients
        predictions = read_predictions(first.outputs, self.task)
        if predictions is None:
            return "what the first trial says of the held-out images is gone"
        best, soup = self._judge(predictions), Soup([first.trial], load_file(first.weights))
        pan = _Pan(self.task, order, soup.state, len(others))
        for number, ingredient in enumerate(others, start=1):
            if deadline.seconds_left() < pan.tasting_s:
                return "time limit"
            start_s = time.perf_counter()
            tried = soup.plus(ingredient.trial, load_file(ingredient.weights))
            outputs = pan.taste(tried, deadline.seconds_left)
            if len(outputs) < len(self.task.val.targets):
                return "time limit"
            judgement = self._judge(activated(outputs, self.task.problem))
            if is_better := judgement.is_better_than(best):
                best, soup = judgement, tried
                self._write(Path(job.folder), soup, pan.weights(), outputs)
            figures = {**judgement.figures, "is_better": float(is_better)}
            seconds = time.perf_counter() - start_s
            if report(EpochDone(job.trial, number, judgement.score, seconds, figures)) is not Decision.CONTINUE:
                return "stopped"
        return ""

    def _judge(self, predictions: np.ndarray) -> Judgement:
        return judge(predictions, self.task.val.targets, self.task.problem, self.task.metric)

    @staticmethod
    def _write(folder: Path, soup: Soup, weights: State, outputs: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        save_file(weights, folder / WEIGHTS)
        save_outputs(folder / OUTPUTS, outputs)
        (folder / RECORD).write_text(json.dumps({"trials": soup.trials}), encoding="utf-8")


class _Pan:
    """The network that means of weights are tried in."""

    def __init__(self, task: ImageTask, order: SoupOrder, first: State, num_tastings: int) -> None:
        numerics = Numerics(choose_device(task.device))
        self.classifier = empty_classifier(order.blueprint, task.problem, numerics, order.own, order.amp)
        self.batches = self.classifier.batches(task.store, task.val.indices, task.val.targets)
        self.classifier.choose_inference(num_tastings * len(self.batches), self.batches.batch_size)
        self.tasting_s = order.tasting_s
        has_norm = any(isinstance(module, _BatchNorm) for module in self.classifier.network.modules())
        self._statistics = {name: first[name] for name in first if has_norm and name.endswith(STATISTICS)}
        num_images = min(len(task.train.indices), max(LEAST_NORM_IMAGES, len(task.val.indices)))
        drawn = np.random.default_rng(0).choice(task.train.indices, num_images, replace=False)
        self.training_batches = self.classifier.batches(task.store, drawn)

    def taste(self, soup: Soup, seconds_left: Callable[[], float]) -> np.ndarray:
        """Return the outputs for the held-out images, of fewer when time is short."""
        start_s = time.perf_counter()
        network = self.classifier.network
        network.load_state_dict(soup.state)
        # Those of a mean of weights are not the mean of statistics; where all trials kept the same ones, they stay.
        if any(not torch.equal(soup.state[name], before) for name, before in self._statistics.items()):
            with self.classifier.inference.autocast():
                update_bn(self.training_batches.in_order(), network)
        outputs = self.classifier.outputs(self.batches, seconds_left=seconds_left)
        self.tasting_s = max(self.tasting_s, time.perf_counter() - start_s)
        return outputs

    def weights(self) -> State:
        """Return what was tasted."""
        return {name: tensor.contiguous().cpu() for name, tensor in self.classifier.network.state_dict().items()}
