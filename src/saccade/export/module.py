"""The module that is exported: everything from decoded images to labels, with named outputs."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from saccade.errors import SaccadeError
from saccade.inference.pipeline import PredictionModule
from saccade.inference.saved import SavedPredictor


class ExportModule(nn.Module):
    """From images, uint8 (N, H, W, C) of any one size, to a tuple of tensors whose names are `output_names`.

    - ``probabilities``: float32 (N, num_outputs), calibrated; for regression ``prediction``, float64 (N,), instead.
    - ``label``: int64 (N,), the number of the class; for multilabel problems ``given``, bool (N, num_outputs); not for
      regression.
    - ``set_mask``: bool (N, num_outputs), the conformal set, with a `coverage`; for regression ``interval``, float64
      (N, 2). Not for multilabel problems.
    - ``novelty``: float32 (N,), if the `prediction` has features of training images.

    `saved` is the predictor, for formats that write networks instead of the module.
    """

    def __init__(self, prediction: PredictionModule, saved: SavedPredictor | None = None) -> None:
        super().__init__()
        self.prediction, self.saved, head = prediction, saved, prediction.head
        self.problem, coverage = head.problem, head.coverage
        self.has_novelty = prediction.known is not None
        self.channels = prediction.channels
        self.half_width = None  # of the interval
        if coverage is not None and not self.problem.has_classes:
            self.half_width = -head.postprocessing.conformal.threshold(coverage)
        decision = ["label"] if self.problem.has_one_class else ["given"] if self.problem.has_classes else []
        sets = [] if coverage is None else ["set_mask" if self.problem.has_classes else "interval"]
        first = "probabilities" if self.problem.has_classes else "prediction"
        self.output_names = [first, *decision, *sets, *["novelty"] * self.has_novelty]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs."""
        found = self.prediction(images.permute(0, 3, 1, 2))
        outputs = {
            "probabilities": found.predictions,
            "prediction": found.predictions[:, 0],
            "label": found.adjusted.argmax(1),
            "given": found.given,
            "set_mask": found.set_mask,
            "novelty": found.novelty,
        }
        if self.half_width is not None:
            outputs["interval"] = found.predictions + torch.tensor([[-self.half_width, self.half_width]])
        return tuple(outputs[name] for name in self.output_names)

    def example(self, num: int = 2, height: int = 70, width: int = 90) -> torch.Tensor:
        """Return images of noise."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (num, height, width, self.channels), dtype=torch.uint8, generator=generator)


def exported_program(module: ExportModule) -> torch.export.ExportedProgram:
    """Return the module as a program of torch for images of any number and size; a SaccadeError if it fails."""
    dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # The first mode runs the Python code of networks, which also takes what TorchDynamo refuses.
            return torch.export.export(module, (module.example(),), dynamic_shapes=[dynamic], strict=False)
    except Exception as error:  # many kinds, from the code of a network
        names = ", ".join(dict.fromkeys(type(each).__name__ for each in module.prediction.networks))
        reason = " ".join(str(error).split())[:300]
        raise SaccadeError(
            f"The network ({names}) cannot be exported: {type(error).__name__}: {reason}. torch.export requires a "
            "forward pass whose operations do not depend on values of tensors; change the network, or use another one"
        ) from error
