"""Presets: names for a whole set of hyperparameters, limits and other arguments of a fit.

What the user gives besides a preset wins over it. Two kinds are told apart:

- ``medium_quality``, ``high_quality``, ``best_quality`` and ``fast_inference`` say how much work a predictor is worth,
  in training and in predicting. They name no networks: those are searched that can be had here and that suit the time,
  as without any preset (`saccade.training.recipes.default_space`). Only ``best_quality`` with an hour or more names
  large ones.
- ``good_quality_fast_inference``, ``medium_quality_faster_train``, ``medium_quality_faster_inference``, and
  ``best_quality`` with its hours, are AutoGluon's, with the networks and ranges that they had there. Where the weights
  of all of these are missing, other networks stand in (`saccade.training.recipes.default_space`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.models.weights import networks_in_folder
from saccade.space import Categorical, Real

_HOUR_S = 3600.0

LARGE_NETWORKS_S = _HOUR_S
"""The time limit from which on ``best_quality`` searches AutoGluon's large networks: they need hours."""

SMALL_NETWORKS = ("mobilenetv3_large_100", "mobilenetv3_small_100", "resnet18")
"""What ``fast_inference`` searches where there is no local folder of weights."""

NUM_SMALL = 3
"""Networks of a local folder that ``fast_inference`` searches: those with the smallest files."""


@dataclass(frozen=True)
class Preset:
    """What a preset stands for.

    Attributes
    ----------
    hyperparameters : dict
        Values and spaces by name.
    tune_kwargs : dict
        `hyperparameter_tune_kwargs` of a fit.
    time_limit_s : float or None
        The limit when the user gives none.
    settings : dict
        Other arguments of a fit, such as ``ensemble``.
    has_small_networks : bool
        Whether small networks are searched where nothing names any.
    """

    hyperparameters: dict[str, Any] = field(default_factory=dict)
    tune_kwargs: dict[str, Any] = field(default_factory=dict)
    time_limit_s: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    has_small_networks: bool = False

    def over(self, other: Preset) -> Preset:
        """Return both together; where they differ, this one counts."""
        return Preset(
            {**other.hyperparameters, **self.hyperparameters},
            {**other.tune_kwargs, **self.tune_kwargs},
            other.time_limit_s if self.time_limit_s is None else self.time_limit_s,
            {**other.settings, **self.settings},
            self.has_small_networks or other.has_small_networks,
        )


def _presets(limit_s: float) -> dict[str, Preset]:
    """Make all presets anew for a time limit, so that nobody can change them for others."""
    return {
        "medium_quality": Preset({"early_stop_patience": 5}, {"num_trials": 8}, _HOUR_S / 6, {"ensemble": False}),
        "high_quality": Preset({"early_stop_patience": 10}, {}, _HOUR_S, {"ensemble": 3}),
        "best_quality": _best(limit_s),
        "fast_inference": Preset({}, {}, _HOUR_S, {"ensemble": False}, has_small_networks=True),
        **_of_autogluon(),
    }


def _best(limit_s: float) -> Preset:
    large = {
        "model": Categorical("swin_base_patch4_window7_224", "convnext_base", "twins_pcpvt_base", "resnet101d"),
        "lr": Real(1e-5, 1e-2, default=1e-4, log=True),
        "batch_size": Categorical(8, 16, 32, 64),
        "epochs": 200,
        "early_stop_patience": 50,
    }
    is_long = limit_s >= LARGE_NETWORKS_S
    return Preset(large if is_long else {}, {"num_trials": 1024}, 12 * _HOUR_S, {"ensemble": 5})


def _of_autogluon() -> dict[str, Preset]:
    medium = Categorical("resnet50d", "efficientnet_b1", "mobilenetv3_large_100")
    small = Categorical("resnet18", "mobilenetv3_small_100")
    return {
        "good_quality_fast_inference": Preset(
            {"model": medium, "lr": Real(1e-4, 1e-2, default=1e-3, log=True), "epochs": 150, "early_stop_patience": 20},
            {"num_trials": 512},
            8 * _HOUR_S,
            {"ensemble": False},
        ),
        "medium_quality_faster_train": Preset(
            {"model": "resnet50d", "lr": 0.01, "batch_size": 64, "epochs": 50, "early_stop_patience": 5},
            {"num_trials": 1},
            1 * _HOUR_S,
        ),
        "medium_quality_faster_inference": Preset(
            {"model": small, "lr": Categorical(0.01, 0.005, 0.001), "epochs": 50, "early_stop_patience": 10},
            {"num_trials": 32},
            2 * _HOUR_S,
            {"ensemble": False},
        ),
    }


def find_preset(names: str | Sequence[str] | Mapping[str, Any] | None, limit_s: float | None = None) -> Preset:
    """Return the preset of that name; of several, later ones count where they differ; of None, an empty one.

    Parameters
    ----------
    names : str, sequence of str, mapping or None
        ``medium_quality``: the quickest; up to 8 trials that stop early, the best of which is the predictor.
        ``high_quality``: up to 3 networks are averaged, and the weights of trials of one network.
        ``best_quality``: up to 5 networks are averaged, and weights also of networks that began at random; with
        `LARGE_NETWORKS_S` or more, AutoGluon's large networks are searched.
        ``fast_inference``: one small network.
        AutoGluon's ``good_quality_fast_inference``, ``medium_quality_faster_train`` and
        ``medium_quality_faster_inference``. Or a mapping of hyperparameters.
    limit_s : float or None
        The time limit in seconds that the user gives; None where he leaves it to the preset.

    Raises
    ------
    UnknownNameError
        When there is no preset of that name; the message names near ones.
    HyperparameterError
        When it is neither a name nor a list or dict.

    Examples
    --------
    >>> find_preset("medium_quality_faster_train").hyperparameters["model"]
    'resnet50d'
    >>> find_preset("fast_inference").settings
    {'ensemble': False}
    >>> ["model" in find_preset("best_quality", limit_s).hyperparameters for limit_s in (None, 600)]
    [True, False]
    """
    if names is None:
        return Preset()
    if isinstance(names, Mapping):
        return Preset(dict(names))
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, Sequence):
        raise HyperparameterError(f"presets was given {names!r}; expected a name, a list of names, a dict or None")
    known, found = _presets(math.inf if limit_s is None else limit_s), Preset()
    for name in names:
        if name not in known:
            raise UnknownNameError.of("preset", name, known)
        found = known[name].over(found)
    return found


def small_networks(weights: Path | None) -> list[str]:
    """Return the networks that predict fast: of a local folder of weights those with the smallest files.

    Parameters
    ----------
    weights : Path or None
        As in `saccade.training.recipes.default_space.default_networks`.
    """
    return networks_in_folder(weights)[::-1][:NUM_SMALL] or list(SMALL_NETWORKS)
