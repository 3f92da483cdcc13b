"""Networks in place of those that nobody named: defaults and presets must not fail for weights that are not here."""

from __future__ import annotations

from pathlib import Path

from saccade.errors import WeightsNotFoundError
from saccade.models.weights import find_weights, networks_in_folder
from saccade.space import Categorical, Dict
from saccade.training.classifier import weights_options
from saccade.training.recipe import Recipe, choices


def with_networks_at_hand(space: Dict, weights: Path | None) -> tuple[Dict, str]:
    """Return the space with those of its networks whose weights can be had, and what to tell the user about it.

    Where none can, the network with the largest file in the local folder of weights stands in. Nothing changes where
    training starts from random weights anyway.

    Raises
    ------
    WeightsNotFoundError
        When there are no weights for any network.
    """
    if True not in choices(space, "pretrained"):
        return space, ""
    names, missing = choices(space, "model"), {}
    for name in names:
        try:
            find_weights(name, **weights_options(Recipe.of({"model": name}), weights))
        except WeightsNotFoundError as error:
            missing[name] = error
    at_hand = [name for name in names if name not in missing]
    if not missing:
        return space, ""
    if not at_hand:
        at_hand = networks_in_folder(weights)[:1]
    if not at_hand:
        raise next(iter(missing.values()))
    model = at_hand[0] if len(at_hand) == 1 else Categorical(*at_hand)
    told = (
        f"no pretrained weights at hand for {', '.join(missing)}; this fit takes {', '.join(at_hand)} instead. "
        "Name networks by hyperparameters={'model': …}"
    )
    return Dict({**space.data, "model": model}), told
