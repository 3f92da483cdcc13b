"""A module whose outputs are those of predictors of several problem types, to be exported at once."""

from __future__ import annotations

import torch
from torch import nn

from saccade.export.module import ExportModule
from saccade.inference.calibration import Calibration
from saccade.inference.classifier import Blueprint, Classifier
from saccade.inference.pipeline import PredictionHead, PredictionModule
from saccade.inference.postprocessing import Conformal, Postprocessing
from saccade.inference.thresholds import Thresholds
from saccade.models.network import InputSpec
from saccade.numerics.device import Numerics
from saccade.tasks.problem import Binary, Multilabel, Problem, Regression

PROBLEMS: list[tuple[Problem, Postprocessing, float | None]] = [
    (
        Binary(("no", "yes")),
        Postprocessing(Calibration(0.8), Thresholds((0.3,)), Conformal((0.9,) * 10 + (0.6,) * 10)),
        0.9,
    ),
    (Multilabel(("a", "b", "c")), Postprocessing(Calibration(1.4), Thresholds((0.2, 0.5, 0.7))), None),
    (Regression(mean=1234567.89, std=3.1), Postprocessing(conformal=Conformal((-1.5,) * 10 + (-2.5,) * 10)), 0.9),
]


class Scaled(nn.Module):
    """Preprocessing that takes no time to convert; files of whole predictors have a real one."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255


class Problems(nn.Module):
    """The outputs of a predictor with one or two small networks for each of `PROBLEMS`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = []
        for problem, parts, coverage in PROBLEMS:
            members = []
            for tta in (False, True) if len(problem.classes) < 2 else (True,):
                layers = nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()
                network = nn.Sequential(*layers, nn.Linear(8, problem.num_outputs)).eval()
                blueprint = Blueprint(None, InputSpec(32, 1.0, "bilinear", (0.5,) * 3, (0.2,) * 3), tta=tta, own="own")
                members.append(Classifier(blueprint, problem, network, Numerics(torch.device("cpu"))))
            head = PredictionHead([0.4, 0.6] if len(members) > 1 else [1.0], problem, parts, coverage)
            module = ExportModule(PredictionModule(members, head)).eval()
            module.prediction.preprocess = nn.ModuleList(Scaled() for _ in members)
            made.append(module)
        self.channels = 3
        self.each = nn.ModuleList(made)
        self.output_names = [f"{name}_{number}" for number, one in enumerate(made) for name in one.output_names]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(output for module in self.each for output in module(images))

    def example(self, num: int = 2, height: int = 40, width: int = 50) -> torch.Tensor:
        return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8)
