"""Presets: names for sets of hyperparameters and fit options. Arguments of the user take precedence.

- ``medium_quality``, ``high_quality``, ``best_quality`` and ``fast_inference`` choose how much work to invest in
  training and in prediction. They search the networks that are available and that suit the time limit, as without a
  preset (`saccade.training.recipes.default_space`).
- ``good_quality_fast_inference``, ``medium_quality_faster_train``, ``medium_quality_faster_inference``, and
  ``best_quality`` with an hour or more, are AutoGluon's, with its networks and ranges. If none of these weights are
  available, other networks replace them (`saccade.training.recipes.default_space`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.space import Categorical, Real

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Preset:
    """Defaults of a fit."""

    options: dict[str, Any] = field(default_factory=dict)  # arguments of `saccade.fit.options.FitOptions`
    hyperparameters: dict[str, Any] = field(default_factory=dict)  # values and spaces by name
    min_time_limit_s: float = 0.0  # time limit from which on the hyperparameters apply


PRESETS: dict[str, Preset] = {
    "medium_quality": Preset(
        {"time_limit": _HOUR_S / 6, "num_trials": 8, "ensemble": False}, {"early_stop_patience": 5}
    ),
    "high_quality": Preset({"time_limit": _HOUR_S, "ensemble": 3}, {"early_stop_patience": 10}),
    "best_quality": Preset(
        {"time_limit": 12 * _HOUR_S, "num_trials": 1024, "ensemble": 5},
        {
            "model": Categorical("swin_base_patch4_window7_224", "convnext_base", "twins_pcpvt_base", "resnet101d"),
            "lr": Real(1e-5, 1e-2, default=1e-4, log=True),
            "batch_size": Categorical(8, 16, 32, 64),
            "epochs": 200,
            "early_stop_patience": 50,
        },
        min_time_limit_s=_HOUR_S,  # large networks need hours
    ),
    "fast_inference": Preset({"time_limit": _HOUR_S, "distill": True}),
    "good_quality_fast_inference": Preset(
        {"time_limit": 8 * _HOUR_S, "num_trials": 512, "ensemble": False},
        {
            "model": Categorical("resnet50d", "efficientnet_b1", "mobilenetv3_large_100"),
            "lr": Real(1e-4, 1e-2, default=1e-3, log=True),
            "epochs": 150,
            "early_stop_patience": 20,
        },
    ),
    "medium_quality_faster_train": Preset(
        {"time_limit": _HOUR_S, "num_trials": 1},
        {"model": "resnet50d", "lr": 0.01, "batch_size": 64, "epochs": 50, "early_stop_patience": 5},
    ),
    "medium_quality_faster_inference": Preset(
        {"time_limit": 2 * _HOUR_S, "num_trials": 32, "ensemble": False},
        {
            "model": Categorical("resnet18", "mobilenetv3_small_100"),
            "lr": Categorical(0.01, 0.005, 0.001),
            "epochs": 50,
            "early_stop_patience": 10,
        },
    ),
}


def find_preset(names: str | Sequence[str] | Mapping[str, Any] | None, limit_s: float | None = None) -> Preset:
    """Return the preset of these names, merged in order, for the user's limit; raise an error for unknown ones."""
    if isinstance(names, Mapping):
        return Preset(hyperparameters=dict(names))
    names = [] if names is None else [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence):
        raise HyperparameterError(f"presets was given {names!r}; expected a name, a list of names, a dict or None")
    merged = Preset()
    for name in names:
        if name not in PRESETS:
            raise UnknownNameError.of("preset", name, PRESETS)
        preset = PRESETS[name]
        applies = (math.inf if limit_s is None else limit_s) >= preset.min_time_limit_s
        merged = Preset(
            {**merged.options, **preset.options},
            {**merged.hyperparameters, **(preset.hyperparameters if applies else {})},
        )
    return merged
