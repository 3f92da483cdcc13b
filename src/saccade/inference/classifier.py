"""A network with everything that is needed to use it: its input, its problem, its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from saccade.data.augmentation import evaluation_transform
from saccade.data.batches import Batches, Images
from saccade.models.batch_norm_folding import fold_batch_norm
from saccade.models.custom import CustomObject, build_custom_network
from saccade.models.network import InputSpec, build_network
from saccade.numerics.choice import PREDICTION_PART, Purpose, Workload, candidates, choose_numerics, structure_name
from saccade.numerics.device import Numerics
from saccade.tasks.problem import Problem


@dataclass(frozen=True)
class Blueprint:
    """What a network is, without its weights; as JSON it is how a predictor is saved.

    Attributes
    ----------
    architecture : str or None
        timm's name; None for a network of the user's own.
    input : InputSpec
        Size, crop, interpolation and normalisation of what it sees; its means tell the number of channels.
    img_size : int or None
        The image size that the network was built for, when it is not its own.
    tta : bool
        Whether predictions are the mean over an image and its mirror image.
    own : str or None
        What the user's own network is called.
    """

    architecture: str | None
    input: InputSpec
    img_size: int | None = None
    tta: bool = False
    own: str | None = None

    @property
    def name(self) -> str:
        """Of the network, for messages."""
        return self.architecture or self.own or ""

    @property
    def in_chans(self) -> int:
        """Channels of an image."""
        return len(self.input.mean)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Blueprint:
        """Return the blueprint that `to_json` wrote."""
        spec = record["input"]
        spec = InputSpec(**{**spec, "mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
        return cls(**{**record, "input": spec})


class Classifier:
    """A network that is asked for predictions.

    Parameters
    ----------
    blueprint : Blueprint
        What the network is.
    problem : Problem
        What its outputs mean.
    network : torch.nn.Module
        With its weights.
    numerics : Numerics
        Where and how to compute.
    amp : bool or None
        Whether predictions are computed in 16 bits; None lets `choose_inference` measure.

    Attributes
    ----------
    inference : Numerics
        How predictions are computed: as `numerics` says, until `choose_inference` or `use` say otherwise.
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
        self._fused: torch.nn.Module | None = None
        spec = blueprint.input
        self.transform = evaluation_transform(spec.img_size, spec.crop_pct, spec.interpolation)

    @property
    def head(self) -> torch.nn.Module | None:
        """The last layer; None where the network has none, or several."""
        return head_of(self.network)

    def use(self, numerics: Numerics, inference: Numerics) -> None:
        """Train by the one and predict by the other numerics from now on; they have the same memory order."""
        if (numerics, inference) != (self.numerics, self.inference):
            self.numerics, self.inference, self._fused = numerics, inference, None
        numerics.place(self.network)

    @property
    def predicting(self) -> torch.nn.Module:
        """What computes predictions: the network, or what `fuse` has made of it."""
        return self._fused or self.network

    def fuse(self) -> None:
        """Let predictions be computed by a copy with fewer layers from now on: see `saccade.models.batch_norm_folding`.

        This is for a network whose weights do not change; where they will, `unfuse` comes first.
        """
        if self._fused is None and not self.inference.compiled:
            made = fold_batch_norm(self.network, self.blueprint.in_chans, self.blueprint.input.img_size)
            self._fused = self.network if made is None else self.inference.place(made)

    def unfuse(self) -> None:
        """Let predictions be computed by the network itself again."""
        self._fused = None

    def choose_inference(self, num_batches: float, batch_size: int = 32) -> Numerics:
        """Let predictions be computed in the fastest numerics, as remembered or measured, and return these.

        The network is placed accordingly, so this is for one that is not trained further.

        Parameters
        ----------
        num_batches : float
            How many there will be; of many, `PREDICTION_PART` of their time goes into measuring.
        batch_size : int
            Images in each.
        """
        self.network.eval()
        # Channels last is the faster order in inference, for all networks that were measured.
        among = candidates(self.numerics.device, "inference", self.amp, channels_last=True)
        chosen = choose_numerics(
            self.network, self.workload("inference", batch_size), among, PREDICTION_PART * num_batches
        )
        self.use(chosen, chosen)
        return chosen

    def workload(self, purpose: Purpose, batch_size: int) -> Workload:
        """Return what numerics are chosen for."""
        side = self.blueprint.input.img_size
        name = structure_name(self.network, self.blueprint.architecture, is_trained=purpose == "training")
        return Workload(purpose, name, (batch_size, self.blueprint.in_chans, side, side))

    def batches(
        self, images: Images, indices: np.ndarray, targets: np.ndarray | None = None, batch_size: int = 32
    ) -> Batches:
        """Return batches of images as the network wants to see them when it is judged."""
        spec, device = self.blueprint.input, self.numerics.device
        targets = np.zeros(len(indices), np.int64) if targets is None else targets
        return Batches(images, indices, targets, self.transform, batch_size, spec.mean, spec.std, device)

    def predict(
        self,
        batches: Batches,
        network: torch.nn.Module | None = None,
        seconds_left: Callable[[], float] = lambda: 1.0,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> np.ndarray:
        """Return probabilities, or numbers for regression, of shape (num_images, num_outputs).

        Parameters
        ----------
        batches : Batches
            The images.
        network : torch.nn.Module or None
            Another network of the same blueprint, such as an average of weights.
        seconds_left : callable
            When it falls to 0 the rest of the images is left out, but for the first batch.
        on_batch : callable
            Told how many images each batch had.
        """
        outputs = self.outputs(batches, network, seconds_left, on_batch)
        return self.problem.activate(torch.from_numpy(outputs)).numpy()

    def outputs(
        self,
        batches: Batches,
        network: torch.nn.Module | None = None,
        seconds_left: Callable[[], float] = lambda: 1.0,
        on_batch: Callable[[int], None] = lambda _: None,
        on_more: Callable[[np.ndarray], None] = lambda _: None,
    ) -> np.ndarray:
        """Return what `Problem.activate` makes predictions of, float32 of shape (num_images, num_outputs).

        That is what the network says; with `tta`, what it would have to say for the mean of its two predictions.

        Parameters
        ----------
        batches, network, seconds_left, on_batch
            As in `predict`.
        on_more : callable
            Told what else the network says to a batch, where it says two things.
        """
        passes = self._outputs(batches, network or self.predicting, seconds_left, on_batch, on_more)
        with self.inference.threads():
            return np.concatenate(list(passes))

    @torch.inference_mode()
    def _outputs(
        self,
        batches: Batches,
        network: torch.nn.Module,
        seconds_left: Callable[[], float],
        on_batch: Callable[[int], None],
        on_more: Callable[[np.ndarray], None],
    ) -> Iterator[np.ndarray]:
        network.eval()
        for x_BCHW, _ in batches.in_order():
            with self.inference.autocast():
                outputs, *more = _as_tuple(network(x_BCHW))
                if self.blueprint.tta:
                    outputs = self.problem.mean_outputs(outputs, _as_tuple(network(x_BCHW.flip(3)))[0])
            for said in more:
                on_more(said.cpu().numpy())
            on_batch(len(x_BCHW))
            yield outputs.float().cpu().numpy()
            if seconds_left() <= 0:
                return


def _as_tuple(said: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return said if isinstance(said, tuple) else (said,)


def head_of(network: torch.nn.Module) -> torch.nn.Module | None:
    """Return the last layer of a network; None where it has none, or several."""
    find = getattr(network, "get_classifier", None)
    head = find() if callable(find) else None
    return head if isinstance(head, torch.nn.Module) else None


def empty_classifier(
    blueprint: Blueprint,
    problem: Problem,
    numerics: Numerics,
    own: CustomObject | None = None,
    amp: bool | None = None,
) -> Classifier:
    """Build a blueprint's network to load all weights into; `own` is the network, where it is the user's own."""
    num_outputs, in_chans, img_size = problem.num_outputs, blueprint.in_chans, blueprint.img_size
    if blueprint.architecture is None:
        assert own is not None, "a network of the user's own can be built by the user only"
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
