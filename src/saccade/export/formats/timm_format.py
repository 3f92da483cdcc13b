"""A network as a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.checks import whole_number
from saccade.errors import DataError, HyperparameterError, SaccadeError
from saccade.export.base import ExportFormat, Run
from saccade.export.metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from saccade.export.module import ExportModule
    from saccade.inference.pipeline import InferencePipeline

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # the names that timm looks for


class TimmFormat(ExportFormat):
    """One network with its class names and preprocessing, for timm's own functions.

    The outputs are those of the network before softmax (sigmoid for multilabel problems; for regression they are
    standardised). Averages, calibration and thresholds of the predictor are not part of it: the file ``config.json``
    has calibration as ``saccade``. `member` is the number of the network; None is the only one of a single network.
    """

    name, suffix = "timm", ".safetensors"
    tolerance = 1e-4  # of outputs

    def __init__(self, member: int | None = None) -> None:
        self.member = None if member is None else whole_number("member", member, least=0)

    def convert(self, module: ExportModule) -> Any:
        """Return the classifier."""
        saved = module.saved
        assert saved is not None
        names = [member.blueprint.name for member in saved.members]
        listed = ", ".join(
            f"{number} ({name}, weight {member.weight:.2f})"
            for number, (name, member) in enumerate(zip(names, saved.members, strict=True))
        )
        if self.member is None and len(names) > 1:
            raise HyperparameterError(
                f"The predictor is an ensemble; timm's format has one network. Pass its number as member=…: {listed}"
            )
        number = self.member or 0
        if number >= len(names):
            raise HyperparameterError(f"member={number} does not exist; the networks are {listed}")
        if saved.members[number].blueprint.architecture is None:
            raise HyperparameterError(f"{names[number]} is a network of your own, which timm does not have")
        from saccade.numerics.device import Numerics, choose_device

        classifier = saved.classifier(saved.members[number], Numerics.choose(choose_device("cpu"), amp=False))
        classifier.network.eval()
        return classifier, saved

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write the weights and ``config.json``."""
        import torch
        from timm.models import save_for_hf

        if file.name != WEIGHTS:
            raise DataError(f"timm looks for {WEIGHTS}; {file.name} was given. Pass a folder")
        classifier, saved = program
        spec, problem = classifier.blueprint.input, saved.problem
        data = {
            "input_size": (len(spec.mean), spec.img_size, spec.img_size),
            "mean": spec.mean,
            "std": spec.std,
            "crop_pct": spec.crop_pct,
            "crop_mode": "center",
            "interpolation": spec.interpolation,
        }
        calibration: dict[str, Any] = {"temperature": saved.postprocessing.calibration.temperature}
        if not problem.has_classes:
            calibration = {"mean": problem.mean, "std": problem.std}
        of_saccade = {
            **metadata.model_dump(mode="json"),
            "network": classifier.blueprint.name,
            "calibration": calibration,
        }
        config: dict[str, Any] = {KEY: of_saccade}
        if problem.has_classes:
            config["label_names"] = saved.names_of_classes
        network = classifier.network.to(memory_format=torch.contiguous_format)  # as safetensors requires
        save_for_hf(network, str(file.parent), model_config=config, data_config=data, safe_serialization=True)

    def load(self, file: Path) -> Run:
        """Return the network's outputs, as ``outputs``, for images that timm's own transform prepares."""
        import timm
        import torch
        from PIL import Image

        network = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                x_BCHW = torch.stack([transform(Image.fromarray(image)) for image in images])
                return {"outputs": network(x_BCHW).numpy()}

        return run

    def check(self, program: Any, file: Path, module: ExportModule, pipeline: InferencePipeline) -> float:  # noqa: ARG002
        """Compare what timm loads with the predictor's network for the same preprocessed tensor, and class names."""
        import timm
        import torch

        classifier, saved = program
        spec = classifier.blueprint.input
        shape = (4, len(spec.mean), spec.img_size, spec.img_size)
        x_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        network = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
        with torch.inference_mode():
            outputs, expected = network(x_BCHW), classifier.network(x_BCHW)
        difference = float((outputs - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        config = json.loads((file.parent / CONFIG).read_text(encoding="utf-8"))
        if config.get("label_names", []) != saved.names_of_classes or not difference <= self.tolerance:
            raise SaccadeError(
                f"timm loads another network: outputs differ by {difference:.2g}, more than {self.tolerance:g}, or "
                "class names differ. Nothing was written"
            )
        return difference
