"""Regret of the network chosen after k probes, on recorded probes and fine-tuning runs.

    python -m benchmarks.backbones --records DIR [--macs FILE] [--json OUT]

DIR is that of `benchmarks.rank_backbones`; ``finetune_records.csv`` there has fine-tuning runs of models of Hugging
Face, from which nothing is learned. An order of networks is tried on each data set: the first k are probed, and the one
with the best probe is chosen. Its regret is the difference of its accuracy from the best of all networks, in relation
to the difference between the best and the worst. In the CLIP table a probe has 10 images a class, and the accuracy is
that of all images; in the other a probe is the validation accuracy of a run, and the accuracy that on its test set.

`learned` is the ranking of Saccade, learned without the data set (leave-one-data-set-out). `other data` orders networks
by their mean accuracies on the other data sets of the table, and `hindsight` on all, the tested one included.
`successive` probes all networks with 10 images a class, and the best k of them with all images.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measuring import table, write_json
from benchmarks.rank_backbones import Backbone, Ranking, candidates, clip_probes, learn, published, read_tables

NUM_PROBES = (1, 2, 3, 5, 10)
NUM_RANDOM = 200
PENALTY, SHRINKAGE = 1.0, 1.0

# timm's names of models of Hugging Face, by patterns of their names.
_TIMM_NAMES = (
    (r"facebook/(deit-\w+(?:-distilled)?-patch16-\d+)$", r"\1.fb_in1k"),
    (r"facebook/(convnext-\w+)-224-22k-1k$", r"\1.fb_in22k_ft_in1k"),
    (r"facebook/(convnext-\w+)-384-22k-1k$", r"\1.fb_in22k_ft_in1k_384"),
    (r"facebook/(convnext-\w+)-224-22k$", r"\1.fb_in22k"),
    (r"facebook/(convnext-\w+)-224$", r"\1.fb_in1k"),
    (r"(?:google|WinKawaks)/(vit-\w+-patch\d+-\d+)$", r"\1.augreg_in21k_ft_in1k"),
    (r"microsoft/(beit-\w+-patch16-\d+)-pt22k-ft22k$", r"\1.in22k_ft_in22k"),
    (r"microsoft/(beit-\w+-patch16-\d+)$", r"\1.in22k_ft_in22k_in1k"),
    (r"microsoft/(swin-\w+-patch4-window\d+-\d+)-in22k$", r"\1.ms_in22k"),
    (r"microsoft/(swin-(?:tiny|small)-patch4-window\d+-\d+)$", r"\1.ms_in1k"),
    (r"microsoft/(swin-(?:base|large)-patch4-window\d+-\d+)$", r"\1.ms_in22k_ft_in1k"),
    (r"nates-test-org/(convit_\w+)$", r"\1.fb_in1k"),
)


def timm_name(name: str) -> str | None:
    """Return timm's name of a model of Hugging Face; None if timm lacks it, or somebody has fine-tuned it."""
    for pattern, replacement in _TIMM_NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name).replace("-", "_")
    return None


def finetune_table(records: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return validation and test accuracies of the best run, by timm's network and data set."""
    runs = pd.read_csv(records / "finetune_records.csv")
    runs["network"] = runs["model_identifier"].map(timm_name)
    best = runs.dropna(subset=["network"]).sort_values("val_accuracy").groupby(["network", "train_dataset_name"]).last()
    observed, outcome = (
        best.reset_index().pivot_table(index="network", columns="train_dataset_name", values=f"{part}_accuracy")
        for part in ("val", "test")
    )
    return observed, outcome


def regrets(order: Sequence[str], observed: pd.Series, outcome: pd.Series) -> list[float]:
    """Return the regret after each number of probes in `NUM_PROBES`."""
    known = outcome.dropna()
    tried = [name for name in order if name in known.index]
    low, high = known.min(), known.max()
    chosen = (observed[tried[:num]].idxmax() for num in NUM_PROBES)
    return [float((high - known[name]) / max(high - low, 1e-9)) for name in chosen]


def evaluate(
    observed: pd.DataFrame, outcome: pd.DataFrame, orders: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, np.ndarray]:
    """Return regrets of shape (num_datasets, len(NUM_PROBES)) by method; `orders` are by method and data set."""
    rng, found = np.random.default_rng(0), {}
    for method, by_dataset in orders.items():
        found[method] = np.array([regrets(by_dataset[name], observed[name], outcome[name]) for name in outcome])
    names = np.array(outcome.index)
    shuffled = [
        [regrets(list(rng.permutation(names)), observed[name], outcome[name]) for _ in range(NUM_RANDOM)]
        for name in outcome
    ]
    return {**found, "random": np.mean(shuffled, axis=1)}


def hindsight(outcome: pd.DataFrame) -> list[str]:
    """Return networks by the mean of their accuracies, relative to the best and the worst of each data set."""
    scaled = (outcome - outcome.min()) / (outcome.max() - outcome.min())
    return list(scaled.mean(axis=1).sort_values(ascending=False).index)


def others(outcome: pd.DataFrame) -> dict[str, list[str]]:
    """Return networks by the mean of their accuracies on the other data sets, by data set."""
    return {name: hindsight(outcome.drop(columns=name)) for name in outcome}


def successive(few: pd.Series, full: pd.Series, num_kept: int) -> float:
    """Return the regret if all networks are probed with few images, and the best `num_kept` with all."""
    best = full[few.sort_values(ascending=False).index[:num_kept]].max()
    return float((full.max() - best) / (full.max() - full.min()))


def main(argv: list[str] | None = None) -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="folder of published results and records")
    parser.add_argument("--macs", type=Path, help="JSON file that keeps the counts of parameters and GMACs")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    backbones = candidates(given.macs, with_all_licences=True)
    tables = read_tables(given.records, backbones)
    results = published(given.records)
    found: dict[str, dict[str, np.ndarray]] = {}

    # CLIP networks: learned from all tables without the data set, whatever the number of its images.
    probes = clip_probes(given.records)
    networks, probes = tables[1][0], tables[1][1]
    names = sorted({column.rpartition(" ")[0] for column in probes.columns if "imagenet" not in column})
    few, full = (pd.DataFrame({name: probes[f"{name} {shots}"] for name in names}) for shots in ("10", "full"))

    def without(dataset: str) -> Ranking:
        left = probes.drop(columns=[each for each in probes if each.rpartition(" ")[0].endswith(dataset)])
        return learn([tables[0], (networks, left)], PENALTY, SHRINKAGE)

    by_imagenet = list(probes["imagenet1k-unverified full"].sort_values(ascending=False).index)
    learned = {}
    for name in names:
        scores = without(name.partition("/")[2] or name).scores(networks, results)
        learned[name] = [probes.index[place] for place in np.argsort(-scores, kind="stable")]
    orders = {
        "learned": learned,
        "ImageNet": dict.fromkeys(names, by_imagenet),
        "other data": others(full),
        "hindsight": dict.fromkeys(names, hindsight(full)),
    }
    found["CLIP"] = evaluate(few, full, orders)
    found["CLIP"]["successive"] = np.array(
        [[successive(few[name], full[name], num) for num in NUM_PROBES] for name in names]
    )

    # Fine-tuning runs: nothing of them is learned from.
    observed, outcome = finetune_table(given.records)
    by_name = {each.name: each for each in backbones}
    known = [name for name in outcome.index if name in by_name]
    observed, outcome = observed.loc[known], outcome.loc[known]
    ranked: list[Backbone] = [by_name[name] for name in known]
    scores = pd.Series(learn(tables, PENALTY, SHRINKAGE).scores(ranked, results), index=known)
    top1 = results["ImageNet"].reindex(known).fillna(results["ImageNet"].median())
    orders = {
        "learned": {name: list(scores.sort_values(ascending=False).index) for name in outcome},
        "ImageNet": {name: list(top1.sort_values(ascending=False, kind="stable").index) for name in outcome},
        "other data": others(outcome),
        "hindsight": {name: hindsight(outcome) for name in outcome},
    }
    found["fine-tuning"] = evaluate(observed, outcome, orders)

    for title, regrets_of in found.items():
        num_networks = len(networks) if title == "CLIP" else len(known)
        num_datasets = len(next(iter(regrets_of.values())))
        print(f"\n{title}: {num_networks} networks, {num_datasets} data sets; regret ± standard error after k probes\n")
        rows = [
            [method, *(f"{column.mean():.3f} ± {column.std() / np.sqrt(len(column)):.3f}" for column in values.T)]
            for method, values in regrets_of.items()
        ]
        print(table(["order", *(f"k = {num}" for num in NUM_PROBES)], rows))
    write_json(
        given.json, given, {name: {key: rows.tolist() for key, rows in each.items()} for name, each in found.items()}
    )


if __name__ == "__main__":
    main()
