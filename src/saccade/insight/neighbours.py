"""The images that a network finds most alike."""

from __future__ import annotations

import pandas as pd

from saccade.insight.embeddings import EmbeddedImages, nearest_rows
from saccade.insight.near_duplicates import shown


def nearest_images(queries: EmbeddedImages, among: EmbeddedImages, k: int) -> pd.DataFrame:
    """Return a table of the images that resemble each of some others most, by the cosine of their features.

    Parameters
    ----------
    queries : EmbeddedImages
        What to find the like of.
    among : EmbeddedImages
        What to find.
    k : int
        How many for each, at least 1.

    Returns
    -------
    DataFrame
        ``query`` (its entry in the index), ``rank`` from 1, ``image``, ``label`` where labels are known, and
        ``similarity`` (-1 to 1). Queries that cannot be read have no rows.

    Raises
    ------
    HyperparameterError
        When `k` is no whole number of at least 1.
    """
    rows, cosines = nearest_rows(queries.vectors, among.vectors, k)
    is_readable = queries.readable
    found = [
        (number, rank, int(row), float(cosine))
        for number in range(len(queries))
        if is_readable[number]
        for rank, (row, cosine) in enumerate(zip(rows[number], cosines[number], strict=True), start=1)
        if row >= 0
    ]
    labels = among.examples.labels
    columns: dict[str, list[object]] = {
        "query": [queries.examples.index[number] for number, *_ in found],
        "rank": [rank for _, rank, *_ in found],
        "image": [shown(among.examples.images[row], row) for *_, row, _ in found],
    }
    if isinstance(labels, pd.Series):
        columns["label"] = [labels.iloc[row] for *_, row, _ in found]
    elif labels is not None:
        columns["label"] = [[name for name in labels.columns if labels[name].iloc[row]] for *_, row, _ in found]
    columns["similarity"] = [cosine for *_, cosine in found]
    frame: pd.DataFrame = pd.DataFrame(columns)
    table: pd.DataFrame = frame.astype({"rank": int, "image": object, "similarity": float})
    return table
