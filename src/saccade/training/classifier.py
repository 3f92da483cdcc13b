"""A network with everything that is needed to use it: its input, its problem, its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.augmentation import evaluation_transform
from saccade.data.batches import Batches, Images
from saccade.models.catalogue import resolve_name
from saccade.models.fused import fused
from saccade.models.network import InputSpec, build_network, classifier_parameters, network_input
from saccade.training.device import Numerics
from saccade.training.numerics import PREDICTION_PART, candidates, choose_numerics, structure_name
from saccade.training.numerics_bench import Purpose, Workload
from saccade.training.own_parts import OwnPart, build_own_network
from saccade.training.problem import Problem
from saccade.training.recipe import Recipe
from saccade.training.streams import Forward, computes_by_image


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

    @classmethod
    def of(cls, network: torch.nn.Module, recipe: Recipe) -> Blueprint:
        """Return the blueprint of the recipe's network: what its weights were trained to see, unless told otherwise."""
        spec = network_input(network)
        spec = replace(
            spec,
            img_size=recipe.img_size or spec.img_size,
            crop_pct=recipe.crop_pct or spec.crop_pct,
            mean=_for_channels(spec.mean, recipe.in_chans),
            std=_for_channels(spec.std, recipe.in_chans),
        )
        if isinstance(recipe.model, OwnPart):
            return cls(None, spec, recipe.img_size, recipe.tta, repr(recipe.model))
        return cls(resolve_name(recipe.model), spec, recipe.img_size, recipe.tta)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Blueprint:
        """Return the blueprint that `to_json` wrote."""
        spec = record["input"]
        spec = InputSpec(**{**spec, "mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
        return cls(**{**record, "input": spec})


def _for_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Return the figures of so many channels from those of a network's own, as timm adapts its first layer."""
    if len(values) == in_chans:
        return values
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_chans))


def weights_options(recipe: Recipe, weights: Path | None) -> dict[str, Any]:
    """Return where `build_network` and `find_weights` are to look for weights: the recipe's word counts first."""
    where = Path(recipe.weights).expanduser() if recipe.weights else weights
    if where is None or not recipe.pretrained:
        return {}
    return {"folder": where} if where.is_dir() else {"file": where}


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

    @property
    def computes_by_image(self) -> bool:
        """Whether a batch's images do not depend on each other; of own networks in training, nobody knows."""
        is_known = self.blueprint.architecture is not None or not self.network.training
        return is_known and computes_by_image(self.network)

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
        """Let predictions be computed by a copy with fewer layers from now on: see `saccade.models.fused`.

        This is for a network whose weights do not change; where they will, `unfuse` comes first.
        """
        if self._fused is None and not self.inference.compiled:
            made = fused(self.network, self.blueprint.in_chans, self.blueprint.input.img_size)
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
        by_image = self.computes_by_image
        among = candidates(self.numerics.device, "inference", self.amp, channels_last=True, by_image=by_image)
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
        forward = Forward(network.eval(), self.inference)
        for x_BCHW, _ in batches.in_order():
            outputs, *more = _as_tuple(forward(x_BCHW))
            if self.blueprint.tta:
                outputs = self.problem.mean_outputs(outputs, _as_tuple(forward(x_BCHW.flip(3)))[0])
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


def new_classifier(
    recipe: Recipe, problem: Problem, numerics: Numerics, weights: Path | None = None, *, is_loaded_next: bool = False
) -> Classifier:
    """Build the recipe's network, pretrained if it says so, with a new last layer for the problem.

    Parameters
    ----------
    recipe, problem, numerics
        What the network is, what its outputs mean, and where it is placed.
    weights : Path or None
        A file of pretrained weights, or a folder of them, for recipes that name none.
    is_loaded_next : bool
        Whether all weights are loaded into it next, so that it may be built without any.
    """
    if isinstance(recipe.model, OwnPart):
        network = build_own_network(recipe.model, problem.num_outputs, recipe.in_chans, recipe.img_size)
    else:
        where = weights_options(recipe, weights)
        network = build_network(
            recipe.model,
            problem.num_outputs,
            pretrained=recipe.pretrained,
            in_chans=recipe.in_chans,
            img_size=recipe.img_size,
            drop_rate=recipe.drop or None,
            drop_path_rate=recipe.drop_path,
            weights_file=where.get("file"),
            weights_folder=where.get("folder"),
            random_start=not (recipe.starts_pretrained or is_loaded_next),  # the last layer starts from zero
        )
    if recipe.starts_pretrained:
        _quiet_head(network)
    return Classifier(Blueprint.of(network, recipe), problem, network, numerics)


@torch.no_grad()
def _quiet_head(network: torch.nn.Module) -> None:
    """Start the new last layer from zero, so that its first gradients do not shake what was pretrained.

    Some of timm's heads start so large for few classes that the first steps undo the pretraining; from zero, the head
    learns first and the rest follows (compare Kumar et al., "Fine-tuning can distort pretrained features", 2022).
    """
    head = classifier_parameters(network)
    for name, parameter in network.named_parameters():
        if name in head:
            parameter.zero_()


def empty_classifier(
    blueprint: Blueprint,
    problem: Problem,
    numerics: Numerics,
    own: OwnPart | None = None,
    amp: bool | None = None,
) -> Classifier:
    """Build a blueprint's network to load all weights into; `own` is the network, where it is the user's own."""
    num_outputs, in_chans, img_size = problem.num_outputs, blueprint.in_chans, blueprint.img_size
    if blueprint.architecture is None:
        assert own is not None, "a network of the user's own can be built by the user only"
        network = build_own_network(own, num_outputs, in_chans, blueprint.input.img_size)
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
