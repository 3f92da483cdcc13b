"""The networks that a search space names: found before the search, so that a wrong name fails at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade.models.catalogue import resolve_name
from saccade.models.network import network_input
from saccade.models.weights import find_weights
from saccade.space import Dict
from saccade.training.classifier import weights_options
from saccade.training.recipe import Recipe, edges_of


def check_networks(space: Dict, weights: Path | None) -> None:
    """See that every network of a search space exists, and that its weights can be had where they are wanted.

    Raises
    ------
    UnknownModelError, WeightsNotFoundError
        With what to do about it.
    """
    for name in _choices(space, "model"):
        resolve_name(name)
        for pretrained in _choices(space, "pretrained"):
            for file in _choices(space, "weights"):
                if pretrained:
                    find_weights(name, **weights_options(Recipe.of({"model": name, "weights": file}), weights))


def stored_side(space: Dict) -> int:
    """Return the shorter side in pixels that the images need for all networks of a search space."""
    sides = []
    for name in _choices(space, "model"):
        spec = network_input(resolve_name(name))
        for img_size in _choices(space, "img_size"):
            for crop_pct in _choices(space, "crop_pct"):
                sides.append(round((img_size or spec.img_size) / (crop_pct or spec.crop_pct)))
    return max(sides)


def _choices(space: Dict, name: str) -> list[Any]:
    value = space.data.get(name, Recipe.model_fields[name].default)
    return edges_of(value) or [value]
