"""A network with its input format, its problem and its numerics, and how it predicts."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open

from saccade.data.batches import Batches, Images
from saccade.errors import HyperparameterError, SavedPredictorError
from saccade.inference.preprocessing import Preprocess
from saccade.models.batch_norm_folding import fold_batch_norm
from saccade.models.network import (
    CustomObject,
    InputSpec,
    Side,
    build_custom_network,
    build_network,
    classifier_parameters,
)
from saccade.models.weights import CHECKSUM, read_weights
from saccade.numerics.choice import Purpose, Workload, candidates, choose_numerics, known_choice, structure_name
from saccade.numerics.device import Numerics
from saccade.numerics.engine import LEAST_EXPORTED, ONNX, TORCH, OnnxNetwork, choose_engine, is_available
from saccade.tasks.base import type_adapter
from saccade.tasks.problem import Problem

Text = Annotated[str, Field(max_length=10_000)]

MEASURED_STEPS = 50  # batches that `Classifier.choose_inference` may spend on measuring
WARM_UP_IMAGES = 2000  # images for which it measures the engine


@dataclass(frozen=True)
class Blueprint:
    """The architecture and input format of a network, without its weights."""

    architecture: Text | None  # timm's name; None for a network of the user's own
    input: InputSpec  # `InputSpec.mean` has a value for each channel
    img_size: Side | None = None  # in pixels, for which the network was built; None for the architecture's default
    tta: bool = False  # test-time augmentation: predictions are averaged over an image and its mirror image
    own: Text | None = None  # name of a network of the user's own

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return self.architecture or self.own or ""

    @property
    def in_chans(self) -> int:
        """Number of channels of an image."""
        return len(self.input.mean)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads as text."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Blueprint:
        """Return the blueprint in a text; raise a ValueError if it is damaged."""
        blueprint: Blueprint = type_adapter(cls).validate_json(text, strict=True)
        return blueprint


class Classifier:
    """A network that predicts, during training and after it. It is moved to the device of `numerics`.

    `inference` are the numerics of predictions: `numerics`, until `choose_inference` or `use` change them. `amp` is
    whether predictions are computed in 16 bits; None lets `choose_inference` measure. `image_s` are the seconds of an
    image in the fastest pass over batches so far, as predictions compute them, decoding excluded; inf before the first.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        problem: Problem,
        network: torch.nn.Module,
        numerics: Numerics,
        amp: bool | None = None,
    ) -> None:
        self.blueprint, self.problem, self.amp = blueprint, problem, amp
        self.numerics = self.inference = numerics
        self.network = numerics.place(network)
        self.preprocess = Preprocess(blueprint.input)
        self._folded: torch.nn.Module | None = None
        self.engine_gain = 1.0  # how many times as fast as torch the engine of `choose_engine` is
        self._engine: OnnxNetwork | None = None  # that predicts now
        self._exported: tuple[str, OnnxNetwork] | None = None  # the latest export, by the digest of the backbone
        self.image_s = math.inf

    @property
    def head(self) -> torch.nn.Module | None:
        """The classifier layer; None if the network has none, or several."""
        return head_of(self.network)

    def use(self, numerics: Numerics, inference: Numerics) -> None:
        """Set the numerics of training and of predictions, which have the same memory format."""
        if (numerics, inference) != (self.numerics, self.inference):
            self.numerics, self.inference, self.image_s = numerics, inference, math.inf
            self.unfuse()
        if inference.engine != ONNX:
            self._exported = None  # its memory
        numerics.place(self.network)

    @property
    def predicting(self) -> torch.nn.Module:
        """The network that predicts: itself, its copy with folded batch norm, or that of another engine."""
        return self._engine or self.torch_network

    @property
    def torch_network(self) -> torch.nn.Module:
        """The network that predicts with torch: itself, or its copy with folded batch norm."""
        return self._folded or self.network

    def fuse(self, num_images: float = 0) -> None:
        """Prepare the network for predictions of so many images; call `unfuse` before the weights change.

        Batch norm is folded where it changes no output. If the engine of `inference` is ONNX Runtime, it is used from
        `LEAST_EXPORTED` images on, and for fewer if the network is exported already.
        """
        if self._folded is None and not self.inference.compiled:
            self._folded = self._folded_copy()
        is_used = self._exported is not None or num_images >= LEAST_EXPORTED
        if self.inference.engine != ONNX or self._engine is not None or not is_used or not is_available(self.inference):
            return
        digest = self.backbone_digest()
        if self._exported is None or self._exported[0] != digest:
            self._exported = None
            if num_images < LEAST_EXPORTED:
                return
            side = self.blueprint.input.img_size
            try:
                exported = OnnxNetwork(self.torch_network, torch.zeros(1, self.blueprint.in_chans, side, side))
            except Exception:  # it was exported before, so this is rare; the classifier layer may be another one
                self.inference, self.engine_gain = replace(self.inference, engine=TORCH), 1.0
                return
            self._exported = digest, exported
        self._engine = self._exported[1]

    def unfuse(self) -> None:
        """Predict with the network itself again."""
        self._folded = self._engine = None

    def _folded_copy(self) -> torch.nn.Module:
        folded = fold_batch_norm(self.network, self.blueprint.in_chans, self.blueprint.input.img_size)
        return self.network if folded is None else self.inference.place(folded)

    def choose_engine(
        self, numerics: Numerics, batch_size: int, num_images: float, seconds_left: float = math.inf
    ) -> Numerics:
        """Return numerics with the faster engine for frozen weights: `saccade.numerics.engine.choose_engine`."""
        if self.blueprint.architecture is None:  # an export has no branches, which the user's own code may take
            return numerics
        workload = self.workload("inference", batch_size)
        chosen, exported, self.engine_gain = choose_engine(
            numerics, workload, self._folded_copy, num_images, seconds_left
        )
        if exported is not None:
            self._exported = self.backbone_digest(numerics=chosen), exported
        return chosen

    def choose_inference(self, batch_size: int) -> Numerics:
        """Use the fastest numerics for predictions, as measured on this machine; do not train it after that."""
        self.network.eval()
        among = inference_candidates(self.numerics.device, self.amp)
        chosen = choose_numerics(self.network, self.workload("inference", batch_size), among, MEASURED_STEPS)
        if self.amp is not True:
            chosen = self.choose_engine(chosen, batch_size, WARM_UP_IMAGES)
        self.use(chosen, chosen)
        return chosen

    def workload(self, purpose: Purpose, batch_size: int) -> Workload:
        """Return the workload for which numerics are chosen."""
        side = self.blueprint.input.img_size
        name = structure_name(self.network, self.blueprint.architecture, is_trained=purpose == "training")
        return Workload(purpose, name, (batch_size, self.blueprint.in_chans, side, side))

    def backbone_digest(self, form: str = "", numerics: Numerics | None = None) -> str:
        """Return 32 hexadecimal digits of everything that features depend on besides the image.

        These are the weights, of which a gigabyte takes a second, architecture, preprocessing and precision; engines
        differ by rounding only. `form` is that of the decoded images. The default `numerics` are those of inference.
        """
        blueprint, numerics = self.blueprint, numerics or self.inference
        known = (
            timm.__version__, form, blueprint.architecture, blueprint.own, blueprint.input, blueprint.img_size,
            numerics.dtype, numerics.device.type,
        )  # fmt: skip
        digest = hashlib.blake2b(repr(known).encode(), digest_size=16)
        head = classifier_parameters(self.network)
        for name, tensor in self.network.state_dict().items():
            if name not in head:
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()

    def batches(
        self, images: Images, indices: np.ndarray, targets: np.ndarray | None = None, batch_size: int = 32
    ) -> Batches:
        """Return batches of images, preprocessed for prediction."""
        spec, device = self.blueprint.input, self.numerics.device
        targets = np.zeros(len(indices), np.int64) if targets is None else targets
        transform = self.preprocess.resize_and_crop
        return Batches(images, indices, targets, transform, batch_size, spec.mean, spec.std, device)

    @torch.inference_mode()
    def forward(self, x_BCHW: torch.Tensor, network: torch.nn.Module | None = None) -> torch.Tensor:
        """Return outputs for preprocessed images, before `Problem.activate`; with test-time augmentation their mean.

        `network` is another one of the same blueprint, in evaluation mode, such as an average of weights.
        """
        network = network or self.predicting
        with self.inference.autocast():
            outputs = first_output(network(x_BCHW))
            if self.blueprint.tta:
                outputs = self.problem.mean_outputs(outputs, first_output(network(x_BCHW.flip(3))))
        return outputs.float()

    @torch.inference_mode()
    def outputs_and_features(
        self, x_BCHW: torch.Tensor, network: torch.nn.Module | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `forward` does, and the input of the classifier layer, float32 of shape (batch, num_features).

        The features are those of the image, not of its mirror image. Other threads must not use the network meanwhile.
        Raises a HyperparameterError if the network has no single classifier layer.
        """
        network = network or self.predicting
        if head_of(network) is None:
            raise HyperparameterError(
                f"{self.blueprint.name} has no single classifier layer, so its features are not available"
            )
        return with_features(lambda x: self.forward(x, network), network, x_BCHW)

    def predict(self, batches: Batches) -> np.ndarray:
        """Return probabilities, or numbers for regression, of shape (num_images, num_outputs)."""
        return self.problem.activate(torch.from_numpy(self.outputs(batches))).numpy()

    def outputs(
        self, batches: Batches, network: torch.nn.Module | None = None, seconds_left: Callable[[], float] = lambda: 1.0
    ) -> np.ndarray:
        """Return what `forward` does for each image, float32 of shape (num_images, num_outputs).

        When `seconds_left` returns 0 or less, the remaining batches are skipped; the first batch never is.
        """
        network = (network or self.predicting).eval()
        (outputs,) = self.over(batches, lambda x_BCHW: (self.forward(x_BCHW, network),), seconds_left)
        return outputs

    def over(
        self,
        batches: Batches,
        compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        seconds_left: Callable[[], float],
    ) -> list[np.ndarray]:
        """Compute tensors of each batch, until no time is left, concatenate each of them, and update `image_s`."""
        parts: list[tuple[np.ndarray, ...]] = []
        seconds: list[float] = []  # of an image in each batch
        with self.inference.threads():
            start_s = time.perf_counter()
            for x_BCHW, *_ in batches.in_order():
                parts.append(tuple(tensor.cpu().numpy() for tensor in compute(x_BCHW)))
                now_s = time.perf_counter()
                seconds.append((now_s - start_s) / len(x_BCHW))
                start_s = now_s
                if seconds_left() <= 0:
                    break
        if self._folded is not None or self.inference.compiled:  # validation in training does not fold batch norm
            self.image_s = min(self.image_s, statistics.median(seconds[1:] or seconds))
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def inference_candidates(device: torch.device, amp: bool | None) -> list[Numerics]:
    """Return the candidates for predictions."""
    # Channels last was the faster memory format in inference for all networks that were measured.
    return candidates(device, "inference", amp, channels_last=True)


def known_inference(blueprint: Blueprint, amp: bool | None, device: torch.device, batch_size: int) -> Numerics | None:
    """Return the numerics for predictions that were measured before on this machine, if any, such as for validation."""
    if blueprint.architecture is None:
        return None
    side = blueprint.input.img_size
    workload = Workload("inference", blueprint.architecture, (batch_size, blueprint.in_chans, side, side))
    among = inference_candidates(device, amp)
    known = among[0] if len(among) == 1 else known_choice(workload, among)
    return known if known is None or amp is True else choose_engine(known, workload)[0]


def outputs_and_features(
    classifier: Classifier, batches: Batches, network: torch.nn.Module, seconds_left: Callable[[], float] = lambda: 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs and features of all images, as `Classifier.outputs` and `Classifier.outputs_and_features` do."""
    network.eval()
    outputs, features = classifier.over(
        batches, lambda x_BCHW: classifier.outputs_and_features(x_BCHW, network), seconds_left
    )
    return outputs, features


def features_of(
    classifier: Classifier, batches: Batches, seconds_left: Callable[[], float] = lambda: 1.0
) -> np.ndarray:
    """Return the features of all images, float32 of shape (num_images, num_features)."""
    return outputs_and_features(classifier, batches, classifier.predicting, seconds_left)[1]


def with_features(
    compute: Callable[[torch.Tensor], torch.Tensor], network: torch.nn.Module, x_BCHW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs that are computed with a network, and the first input of its classifier layer meanwhile."""
    inputs: list[torch.Tensor] = []
    head = head_of(network)
    assert head is not None
    hook = head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        outputs = first_output(compute(x_BCHW))
    finally:
        hook.remove()
    return outputs, inputs[0].float().flatten(1)


def first_output(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return a network's outputs without those of an auxiliary head, which some networks add."""
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


def head_of(network: torch.nn.Module) -> torch.nn.Module | None:
    """Return the classifier layer of a network; None if it has none, or several."""
    find = getattr(network, "get_classifier", None)
    head = find() if callable(find) else None
    return head if isinstance(head, torch.nn.Module) else None


def empty_classifier(
    blueprint: Blueprint, problem: Problem, numerics: Numerics, own: CustomObject | None = None, amp: bool | None = None
) -> Classifier:
    """Build a blueprint's network, into which all weights are to be loaded; `own` is a network of the user's own."""
    num_outputs, in_chans, img_size = problem.num_outputs, blueprint.in_chans, blueprint.img_size
    if blueprint.architecture is None:
        if own is None:
            raise SavedPredictorError("it names no network, and there is none of the user's own")
        network = build_custom_network(own, num_outputs, in_chans, blueprint.input.img_size)
    else:
        network = build_network(
            blueprint.architecture,
            num_outputs,
            pretrained=False,
            in_chans=in_chans,
            img_size=img_size,
            random_start=False,
        )
    return Classifier(blueprint, problem, network, numerics, amp)


def load_weights(network: torch.nn.Module, path: Path, checksum: str | None = None) -> None:
    """Load a file of weights; a SavedPredictorError if it is damaged, of another network, or not finite.

    The error is raised as well if the file has another `checksum`.
    """
    state, metadata = read_weights_of(network, path)
    if damaged := next((name for name, part in state.items() if not part.isfinite().all()), None):
        raise SavedPredictorError(f"{path} cannot be loaded: {damaged} has values that are not finite (NaN or inf)")
    if checksum not in (None, metadata.get(CHECKSUM, "")):
        raise SavedPredictorError(
            f"{path} cannot be loaded: the weights have been replaced since the predictor was saved or loaded. "
            "Load the predictor again, or restore a copy"
        )
    network.load_state_dict(state)


def read_weights_of(network: torch.nn.Module, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file of this network's weights; raise errors as `load_weights` does."""
    try:
        if not path.is_file():
            raise SavedPredictorError(f"{path} cannot be loaded: it does not exist or is not a regular file")
        expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        with safe_open(path, framework="pt") as file:  # nothing is read before names and shapes are known
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        if found != expected:
            names = [name for name in [*found, *expected] if found.get(name) != expected.get(name)]
            raise SavedPredictorError(f"{path} cannot be loaded: it is of another network ({names[0][:200]})")
        return read_weights(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SavedPredictorError(f"{path} cannot be loaded: {error}") from None
