"""A table of networks: their weights, licences, input sizes and published accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from saccade.models.catalogue import license_of, published_top1, resolve_name, split_name
from saccade.models.network import network_input
from saccade.models.weights import weights_place

__all__ = ["models_table"]


def models_table(names: Sequence[str]) -> pd.DataFrame:
    """Return a row for each network, of its default weights: the columns of `ImagePredictor.list_models`.

    Nothing is downloaded. ``licenses`` is "unknown" if timm states none, and "" without weights.

    >>> models_table(["vit_base_patch16_dinov3"]).iloc[0]["licenses"]
    'dinov3-license'
    """
    resolved = [resolve_name(name) for name in names]
    table: pd.DataFrame = pd.DataFrame(
        {
            "model": list(names),
            "weights": [weights_place(name) for name in resolved],
            "licenses": [license_of(name) for name in resolved],
            "img_size": [network_input(name).img_size for name in resolved],
            "top1": pd.Series([published_top1(*split_name(name)) for name in resolved], dtype=float),
        }
    )
    return table
