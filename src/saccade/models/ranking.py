"""Tables of networks, and a ranking of pretrained ones by the accuracy that is expected of them on other data.

``tables/backbones.csv`` has a score for each network of timm whose weights allow any use: predicted from published
accuracies, pretraining and size (``python -m benchmarks.rank_backbones``), as the logit of an accuracy relative to
other networks. Costs are for one image of the size in the table.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from saccade.models.catalogue import license_of, published_top1, resolve_name, split_name
from saccade.models.network import network_input
from saccade.models.weights import weights_place

__all__ = ["TABLE", "RankedNetwork", "expected_score", "models_table", "ranked_networks"]

TABLE = Path(str(files("saccade.models") / "tables" / "backbones.csv"))


@dataclass(frozen=True)
class RankedNetwork:
    """A network of the table."""

    name: str  # timm's, with its pretraining tag
    score: float  # the higher the better; a difference of 1 is much
    params_m: float  # millions of parameters, without a classifier layer
    gmacs: float  # billions of multiply-accumulates for an image
    img_size: int  # in pixels

    @property
    def num_bytes(self) -> float:
        """Bytes of the weights, as float32."""
        return 4e6 * self.params_m


@cache
def ranked_networks() -> dict[str, RankedNetwork]:
    """Return the networks of the table by name, those with the highest scores first."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [
        RankedNetwork(
            row["weights"], float(row["score"]), float(row["params_m"]), float(row["gmacs"]), int(row["img_size"])
        )
        for row in csv.DictReader(lines)
    ]
    return {row.name: row for row in sorted(rows, key=lambda row: (-row.score, row.name))}


def expected_score(name: str) -> float | None:
    """Return the score of a network; without its tag in the table, that of other weights; None if there are none.

    >>> expected_score("vit_base_patch14_reg4_dinov2") > expected_score("mobilenetv2_100")
    True
    """
    table, full = ranked_networks(), resolve_name(name)
    if full in table:
        return table[full].score
    architecture = split_name(full)[0]
    scores = sorted(row.score for row in table.values() if split_name(row.name)[0] == architecture)
    return scores[len(scores) // 2] if scores else None


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
