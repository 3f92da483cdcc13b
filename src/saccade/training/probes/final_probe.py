"""The probe of a trial on disk, for the end of the search, whatever training has made of its network meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from saccade.inference.classifier import Blueprint, Classifier
from saccade.training.imbalance import loss_weights
from saccade.training.probes.heads import HeadFitter, belief_weights
from saccade.training.probes.probe import Probe, cached_features
from saccade.training.task import ImageTask

MAX_NUMBERS = 500_000  # out-of-fold outputs that are saved; with many classes, those of fewer images


@dataclass(frozen=True)
class FinalProbe:
    """A probe with its predictions, float32."""

    rows: np.ndarray  # the training images of the probe, as positions in the split
    unseen: np.ndarray  # out-of-fold outputs for these images, (num_images, num_outputs)
    outputs: np.ndarray  # for the validation images, (num_val, num_outputs)
    layer: str  # name of the classifier layer in the network
    weight: np.ndarray  # of that layer for the predictor, (num_outputs, num_features)
    bias: np.ndarray
    network: str  # its name
    has_seen_val: bool = False  # whether this layer is fitted to the validation images as well

    def save(self, path: Path) -> None:
        """Write a file."""
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path | None) -> FinalProbe | None:
        """Read what `save` wrote; None if there is no file, or an incomplete one."""
        if path is None:
            return None
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
                texts = {name: str(arrays.pop(name, "")) for name in ("layer", "network")}
                return cls(**arrays | texts | {"has_seen_val": bool(arrays.get("has_seen_val", False))})
        except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, BadZipFile):
            return None

    def fits(self, blueprint: Blueprint, task: ImageTask) -> bool:
        """Return whether its arrays are finite, and have the shapes of this task and network."""
        num_outputs, num_rows = task.problem.num_outputs, len(self.rows)
        shapes = (self.outputs.shape, self.unseen.shape, self.weight.shape[:1], self.bias.shape)
        images = len(task.train.targets) + self.has_seen_val * len(task.val.targets)
        return (
            self.network == blueprint.name
            and shapes == ((len(task.val.targets), num_outputs), (num_rows, num_outputs), *2 * [(num_outputs,)])
            and self.rows.dtype.kind == "i"
            and bool(np.isin(self.rows, np.arange(images)).all())
            and all(
                each.dtype == np.float32 and bool(np.isfinite(each).all())
                for each in (self.outputs, self.unseen, self.weight, self.bias)
            )
        )

    def applied_to(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights of a network with this classifier layer in place of its own."""
        layer = {"weight": torch.tensor(self.weight).contiguous(), "bias": torch.tensor(self.bias)}
        named = {f"{self.layer}.{name}": tensor for name, tensor in layer.items()}
        return state | {name: tensor for name, tensor in named.items() if name in state}


def final_probe(
    classifier: Classifier,
    task: ImageTask,
    probe: Probe,
    outputs: np.ndarray | None,
    class_weights: np.ndarray | None = None,
    refits: bool = True,
) -> FinalProbe | None:
    """Return a probe for the end of the search; None if its features or its validation were incomplete.

    `outputs` are those of the probe, which is the classifier's layer, for the validation images. If it `refits`, the
    layer is fitted to these as well, unless the user gave them or the probe did not use all training images.
    """
    head, train, val = classifier.head, task.train, task.val
    if outputs is None or len(outputs) < len(val.targets):
        return None
    if probe.held_out is None or not isinstance(head, torch.nn.Linear):
        return None
    layer = next(name for name, module in classifier.network.named_modules() if module is head)
    weight = head.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy()
    has_seen_val = refits and task.is_holdout and len(probe.rows) == len(train.indices)
    if has_seen_val:
        both = train.joined(val)
        rows = np.concatenate([probe.rows, len(train.indices) + np.arange(len(val.indices))])
        features = np.concatenate(
            [cached_features(classifier, task.store, each) for each in (train.indices[probe.rows], val.indices)]
        )
        targets = both.targets[rows]
        weights = loss_weights(both.targets, task.problem, class_weights, both.weights)
        weights = None if weights is None else weights[rows]
        if q := probe.robust_loss:  # the outputs of each image come from a layer that was not fitted to it
            held_out = np.concatenate([probe.held_out, outputs])
            weights = belief_weights(held_out, targets, task.problem, q, weights)
        fitted = HeadFitter(features, targets, task.problem).fit(weights, penalties=(probe.penalty,), num_folds=1)
        weight, bias = fitted.weight, fitted.bias
    name = classifier.blueprint.name
    num = max(1, MAX_NUMBERS // probe.held_out.shape[1])
    return FinalProbe(probe.rows[:num], probe.held_out[:num], outputs, layer, weight, bias, name, has_seen_val)
