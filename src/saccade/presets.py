"""Presets: names for a whole set of hyperparameters, limits and patience.

What the user gives besides a preset wins over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.space import Categorical, Real

_HOUR_S = 3600.0


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
    """

    hyperparameters: dict[str, Any] = field(default_factory=dict)
    tune_kwargs: dict[str, Any] = field(default_factory=dict)
    time_limit_s: float | None = None

    def over(self, other: Preset) -> Preset:
        """Return both together; where they differ, this one counts."""
        return Preset(
            {**other.hyperparameters, **self.hyperparameters},
            {**other.tune_kwargs, **self.tune_kwargs},
            other.time_limit_s if self.time_limit_s is None else self.time_limit_s,
        )


def _presets() -> dict[str, Preset]:
    """Make all presets anew, so that nobody can change them for others."""
    large = Categorical("swin_base_patch4_window7_224", "convnext_base", "twins_pcpvt_base", "resnet101d")
    medium = Categorical("resnet50d", "efficientnet_b1", "mobilenetv3_large_100")
    small = Categorical("resnet18", "mobilenetv3_small_100")
    high = Preset(
        {"model": medium, "lr": Real(1e-4, 1e-2, default=1e-3, log=True), "epochs": 150, "early_stop_patience": 20},
        {"num_trials": 512},
        8 * _HOUR_S,
    )
    medium_train = Preset(
        {"model": "resnet50d", "lr": 0.01, "batch_size": 64, "epochs": 50, "early_stop_patience": 5},
        {"num_trials": 1},
        1 * _HOUR_S,
    )
    return {
        "best_quality": Preset(
            {
                "model": large,
                "lr": Real(1e-5, 1e-2, default=1e-4, log=True),
                "batch_size": Categorical(8, 16, 32, 64),
                "epochs": 200,
                "early_stop_patience": 50,
            },
            {"num_trials": 1024},
            12 * _HOUR_S,
        ),
        "good_quality_fast_inference": high,
        "medium_quality_faster_train": medium_train,
        "medium_quality_faster_inference": Preset(
            {"model": small, "lr": Categorical(0.01, 0.005, 0.001), "epochs": 50, "early_stop_patience": 10},
            {"num_trials": 32},
            2 * _HOUR_S,
        ),
        "high_quality": high,
        "medium_quality": Preset({"lr": 1e-3}).over(medium_train),
    }


def find_preset(names: str | Sequence[str] | Mapping[str, Any] | None) -> Preset:
    """Return the preset of that name; of several, later ones count where they differ; of None, an empty one.

    Parameters
    ----------
    names : str, sequence of str, mapping or None
        ``best_quality``, ``high_quality`` (the same as ``good_quality_fast_inference``), ``medium_quality``,
        ``medium_quality_faster_train``, ``medium_quality_faster_inference``; or a mapping of hyperparameters.

    Raises
    ------
    UnknownNameError
        When there is no preset of that name.

    Examples
    --------
    >>> find_preset("medium_quality_faster_train").hyperparameters["model"]
    'resnet50d'
    """
    if names is None:
        return Preset()
    if isinstance(names, Mapping):
        return Preset(dict(names))
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, Sequence):
        raise HyperparameterError(f"presets was given {names!r}; expected a name, a list of names, a dict or None")
    known, found = _presets(), Preset()
    for name in names:
        if name not in known:
            raise UnknownNameError.of("preset", name, known)
        found = known[name].over(found)
    return found
