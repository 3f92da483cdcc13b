"""Networks in place of those that nobody named: defaults and presets must not fail for weights that are not here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from saccade.errors import WeightsNotFoundError
from saccade.models.weights import find_weights, networks_in_folder
from saccade.space import Categorical, Dict
from saccade.training.recipes.building import weights_options
from saccade.training.recipes.default_space import MAX_NETWORKS, scratch_space
from saccade.training.recipes.recipe import Recipe, choices, recipe_space


def with_networks_at_hand(
    space: Dict, weights: Path | None, *, given: Collection[str] = (), num_images: int = 1000, is_gpu: bool = False
) -> tuple[Dict, str]:
    """Return the space with those of its networks whose weights can be had, and what to tell the user about it.

    Where none can, the networks in the local folder of weights stand in; where there are none, small networks that
    begin with random weights. Nothing changes where training starts from random weights anyway.

    Parameters
    ----------
    space : Dict
        Of which the user has not named the networks.
    weights : Path or None
        A folder of weights, or one file.
    given : collection of str
        Hyperparameters that the user has given; they stay as they are.
    num_images, is_gpu
        As in `saccade.training.recipes.default_space.scratch_space`.

    Raises
    ------
    WeightsNotFoundError
        When there are no weights for any network, and the user wants pretrained ones.
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
        at_hand = networks_in_folder(weights)[:MAX_NETWORKS]
    if not at_hand:
        if "pretrained" in given:
            raise next(iter(missing.values()))
        return _from_scratch(space, given, num_images, is_gpu, next(iter(missing.values())))
    model = at_hand[0] if len(at_hand) == 1 else Categorical(*at_hand)
    told = (
        f"no pretrained weights at hand for {', '.join(missing)}; this fit takes {', '.join(at_hand)} instead. "
        "Name networks by hyperparameters={'model': …}"
    )
    return Dict({**space.data, "model": model}), told


def _from_scratch(
    space: Dict, given: Collection[str], num_images: int, is_gpu: bool, reason: WeightsNotFoundError
) -> tuple[Dict, str]:
    in_epoch = space.data.get("images_per_epoch") or num_images
    scratch = {name: value for name, value in scratch_space(in_epoch, is_gpu).items() if name not in given}
    told = (
        "NO PRETRAINED WEIGHTS: this fit trains small networks from random weights, which needs many more images and "
        f"hours to be any good. {reason}"
    )
    return recipe_space({**{str(name): value for name, value in space.data.items()}, **scratch}), told
