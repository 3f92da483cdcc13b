"""Images without labels: a few labels of each class, the other training images without, and the same without these.

    python -m benchmarks.unlabeled --data DIR [DIR …] [--weights DIR] [--labels 5 20] [--seeds 3] [--limit SECONDS]
                                   [--networks NAME NAME …] [--json OUT]

Each DIR has `train/` and `test/` with a folder for each class; each seed draws its own labels. Without `--limit`, a fit
is a fixed amount of work that does not depend on the load of the machine: the linear probe of each of `--networks`,
with a frozen backbone. Values are means over seeds ± standard errors; *gain* is the mean difference of the same seed.
Constants of `saccade.training.probes.pseudo_labels` were chosen on clothing10; figures for other data are independent.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments_of, in_own_process, read_figures, table, work_folder, write_json
from benchmarks.subsets import make_subset

PROBES = {
    "transfer_lr_mult": 0.0, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "epochs": 1, "lr": 1e-6,
    "smoothing": 0.0,
}  # fmt: skip
"""Hyperparameters of a trial that changes its linear probe by next to nothing."""

HEADS = ("data", "labels of a class", "fits", "without", "with", "gain", "used in", "images")


def fit(
    data: str, few: str, weights: str | None, networks: list[str], limit_s: float | None, seed: int, run: str
) -> dict[str, Any]:
    """Fit with and without the images that `few` has not, in this process; return test accuracies."""
    from saccade import Categorical, ImageDataset, ImagePredictor

    train, _, test = ImageDataset.from_folders(few)
    labelled = {str(Path(path).resolve()) for path in train["image"]}
    everything = [str(path.resolve()) for path in sorted((Path(data) / "train").rglob("*")) if path.is_file()]
    others = [path for path in everything if path not in labelled]
    options: dict[str, Any] = {"time_limit": limit_s, "weights": weights, "random_state": seed, "executor": "inline"}
    if limit_s is None:
        model = Categorical(*networks) if len(networks) > 1 else networks[0]
        options |= {"hyperparameters": {**PROBES, "model": model}, "num_trials": len(networks), "searcher": "grid"}
    found: dict[str, Any] = {}
    for name, more in (("without", {}), ("with", {"unlabeled": others})):
        start_s = time.perf_counter()
        predictor = ImagePredictor(path=f"{run}-{name}", verbosity=0).fit(train, **options, **more)
        found[f"{name}_s"] = time.perf_counter() - start_s
        found[name] = predictor.evaluate(test)["top1"]
        found |= predictor.fit_summary().get("unlabeled", {})
    return found


def rows_of(fits: list[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each data set and number of labels."""
    rows = []
    for key in dict.fromkeys((each["data"], each["labels"]) for each in fits):
        of = [each for each in fits if (each["data"], each["labels"]) == key]
        used = [each["num_used"] for each in of if each["num_used"]]
        columns = [[each[name] for each in of] for name in ("without", "with")]
        columns.append([each["with"] - each["without"] for each in of])
        rows.append(
            [
                key[0],
                str(key[1]),
                str(len(of)),
                *map(_mean, columns),
                f"{len(used)} of {len(of)}",
                str(max(used, default=0)),
            ]
        )
    return rows


def _mean(values: list[float]) -> str:
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{error}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, has_rounds=False)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train/ and test/")
    parser.add_argument("--weights", type=Path, help="a folder of pretrained weights, safetensors")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 20], help="labelled images of each class")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each kind")
    parser.add_argument("--limit", type=float, help="seconds for a fit (default: linear probes, however long)")
    parser.add_argument("--networks", nargs="+", default=["mobilenetv2_100", "tf_efficientnet_lite0"])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Fit, print and write the results."""
    given = _arguments(argv)
    fits: list[dict[str, Any]] = read_figures(given.json) or []
    weights = None if given.weights is None else str(given.weights.resolve())
    with work_folder() as place:
        for seed in range(given.seeds):
            for data in given.data:
                for labels in given.labels:
                    key = {"data": data.name, "labels": labels, "seed": seed, "limit": given.limit}
                    if any(key.items() <= each.items() for each in fits):
                        continue
                    name = f"{data.name}-{labels}-{seed}"
                    few = make_subset(data, f"fewshot={labels}", seed, place / f"few-{name}")
                    found = in_own_process(
                        fit,
                        {"SACCADE_CACHE": str(place / "cache")},
                        data=str(data.resolve()),
                        few=str(few),
                        weights=weights,
                        networks=given.networks,
                        limit_s=given.limit,
                        seed=seed,
                        run=str(place / f"run-{name}"),
                    )
                    fits.append({**key, **found})
                    print(name, {each: found[each] for each in ("without", "with", "num_used")}, flush=True)
                    write_json(given.json, given, fits)
    print(table(HEADS, rows_of(fits)))


if __name__ == "__main__":
    main()
