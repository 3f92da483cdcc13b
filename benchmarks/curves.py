"""Recorded fine-tuning runs: reading, and their description for the portfolio."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saccade.autosearch.features import DatasetDescription, Description, NetworkDescription

# Parameters in millions, input size, ImageNet-1k top-1 accuracy in percent, pretraining, kind, family: as published
# with timm's weights of these names.
_NETWORKS: dict[str, tuple[float, int, float, int, str, str]] = {
    "beit_base_patch16_384": (86.7, 384, 86.8, 1, "transformer", "beit"),
    "beit_large_patch16_512": (306.0, 512, 88.6, 1, "transformer", "beit"),
    "convnext_small_384_in22ft1k": (50.2, 384, 85.8, 1, "conv", "convnext"),
    "deit3_small_patch16_384_in21ft1k": (22.2, 384, 84.8, 1, "transformer", "deit"),
    "dla46x_c": (1.07, 224, 66.0, 0, "conv", "dla"),
    "edgenext_small": (5.59, 256, 81.6, 0, "hybrid", "edgenext"),
    "edgenext_x_small": (2.34, 256, 74.9, 0, "hybrid", "edgenext"),
    "edgenext_xx_small": (1.33, 256, 71.2, 0, "hybrid", "edgenext"),
    "mobilevit_xs": (2.32, 256, 74.6, 0, "hybrid", "mobilevit"),
    "mobilevit_xxs": (1.27, 256, 68.9, 0, "hybrid", "mobilevit"),
    "mobilevitv2_075": (2.87, 256, 75.6, 0, "hybrid", "mobilevit"),
    "swinv2_base_window12to24_192to384_22kft1k": (87.9, 384, 87.1, 1, "transformer", "swin"),
    "tf_efficientnet_b4_ns": (19.3, 380, 85.2, 2, "conv", "efficientnet"),
    "tf_efficientnet_b6_ns": (43.0, 528, 86.5, 2, "conv", "efficientnet"),
    "tf_efficientnet_b7_ns": (66.3, 600, 86.8, 2, "conv", "efficientnet"),
    "volo_d1_384": (26.8, 384, 85.2, 0, "transformer", "volo"),
    "volo_d3_448": (86.6, 448, 86.5, 0, "transformer", "volo"),
    "volo_d4_448": (193.0, 448, 86.8, 0, "transformer", "volo"),
    "volo_d5_448": (296.0, 448, 87.0, 0, "transformer", "volo"),
    "volo_d5_512": (296.0, 512, 87.1, 0, "transformer", "volo"),
    "xcit_nano_12_p8_384_dist": (3.05, 384, 77.8, 0, "transformer", "xcit"),
    "xcit_tiny_12_p8_384_dist": (6.7, 384, 82.4, 0, "transformer", "xcit"),
    "xcit_tiny_24_p8_384_dist": (12.1, 384, 83.7, 0, "transformer", "xcit"),
    "xcit_small_12_p8_384_dist": (26.2, 384, 85.1, 0, "transformer", "xcit"),
}
NUM_EPOCHS = 50
"""Number of epochs requested in each recorded run; many ended earlier."""


@dataclass(frozen=True)
class Curve:
    """One recorded run: validation accuracies, 0 to 1, and seconds, epoch by epoch."""

    scores: np.ndarray
    epoch_s: np.ndarray


@dataclass(frozen=True)
class CurvesDataset:
    """All runs on one data set.

    Attributes
    ----------
    name : str
        The data set's name.
    data : DatasetDescription
        What is known of its images.
    curves : dict of str to Curve
        By configuration.
    """

    name: str
    data: DatasetDescription
    curves: dict[str, Curve]

    @property
    def best(self) -> float:
        """The best accuracy of any epoch of any configuration."""
        return max(float(curve.scores.max()) for curve in self.curves.values())

    @property
    def lowest(self) -> float:
        """The best accuracy of the lowest configuration."""
        return min(float(curve.scores.max()) for curve in self.curves.values())

    def regret(self, seen: float | None) -> float:
        """Return the regret of the best accuracy seen, 0 to 1; 1 if nothing was seen."""
        if seen is None:
            return 1.0
        return (self.best - max(seen, self.lowest)) / (self.best - self.lowest)


@dataclass(frozen=True)
class Curves:
    """A folder of recorded runs.

    Attributes
    ----------
    datasets : list of CurvesDataset
        By name.
    configs : DataFrame
        The hyperparameters, by configuration.
    """

    datasets: list[CurvesDataset]
    configs: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Curves:
        """Read ``curves.json``, ``configs.csv`` and ``datasets.json``."""
        about = json.loads((folder / "datasets.json").read_text())
        curves = json.loads((folder / "curves.json").read_text())
        # "None" is a word here, not a missing value.
        configs = pd.read_csv(folder / "configs.csv", dtype={"config_id": str}, keep_default_na=False)
        configs = configs.set_index("config_id")
        datasets = [
            CurvesDataset(
                name,
                DatasetDescription(about[name]["num_images"], about[name]["num_classes"]),
                {
                    key: Curve(np.array(run["val_acc"]) / 100, np.array(run["epoch_s"]))
                    for key, run in sorted(runs.items())
                    if run["val_acc"]
                },
            )
            for name, runs in sorted(curves.items())
        ]
        return cls(datasets, configs)

    def describe(self, config_id: str) -> Description:
        """Return a recorded configuration in the form of the portfolio."""
        row: dict[str, Any] = self.configs.loc[config_id].to_dict()
        return Description(network_of(str(row["model"])), _hyperparameters(row), NUM_EPOCHS)


def network_of(name: str) -> NetworkDescription:
    """Return the description of a network of the recordings."""
    params, size, top1, pretraining, kind, family = _NETWORKS[name]
    return NetworkDescription(params * 1e6, size, top1 / 100, pretraining, kind, family)


def _hyperparameters(row: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a row under the portfolio's names."""
    words = {"random_augment": "randaugment", "trivial_augment": "trivialaugment", "auto_augment": "autoaugment"}
    number = {name: _number(value) for name, value in row.items()}
    sched = str(row["sched"])
    return {
        "lr": number["lr"],
        "batch_size": int(number["batch_size"]),
        "opt": row["opt"],
        "momentum": number["momentum"] if row["opt"] == "momentum" else 0.0,
        "weight_decay": number["weight_decay"],
        "sched": sched,
        "warmup_epochs": number["warmup_epochs"],
        "warmup_lr": number["warmup_lr"],
        "decay_epochs": number["decay_epochs"] if sched in ("step", "multistep") else None,
        "decay_rate": number["decay_rate"],
        "plateau_patience": number["patience_epochs"] if sched == "plateau" else None,
        "layer_decay": 1.0 if number["layer_decay"] < 0 else number["layer_decay"],
        "frozen_part": number["pct_to_freeze"],
        "head_only": bool(number["linear_probing"]),
        "mixup": number["mixup"],
        "cutmix": number["cutmix"],
        "mix_prob": number["mixup_prob"],
        "smoothing": number["smoothing"],
        "drop": number["drop"],
        "clip_grad": number["clip_grad"] if number["clip_grad"] > 0 else None,
        "augmentation": words.get(str(row["data_augmentation"])),
        "amp": bool(number["amp"]),
        "betas": _pair(str(row["opt_betas"])),
        "l2_sp": number["sp_reg"],
        "delta": number["delta_reg"],
        "bss": number["bss_reg"],
        "co_tuning": number["cotuning_reg"],
        "stochastic_norm": bool(number["stoch_norm"]),
    }


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _pair(text: str) -> tuple[float, float] | None:
    return tuple(json.loads(text)) if text.startswith("[") else None
