"""The inference pipeline of a predictor: from images to labels, probabilities, sets and abstentions."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from saccade.data.examples import ImageLike
from saccade.data.pixel_range import PixelRange
from saccade.data.sources.sources import describe_unreadable
from saccade.data.store.decoded_images import fingerprint
from saccade.data.store.feature_cache import FeatureCache
from saccade.data.store.on_demand import DecodedForms, OnDemandImages
from saccade.data.store.stored_form import read_as_stored
from saccade.errors import DataError, HyperparameterError, ImageReadError, SaccadeError, SavedPredictorError
from saccade.events import Progressed, Warned
from saccade.inference.classifier import Blueprint, Classifier, first_output, known_inference, with_features
from saccade.inference.description import Member
from saccade.inference.feature_bank import FeatureBank, distance_to_known
from saccade.inference.postprocessing import AbstentionRule, Postprocessing, mean_of_members
from saccade.inference.preprocessing import Preprocess
from saccade.inference.saved import SavedPredictor
from saccade.numerics.device import Numerics, choose_device, is_half_native
from saccade.numerics.engine import ONNX, TORCH
from saccade.study.display.progress import ProgressDisplay
from saccade.tasks.problem import Problem

BATCH_SIZE = 32  # images in a batch: enough for full throughput, and few enough for any memory
MAX_BATCH_PIXELS = 32 * 1024**2  # of batches of very large images, which have fewer

Compute = Callable[[Classifier, torch.Tensor], np.ndarray]
"""From a network and a batch of its preprocessed images, of shape (N, C, S, S), to one row for each image."""


class TensorPredictions(NamedTuple):
    """The outputs of `PredictionHead` and `PredictionModule`, each of shape (num_images, num_outputs)."""

    predictions: torch.Tensor  # calibrated probabilities of the classes; for regression the number, in the labels' unit
    # Probabilities after class prior and thresholds, to which the usual rule applies; for regression `predictions`.
    adjusted: torch.Tensor
    given: torch.Tensor  # bool: which labels each image gets; for regression all True
    set_mask: torch.Tensor  # bool: which labels are in the conformal set; without a coverage as `given`
    novelty: torch.Tensor | None = None  # (num_images,), by `PredictionModule` if it has features of training images


class PredictionHead(nn.Module):
    """From the predictions of each network to labels: mean, calibration, class prior and thresholds, sets.

    `weights` of the networks sum to 1. `coverage` is that of `TensorPredictions.set_mask`.
    """

    def __init__(
        self, weights: Sequence[float], problem: Problem, postprocessing: Postprocessing, coverage: float | None = None
    ) -> None:
        super().__init__()
        self.weights, self.problem, self.postprocessing = list(weights), problem, postprocessing
        self.coverage = coverage

    def forward(self, *of_members: torch.Tensor) -> TensorPredictions:
        """Return predictions of `Problem.activate`d outputs, each of shape (num_images, num_outputs)."""
        mean = mean_of_members(of_members, self.weights)
        return self.decide(self.postprocessing.calibration.calibrate(mean, self.problem))

    def decide(self, predictions: torch.Tensor) -> TensorPredictions:
        """Return labels and sets for calibrated predictions, of shape (num_images, num_outputs)."""
        adjusted = self.postprocessing.thresholds.adjust(predictions)
        given = sets = self.problem.given_labels(adjusted)
        if self.coverage is not None and self.problem.has_classes:
            sets = self.postprocessing.conformal.label_sets(predictions, given, self.coverage)
        return TensorPredictions(predictions, adjusted, given, sets)


class PredictionModule(nn.Module):
    """All of a predictor that is arithmetic, from uint8 images to labels, as one module with a plain forward pass.

    Only decoding is outside of it. `InferencePipeline.predict` calls the same parts: `Preprocess` in threads, the
    networks batch by batch in their measured numerics, and `PredictionHead` once for all images. The members are on one
    device. `pixel_range` is black and white of images that are not uint8; None is [0, 1]. With a `bank`, novelty is
    computed as well.
    """

    def __init__(
        self,
        members: Sequence[Classifier],
        head: PredictionHead,
        pixel_range: PixelRange | None = None,
        bank: FeatureBank | None = None,
    ) -> None:
        super().__init__()
        self.pixel_range = pixel_range or (0.0, 1.0)
        self.channels = members[0].blueprint.in_chans
        self.preprocess = nn.ModuleList([member.preprocess for member in members])
        self.networks = nn.ModuleList([member.torch_network for member in members])
        self.head = head
        self._has_tta = [member.blueprint.tta for member in members]
        self.known: torch.Tensor | None
        self.register_buffer("known", None if bank is None else bank.units.to(members[0].inference.device))

    def forward(self, images: torch.Tensor) -> TensorPredictions:
        """Return predictions for decoded images of one size, of shape (N, H, W, C) or (N, C, H, W).

        They are RGB unless the networks have other channels, and uint8, or other numbers, which are scaled from
        `pixel_range`.
        """
        if images.dtype != torch.uint8:
            low, high = self.pixel_range
            images = ((images.float() - low) / (high - low) * 255).clamp(0, 255).round().to(torch.uint8)
        problem, predictions, novelty = self.head.problem, [], None
        for preprocess, network, has_tta in zip(self.preprocess, self.networks, self._has_tta, strict=True):
            x_BCHW = preprocess(images)
            if self.known is not None and novelty is None:
                outputs, features = with_features(network, network, x_BCHW)
                novelty = distance_to_known(features, self.known)
            else:
                outputs = first_output(network(x_BCHW))
            if has_tta:
                outputs = problem.mean_outputs(outputs, first_output(network(x_BCHW.flip(3))))
            if outputs.device.type == "mps":  # which lacks float64
                outputs = outputs.cpu()
            predictions.append(problem.activate(outputs))
        found: TensorPredictions = self.head(*predictions)
        return found._replace(novelty=novelty)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What an `InferencePipeline` returns for images. NaN or None stands for unreadable images."""

    problem: Problem
    predictions: np.ndarray  # (num_images, num_outputs): as in `TensorPredictions`
    adjusted: np.ndarray  # (num_images, num_outputs): the largest one, or those from 0.5 on, give the label
    decisions: np.ndarray  # `adjusted` for the labels that are given, 0 for others, for `Problem.decode` and `names`
    labels: np.ndarray  # as `Problem.decode` returns them, without abstention
    # (num_images,) lists of labels, the most probable first, or intervals for regression; None without a coverage.
    sets: np.ndarray
    abstained: np.ndarray  # bool (num_images,): whether the `AbstentionRule` applies; all False without one
    errors: dict[int, str]  # why images are unreadable, by their number
    unknown: np.ndarray  # bool (num_images,): whether the novelty is above a threshold; all False without a rate
    novelty: np.ndarray  # float32 (num_images,): `FeatureBank.novelty`; all NaN without a rate

    def names(self, class_names: Sequence[str]) -> list[list[str] | None]:
        """Return the names of each image's labels, or its number as text; None for unreadable images."""
        names = self.problem.names(self.decisions, class_names)
        return [None if row in self.errors else name for row, name in enumerate(names)]

    @property
    def label_probabilities(self) -> list[float | None]:
        """The calibrated probability of each image's label; None for problems without one label per image."""
        if not self.problem.has_one_class:
            return [None] * len(self.predictions)
        probabilities = self.problem.confidence(self.predictions, self.decisions).tolist()
        return [None if row in self.errors else p for row, p in enumerate(probabilities)]

    @property
    def main_class(self) -> np.ndarray:
        """The class with the largest adjusted probability, int64 of shape (num_images,); 0 for regression.

        That is the label that is given, and for multilabel problems the most probable one.
        """
        return np.asarray(np.nan_to_num(self.adjusted).argmax(1))


class InferencePipeline:
    """Everything from images to labels, for one saved predictor: the only way in which labels are predicted.

    The steps are: decode; preprocess; networks; weighted mean; calibration; class prior and thresholds; label;
    conformal set; abstention. Networks are loaded at the first prediction. Several threads may use one pipeline at the
    same time. They decode in parallel; the networks compute one batch at a time.

    `device` is ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; None is the best one available. Raises a
    HyperparameterError if it is invalid or not available.
    """

    def __init__(self, saved: SavedPredictor, device: str | torch.device | None = None) -> None:
        self.saved, self.device = saved, _device_of(device)
        self._members: list[Classifier] | None = None
        self._backbone: str | None = None  # digest of the first member, for features
        self._bank: FeatureBank | None = None
        self._num_images = 0  # that were predicted so far
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {"saved": self.saved, "device": self.device}  # networks are loaded again from the predictor's folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def decode(self, image: ImageLike) -> DecodedForms:
        """Decode an image for all networks, to pass it to `predict` and `run` later; an ImageReadError has the reason.

        The numbers of `predict` do not change, and threads can decode while the networks compute.
        """
        blueprints = [member.blueprint for member in self.saved.members]  # no lock, which a network in use would hold
        forms = {(Preprocess(each.input).shorter_side, each.in_chans) for each in blueprints}
        side = self._decoded_side()
        return {form: read_as_stored(image, *form, self.saved.pixel_range, side) for form in forms}

    def predict(
        self,
        images: Sequence[ImageLike | DecodedForms],
        *,
        coverage: float | None = None,
        abstention: AbstentionRule | None = None,
        false_alarm_rate: float | None = None,
        verbosity: int = 0,
    ) -> Predictions:
        """Predict images, of which there may be none.

        Without `coverage` no sets are computed, and without `abstention` all labels are given. With `false_alarm_rate`
        an image is unknown if its novelty is above that which this part of the validation images exceeds. `verbosity` 2
        shows progress on a terminal, 1 prints a warning about unreadable images, 0 prints nothing. Raises an
        ImageReadError if no image can be read; and as `saccade.inference.postprocessing.Conformal.check`, before any
        image is read.
        """
        saved = self.saved
        if coverage is not None:
            saved.postprocessing.conformal.check(saved.problem, coverage)
        if not len(images):
            of_members = [np.zeros((0, saved.problem.num_outputs), np.float32)] * len(saved.members)
            return postprocess(saved, of_members, {}, coverage, abstention)
        if false_alarm_rate is None:
            of_members, errors = self.run(images, _activated, len(saved.members), verbosity)
            return postprocess(saved, of_members, errors, coverage, abstention)
        threshold, bank = self.bank.threshold(false_alarm_rate), self.bank
        with self._lock:
            first = self._loaded()[0]

        def compute(classifier: Classifier, x_BCHW: torch.Tensor) -> np.ndarray:
            """Return activated outputs; of the first network with the novelty as one more column."""
            if classifier is not first:
                return _activated(classifier, x_BCHW)
            outputs, features = (each.cpu() for each in classifier.outputs_and_features(x_BCHW))
            predictions = classifier.problem.activate(outputs)
            return np.asarray(torch.cat([predictions, bank.novelty(features)[:, None]], 1).numpy())

        of_members, errors = self.run(images, compute, len(saved.members), verbosity)
        novelty, of_members[0] = of_members[0][:, -1], of_members[0][:, :-1]
        is_unknown = novelty > threshold
        is_unknown[list(errors)], novelty[list(errors)] = False, np.nan
        found = postprocess(saved, of_members, errors, coverage, abstention)
        return replace(found, unknown=is_unknown, novelty=novelty)

    @property
    def bank(self) -> FeatureBank:
        """The features that are stored with the predictor; a DataError if there are none."""
        if (bank := self.stored_features()) is None or not len(bank.train):
            raise DataError(
                f"{self.saved.folder} has no features of its training images, which this requires: the predictor is of "
                "an earlier version, or was chosen from a Pareto front. Fit again"
            )
        return bank

    def stored_features(self, bank: FeatureBank | None = None) -> FeatureBank | None:
        """Return the features that are stored with the predictor, if any; with a `bank`, use that from now on."""
        with self._lock:
            if bank is not None or self._bank is None:
                self._bank = bank or self.saved.features
            return self._bank

    def novelty(self, images: Sequence[ImageLike], verbosity: int = 0) -> np.ndarray:
        """Return `FeatureBank.novelty` of each image, float32 of shape (num_images,); NaN for unreadable ones."""
        bank = self.bank
        if not len(images):
            return np.zeros(0, np.float32)
        return bank.novelty(torch.from_numpy(self.features(images, verbosity)[0])).numpy()

    def features(self, images: Sequence[ImageLike], verbosity: int = 0) -> tuple[np.ndarray, dict[int, str]]:
        """Return the input of the first member's classifier layer for each image, NaN for unreadable ones; and errors.

        Features are cached on disk (`FeatureCache`), unless the network is the user's own. Raises a HyperparameterError
        if the network has no single classifier layer.
        """
        errors: dict[int, str] = {}

        def compute(positions: np.ndarray) -> np.ndarray:
            (features,), found = self.run(
                images,
                lambda classifier, x_BCHW: classifier.outputs_and_features(x_BCHW)[1].cpu().numpy(),
                1,
                verbosity,
                positions,
            )
            features[np.isin(positions, list(found))] = np.nan
            errors.update(found)
            return features

        disk = FeatureCache.from_environment()
        with self._lock:
            member = self._loaded()[0]
            if self._backbone is None:
                self._backbone = member.backbone_digest("decoded on demand")
        if disk is None or not len(images) or member.blueprint.architecture is None:
            return compute(np.arange(len(images))), errors
        sides = f"{member.preprocess.shorter_side}|{self._decoded_side()}"
        form = f"{sides}|{member.blueprint.in_chans}|{self.saved.pixel_range}"
        return disk.get(self._backbone, [fingerprint([image], form) for image in images], compute), errors

    def run(
        self,
        images: Sequence[ImageLike | DecodedForms],
        compute: Compute,
        num_members: int,
        verbosity: int = 0,
        positions: np.ndarray | None = None,
    ) -> tuple[list[np.ndarray], dict[int, str]]:
        """Compute something of each image, or of those at `positions`, with the first `num_members` networks.

        They are computed batch by batch; threads decode and preprocess the next batches meanwhile. Networks with the
        same input size share decoded images, and those with the same `InputSpec` share batches. While `compute` runs,
        no other thread uses the networks.

        Returns the rows of each network, of shape (num_images, ...) or (num_positions, ...), and errors as in
        `Predictions`; the rows of unreadable images are meaningless. Raises a DataError or ImageReadError if there are
        no images, or none can be read.
        """
        if not len(images):
            raise DataError("there are no images")
        positions = np.arange(len(images)) if positions is None else positions
        members = self._ready(num_members, len(positions))
        num_pixels = max(member.blueprint.input.img_size**2 for member in members)
        batch_size = max(1, min(BATCH_SIZE, MAX_BATCH_PIXELS // num_pixels))
        groups: dict[tuple[int, int], list[int]] = {}  # members that share decoded images
        for number, member in enumerate(members):
            key = member.preprocess.shorter_side, member.blueprint.in_chans
            groups.setdefault(key, []).append(number)
        rows: dict[int, np.ndarray] = {}
        errors: dict[int, str] = {}
        num_done = 0
        with ProgressDisplay(verbosity, "") as display:
            for (shorter_side, channels), numbers in groups.items():
                batches_of = {members[number].blueprint.input: members[number] for number in numbers}
                of_group = shorter_side, channels, len(batches_of), self.saved.pixel_range, self._decoded_side()
                decoded = OnDemandImages(images, *of_group)
                passes = [
                    member.batches(decoded, positions, batch_size=batch_size).in_order()
                    for member in batches_of.values()
                ]
                first = 0
                for batches in zip(*passes, strict=True):
                    x_of = {spec: x_BCHW for spec, (x_BCHW, *_) in zip(batches_of, batches, strict=True)}
                    for number in numbers:
                        member = members[number]
                        with self._lock, member.inference.threads(), _named_errors(member.blueprint):
                            part = compute(member, x_of[member.blueprint.input])
                        if number not in rows:
                            rows[number] = np.empty((len(positions), *part.shape[1:]), part.dtype)
                        rows[number][first : first + len(part)] = part
                    first += len(part)
                    num_done += len(part)
                    display(Progressed("predicting", num_done, len(groups) * len(positions)))
                errors = {**decoded.errors, **errors}
            if errors:
                text = describe_unreadable(images, errors)
                if len(errors) == len(images):
                    raise ImageReadError(text)
                display(Warned(text))
        return [rows[number] for number in range(len(members))], errors

    def module(self, coverage: float | None = None, *, has_novelty: bool = False) -> PredictionModule:
        """Return the tensor part of this pipeline, in evaluation mode; without `coverage`, it has no conformal sets."""
        if coverage is not None:
            self.saved.postprocessing.conformal.check(self.saved.problem, coverage)
        with self._lock:
            members = self._loaded()
        weights = [member.weight for member in self.saved.members]
        head = PredictionHead(weights, self.saved.problem, self.saved.postprocessing, coverage)
        return PredictionModule(members, head, self.saved.pixel_range, self.bank if has_novelty else None).eval()

    def _decoded_side(self) -> int:
        """Return the side for which JPEG files are decoded: one for all networks, as in an exported file."""
        return max(Preprocess(member.blueprint.input).shorter_side for member in self.saved.members)

    def warm_up(self) -> None:
        """Load the networks, measure their fastest numerics on this kind of device, and fix them.

        Precision, engine, memory format and batch norm folding of each network are written to
        `SavedPredictor.numerics`; `SavedPredictor.write` saves them. Before, and on other kinds of device, predictions
        are computed in float32 on a CPU and in 16 bits on a GPU, unless the recipe fixes the precision. Predictions
        never measure, so that one image gets the same numbers as many.
        """
        with self._lock:
            records = []
            for member in self._loaded():
                member.unfuse()
                numerics = member.choose_inference(BATCH_SIZE)
                member.fuse(math.inf)
                is_folded = member.torch_network is not member.network
                records.append({**_numerics_record(numerics), "folds_batch_norm": is_folded})
                side = member.blueprint.input.img_size
                x_BCHW = torch.zeros(BATCH_SIZE, member.blueprint.in_chans, side, side, device=self.device)
                member.forward(x_BCHW.contiguous(memory_format=torch.channels_last))
            self.saved = replace(self.saved, numerics={**self.saved.numerics, self.device.type: records})
            self._backbone = None  # the precision may have changed

    def to(self, device: str | torch.device | None) -> InferencePipeline:
        """Compute on another device from now on, and return this pipeline; as in the constructor."""
        with self._lock:
            self.device, self._members, self._backbone = _device_of(device), None, None
        return self

    def _loaded(self) -> list[Classifier]:
        """Return the networks, ready to predict; the caller holds the lock."""
        if self._members is None:
            records = self.saved.numerics.get(self.device.type, [{}] * len(self.saved.members))
            self._members = [self._load(*both) for both in zip(self.saved.members, records, strict=True)]
        return self._members

    def _ready(self, num_members: int, num_images: int) -> list[Classifier]:
        """Return the first networks, with the engine for as many images as this pipeline has predicted so far."""
        with self._lock:
            members = self._loaded()[:num_members]
            self._num_images += num_images
            for member in members:
                if member.inference.engine == ONNX:
                    with _named_errors(member.blueprint):
                        member.fuse(self._num_images)
        return members

    def _load(self, member: Member, record: dict[str, Any]) -> Classifier:
        numerics = Numerics.choose(self.device, member.amp)
        if record:
            numerics = replace(
                Numerics.from_json({**numerics.to_json(), "dtype": record["dtype"]}, self.device),
                channels_last=record["channels_last"],
                engine=record.get("engine", TORCH),
            )
        if numerics.dtype is not torch.float32 and member.amp is None and not is_half_native(self.device):
            numerics = replace(numerics, dtype=torch.float32)  # this processor only emulates 16 bits, slowly
        with _named_errors(member.blueprint):
            classifier = self.saved.classifier(member, numerics)
            classifier.network.eval()
            if record.get("folds_batch_norm", True):
                classifier.fuse()
        return classifier


@contextlib.contextmanager
def _named_errors(blueprint: Blueprint) -> Iterator[None]:
    """Raise errors of a network as a SavedPredictorError, unless it is the user's own: a description may be damaged."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError, LookupError, MemoryError) as error:
        is_out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if isinstance(error, SaccadeError) or is_out_of_memory or blueprint.architecture is None:
            raise
        raise SavedPredictorError(
            f"{blueprint.name} fails for images of {blueprint.input.img_size} pixels ({str(error)[:200]}). If "
            "predictor.json was changed or damaged, restore a copy"
        ) from error


def first_network(saved: SavedPredictor, device: str | None = None) -> Classifier:
    """Return the network of the first member, as predictions use it."""
    pipeline = InferencePipeline(saved, device)
    return pipeline._load(saved.members[0], saved.numerics.get(pipeline.device.type, [{}])[0])


def known_numerics(members: Sequence[Member]) -> dict[str, list[dict[str, Any]]]:
    """Return what `InferencePipeline.warm_up` would record, by earlier measurements alone; {} if they do not suffice.

    Trials measure the numerics of validation, which are those of predictions. But on a CPU these are in float32, unless
    the recipe demands 16 bits: they do not depend on the processor then, and an exported file has the same.
    """
    device = choose_device()
    known = [known_inference(member.blueprint, member.amp, device, BATCH_SIZE) for member in members]
    found = [one for one in known if one is not None]
    if len(found) < len(known):
        return {}
    if device.type == "cpu":
        found = [
            one if member.amp else replace(one, dtype=torch.float32) for one, member in zip(found, members, strict=True)
        ]
    return {device.type: [_numerics_record(one) for one in found]}


def _numerics_record(numerics: Numerics) -> dict[str, Any]:
    engine = {} if numerics.engine == TORCH else {"engine": numerics.engine}
    return {"dtype": numerics.to_json()["dtype"], "channels_last": numerics.channels_last, **engine}


def postprocess(
    saved: SavedPredictor,
    of_members: Sequence[np.ndarray],
    errors: Mapping[int, str] = MappingProxyType({}),
    coverage: float | None = None,
    abstention: AbstentionRule | None = None,
) -> Predictions:
    """Return labels, sets and abstentions, given the activated outputs (num_images, num_outputs) of each member."""
    problem, postprocessing = saved.problem, saved.postprocessing
    head = PredictionHead([member.weight for member in saved.members], problem, postprocessing, coverage)
    found = head(*map(torch.from_numpy, of_members))
    predictions, adjusted, given, set_mask = (tensor.numpy() for tensor in found[:4])
    decisions = np.where(given, adjusted, 0)
    labels, abstained = problem.decode(decisions), np.zeros(len(predictions), np.bool_)
    if abstention is not None:
        abstained = abstention.applies(found.predictions, found.given, postprocessing.conformal).numpy()
    sets = np.full(len(predictions), None, object)
    if coverage is not None:
        threshold = postprocessing.conformal.threshold(coverage)
        for row, one in enumerate(problem.prediction_sets(predictions, set_mask, threshold)):
            sets[row] = one
    if errors:
        rows, labels = list(errors), labels.astype(object)
        predictions[rows], adjusted[rows] = np.nan, np.nan
        labels[rows], sets[rows], abstained[rows] = None, None, False
    return Predictions(
        problem,
        predictions,
        adjusted,
        decisions,
        labels,
        sets,
        abstained,
        dict(errors),
        np.zeros(len(labels), np.bool_),
        np.full(len(labels), np.nan, np.float32),
    )


@torch.inference_mode()
def _activated(classifier: Classifier, x_BCHW: torch.Tensor) -> np.ndarray:
    # Outputs are activated on the CPU, in float64 for regression, which MPS lacks.
    return np.asarray(classifier.problem.activate(classifier.forward(x_BCHW).cpu()).numpy())


def _device_of(device: str | torch.device | None) -> torch.device:
    if device is None or isinstance(device, torch.device):
        return device or choose_device()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise HyperparameterError(
            f"device was given {device!r}; expected 'cpu', 'cuda', 'cuda:<number>' or 'mps'"
        ) from None
    is_missing = found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    if is_missing or (found.type == "mps" and not torch.backends.mps.is_available()):
        raise HyperparameterError(f"device {device!r} is not available on this machine; pass device='cpu'")
    return found
