"""What remains of a probe at the end of a search, whatever training has made of its network meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.inference.classifier import Classifier
from saccade.training.imbalance import loss_weights
from saccade.training.probes.feature_cache import cached_features
from saccade.training.probes.heads import fit_heads
from saccade.training.probes.probe import Probe
from saccade.training.probes.robust import belief_weights
from saccade.training.task import ImageTask, Split
from saccade.training.trial_files import probe_file

MAX_NUMBERS = 500_000
"""Outputs for training images that are kept of a probe; with many classes, those of fewer images."""


@dataclass(frozen=True)
class FinalProbe:
    """All that there is to know of a probe at the end of a search, whatever has become of the network meanwhile.

    Attributes
    ----------
    rows : ndarray of int64, shape (num_seen,)
        Training images, by their place in the split.
    unseen : ndarray of float32, shape (num_seen, num_outputs)
        What a layer says of each of them that has not learned from it, as `Problem.activate` takes it.
    outputs : ndarray of float32, shape (num_val, num_outputs)
        What the probe says of the validation images.
    layer : str
        The name of the last layer in the network.
    weight, bias : ndarray of float32, shape (num_outputs, num_features) and (num_outputs,)
        Of the last layer for the predictor, which may have learned from the validation images as well.
    """

    rows: np.ndarray
    unseen: np.ndarray
    outputs: np.ndarray
    layer: str
    weight: np.ndarray
    bias: np.ndarray

    def save(self, path: Path) -> None:
        """Write a file that is whole, or not there."""
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            np.savez(file, **vars(self))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FinalProbe | None:
        """Read what `save` wrote; None where there is none, or it was cut short."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in file.files} | {"layer": str(file["layer"])})
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
            return None

    def applied_to(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights of a network with this last layer in the place of its own."""
        layer = {"weight": torch.tensor(self.weight).contiguous(), "bias": torch.tensor(self.bias)}
        named = {f"{self.layer}.{name}": tensor for name, tensor in layer.items()}
        return state | {name: tensor for name, tensor in named.items() if name in state}


def final_probe(
    classifier: Classifier,
    images: Images,
    train: Split,
    val: Split,
    probe: Probe,
    outputs: np.ndarray,
    *,
    learns_from_val: bool,
    weights: np.ndarray | None = None,
) -> FinalProbe | None:
    """Return what is to be known of a probe in the end, from features that are kept already.

    Parameters
    ----------
    classifier, images, train
        Those of the probe; the network is not changed.
    val : Split
        The images that judged the probe.
    probe : Probe
        Its penalty is used again, and its doubts in labels.
    outputs : ndarray
        What it says of them.
    learns_from_val : bool
        Whether the last layer is to be fitted to all images. Where there are more than a probe looks at, it is not.
    weights : ndarray or None
        Of all images in the loss, those of `val` last.

    Returns
    -------
    FinalProbe or None
        None without folds, for which there were too few images, or too little time.
    """
    head = classifier.head
    if probe.unseen is None or not isinstance(head, torch.nn.Linear):
        return None
    layer = next(name for name, module in classifier.network.named_modules() if module is head)
    weight = head.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy()
    if learns_from_val and len(probe.rows) == len(train.indices):
        parts = [cached_features(classifier, images, indices) for indices in (train.indices[probe.rows], val.indices)]
        targets = np.concatenate([train.targets[probe.rows], val.targets])
        if weights is not None:
            weights = np.concatenate([weights[probe.rows], weights[len(train.indices) :]])
        if q := probe.robust_loss:  # none of these layers had learned from what it is asked about
            said = np.concatenate([probe.unseen, outputs])
            weights = belief_weights(said, targets, classifier.problem, q, weights)
        fitted = fit_heads(
            np.concatenate(parts), targets, classifier.problem, weights, penalties=(probe.penalty,), num_folds=1
        )
        weight, bias = fitted.weight, fitted.bias
    most = max(1, MAX_NUMBERS // probe.unseen.shape[1])
    return FinalProbe(probe.rows[:most], probe.unseen[:most], outputs, layer, weight, bias)


def keep_probe(
    classifier: Classifier,
    task: ImageTask,
    probe: Probe,
    outputs: np.ndarray | None,
    folder: Path,
    class_weights: np.ndarray | None = None,
    learns_from_val: bool = True,
) -> None:
    """Save a probe in its trial's folder for the end of the search, unless it was cut short.

    Parameters
    ----------
    classifier, probe, learns_from_val
        As in `final_probe`; of validation images that the user gave as such nothing is learned.
    task : ImageTask
        The task of the search.
    outputs : ndarray or None
        What the probe says of the validation images.
    folder : Path
        Of the trial.
    class_weights : ndarray or None
        As `saccade.training.imbalance.class_weights` returned them.
    """
    if outputs is None or len(outputs) < len(task.val.targets):
        return
    every = task.train.joined(task.val)
    final = final_probe(
        classifier,
        task.store,
        task.train,
        task.val,
        probe,
        outputs,
        learns_from_val=learns_from_val and task.is_holdout,
        weights=loss_weights(every.targets, task.problem, class_weights, every.weights),
    )
    if final is not None:
        final.save(probe_file(folder))
