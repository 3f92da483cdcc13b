"""Successive probing: choose among many networks for little more than the cost of probing the best few.

All networks embed the same few training images, those with the worse half of the out-of-fold losses are dropped, and
the others embed twice as many, until few are left (successive halving, Jamieson and Talwalkar, "Non-stochastic best arm
identification and hyperparameter optimization", AISTATS 2016). Features are cached by image, and the images are the
first ones of later probes, so nothing is computed twice.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from saccade.data.splitting import stratified_order
from saccade.deadline import Deadline
from saccade.errors import SaccadeError
from saccade.events import Listener, Progressed, Warned
from saccade.inference.classifier import Classifier
from saccade.models.downloads import Downloads
from saccade.numerics.device import Numerics, choose_device, cpu_threads
from saccade.space import Dict
from saccade.study.objectives import load
from saccade.training.probes.heads import HeadFitter
from saccade.training.probes.probe import cached_features, max_probe_images
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.network_costs import network_costs
from saccade.training.trial.trainer import choose_for_probe

MOST_KEPT, LEAST_KEPT = 6, 3  # networks that are left, by the time that their whole probes take
FIRST_IMAGES, IMAGES_PER_OUTPUT = 128, 4  # that each network embeds first
LEAST_IMAGES = 64  # the same if there is no time for more
FIRST_PART = 0.2  # of the remaining time, in which networks embed these images, and are downloaded
FULL_PART = 0.35  # of the remaining time, in which the whole probes of the networks that are left should fit
MAX_BYTES_IN_MEMORY = 2e9  # weights of the networks that stay in memory between the rounds
POLL_S = 0.2
BATCH_SIZE = 32


@dataclass(frozen=True)
class ScreenedNetwork:
    """The probe of a network on the images that it has embedded."""

    loss: float  # mean out-of-fold loss
    score: float  # of the task's metric on out-of-fold predictions
    image_s: float  # seconds of an image, decoding excluded
    num_images: int
    load: float = 0.0  # the largest part of a limit that its costs use


class Screening:
    """Successive probing of the networks of a search space, whose other hyperparameters are the default ones.

    Networks in `downloads` are probed as soon as their weights are there; others first. Those that fail, are too slow
    for the deadline or for the `limits` of costs by name, or do not arrive in time are left out.
    """

    def __init__(
        self,
        space: Dict,
        task: ImageTask,
        deadline: Deadline,
        notify: Listener,
        limits: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.space, self.task, self.deadline, self.notify, self.limits = space, task, deadline, notify, limits
        self.left_out: dict[str, str] = {}  # reasons by network
        self._kept: dict[str, Classifier] = {}
        self._image_s: dict[str, float] = {}  # as first measured, since cached features take no time
        self._shown: dict[str, int] = {}  # totals of bars by their text
        recipe = Recipe.of(space.default)
        self._most = max_probe_images(recipe, task.problem.num_outputs)
        strata = task.problem.strata(task.train.targets)
        self._rows = stratified_order(strata, np.random.default_rng(recipe.seed))[: self._most]  # those of `fit_head`

    def run(
        self, networks: Collection[str], downloads: Downloads | None = None, always: Collection[str] = ()
    ) -> dict[str, ScreenedNetwork]:
        """Return the networks that are left, the one with the smallest loss first; `always` are never dropped."""
        left_s = self.deadline.seconds_left()
        with cpu_threads(self.task.num_threads):
            num, found = self._first_round(networks, downloads, self.deadline.within(FIRST_PART * left_s))
            # Without a network within the limits, the nearest.
            most = max(1.0, min((probed.load for probed in found.values()), default=0.0))
            for name in [name for name, probed in found.items() if probed.load > most and name not in always]:
                self.left_out[name] = "it is too slow for min_images_per_s or max_latency_ms"
                del found[name]
            while self._are_too_many(found, left_s):
                order = sorted(found, key=lambda name: found[name].loss)
                best = order[: max(LEAST_KEPT, (len(order) + 1) // 2)]
                kept = {name: found[name] for name in order if name in {*best, *always}}
                if len(kept) == len(found):
                    break
                found = kept
                self._kept = {name: each for name, each in self._kept.items() if name in found}
                num = min(2 * num, len(self._rows))
                more_s = sum(num * probed.image_s for probed in found.values())
                if self._are_too_many(found, left_s) and more_s < FIRST_PART * left_s:
                    for name in found:
                        found[name] = self._probe(name, num, self.deadline) or found[name]
        self._kept.clear()
        for what, total in self._shown.items():
            self.notify(Progressed(what, total, total))  # which ends its bar
        return dict(sorted(found.items(), key=lambda pair: pair[1].loss))

    def _first_round(
        self, networks: Collection[str], downloads: Downloads | None, deadline: Deadline
    ) -> tuple[int, dict[str, ScreenedNetwork]]:
        """Probe all networks on the same first images, fewer if time is short; return their number and the probes."""
        num = min(len(self._rows), max(FIRST_IMAGES, IMAGES_PER_OUTPUT * self.task.problem.num_outputs))
        found: dict[str, ScreenedNetwork] = {}
        for name in self._as_they_arrive(networks, downloads, deadline):
            # One slow network must not take the time of all others.
            part_s = deadline.seconds_left() / (2 if len(networks) > 1 else 1)
            if (probed := self._probe(name, num, deadline.within(part_s))) is not None:
                found[name] = probed
                mean_s = sum(each.image_s for each in found.values()) / len(found)
                num_left = len(networks) - len(found) - len(self.left_out)
                if mean_s * num * num_left > deadline.seconds_left():
                    num = max(min(num, LEAST_IMAGES), num // 2)
            self._shown["probing networks"] = len(networks)
            self.notify(Progressed("probing networks", len(found), len(networks)))
        for name, probed in found.items():  # features of fewer images are known
            if probed.num_images > num:
                found[name] = self._probe(name, num, self.deadline) or probed
        return num, found

    def _are_too_many(self, found: dict[str, ScreenedNetwork], left_s: float) -> bool:
        num_all = len(self._rows) + len(self.task.val.indices)
        full_s = sum(probed.image_s * (num_all - probed.num_images) for probed in found.values())
        return len(found) > MOST_KEPT or (len(found) > LEAST_KEPT and full_s > FULL_PART * left_s)

    def _as_they_arrive(
        self, networks: Collection[str], downloads: Downloads | None, deadline: Deadline
    ) -> Iterator[str]:
        """Yield networks whose weights are there; wait for others until the deadline."""
        waiting = list(networks)
        while waiting:
            if downloads is not None:
                self.left_out |= {name: downloads.failures[name] for name in waiting if name in downloads.failures}
            waiting = [name for name in waiting if name not in self.left_out]
            ready = next((name for name in waiting if downloads is None or downloads.has(name)), None)
            if deadline.seconds_left() <= 0 and (ready is None or len(waiting) < len(networks)):
                self.left_out |= dict.fromkeys(waiting, "no time was left to probe it")
                return
            if ready is not None:
                waiting.remove(ready)
                yield ready
            elif downloads is not None:
                if (progress := downloads.progress()) is not None:
                    self._shown[progress.what] = progress.total
                    self.notify(progress)
                time.sleep(POLL_S)

    def _probe(self, name: str, num: int, deadline: Deadline) -> ScreenedNetwork | None:
        """Embed the first images and fit a head; None, with a reason in `left_out`, if that is not possible."""
        task, problem = self.task, self.task.problem
        rows = self._rows[:num]
        try:
            classifier = self._kept.get(name) or self._build(name, num, deadline)
            start_s = time.perf_counter()
            features = cached_features(classifier, task.store, task.train.indices[rows], deadline.seconds_left)
            image_s = self._image_s.setdefault(name, (time.perf_counter() - start_s) / len(features))
            batches = classifier.batches(task.store, task.train.indices)
            part = load(network_costs(classifier, list(self.limits), batches), self.limits)
        except Exception as error:  # weights of a hub that do not fit make networks fail in many ways
            self.left_out[name] = (str(error).splitlines() or [type(error).__name__])[0]
            self.notify(Warned(f"{name} is left out: {self.left_out[name]}"))
            return None
        if len(features) < len(rows):
            self.left_out[name] = "it is too slow for the time limit"
            return None
        train = task.train.take(rows)
        fitter = HeadFitter(features, train.targets, problem, train.groups)
        held_out = fitter.fit(None, self.deadline.seconds_left).held_out
        if held_out is None:
            self.left_out[name] = "too few images"
            return None
        outputs = torch.from_numpy(held_out)
        loss = float(problem.output_losses(outputs, problem.soft_targets(torch.as_tensor(train.targets))).mean())
        try:
            score = task.metric.score(task.metric(train.targets, problem.activate(outputs).numpy(), problem))
        except SaccadeError:  # the metric is undefined for so few images
            score = -loss
        return ScreenedNetwork(loss, score, image_s, len(rows), part)

    def _build(self, name: str, num: int, deadline: Deadline) -> Classifier:
        recipe = Recipe.of({**self.space.default, "model": name})
        numerics = Numerics.choose(choose_device(self.task.device), recipe.amp, recipe.channels_last, recipe.compile)
        classifier = new_classifier(recipe, self.task.problem, numerics, self.task.weights)
        inference = choose_for_probe(classifier, recipe, num / BATCH_SIZE, BATCH_SIZE, deadline.seconds_left())
        classifier.use(classifier.numerics, inference)
        num_bytes = sum(
            4.0 * parameter.numel()
            for each in (*self._kept.values(), classifier)
            for parameter in each.network.parameters()
        )
        if num_bytes <= MAX_BYTES_IN_MEMORY:
            self._kept[name] = classifier
        return classifier
