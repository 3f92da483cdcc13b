"""A ranking of pretrained networks by the accuracy that is expected of them on other data.

``tables/backbones.csv`` has a score for each network of timm whose weights allow any use: predicted from published
accuracies, pretraining and size (``python -m benchmarks.rank_backbones``), as the logit of an accuracy relative to
other networks. Costs are for one image of the size in the table.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from saccade.models.catalogue import resolve_name, split_name

__all__ = ["TABLE", "RankedNetwork", "expected_score", "ranked_networks"]

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
