"""Learn the ranking of pretrained networks that Saccade ships, from published results.

    python -m benchmarks.rank_backbones --records DIR [--macs FILE] [--out src/saccade/models/tables/backbones.csv]

DIR has ``timm_results/results-*.csv`` (timm's accuracies on ImageNet-1k and five sets of other photographs,
Apache-2.0) and ``clip_linear_probes.csv`` (CLIP_benchmark's linear probes of CLIP networks on 21 data sets, MIT). One
ridge regression predicts the logit of an accuracy from a network's size, image size and pretraining, with an intercept
for each data set. The score of a network is the prediction, plus a part of the mean residual of its own published
results. Both constants are chosen by leaving out one data set at a time (printed). The table has a row for each network
of timm whose licence allows any use, whose weights are on the hub, and whose features suit a linear probe.
Multiply-accumulates are counted without weights, which takes some minutes; `--macs` keeps them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode

from saccade.models.catalogue import FREE_LICENSES
from saccade.models.ranking import TABLE

PUBLISHED = {
    "ImageNet": "results-imagenet",
    "Real": "results-imagenet-real",
    "V2": "results-imagenetv2-matched-frequency",
    "Sketch": "results-sketch",
    "A": "results-imagenet-a",
    "R": "results-imagenet-r",
}
MAX_PARAMS, MAX_SIDE = 1.2e9, 512

# Pretraining by the words of a tag; the first that fits counts. None: vision towers of language models, and networks
# for segmentation or with reconstruction targets only, whose features are not made for a linear probe.
_PRETRAINING: tuple[tuple[str, str | None], ...] = (
    (r"pali2?_|qwen|gemma|deepseek|ogvl|florence|lingbot|robbyant|sa1b|2pt1|tiling|^fb$|(^|_)pt$", None),
    (r"cc12m|yfcc|tinyclip|(^|_)rewind$|untrained|^$", None),
    (r"(mim_[a-z0-9]+|mae|ssl|fcmae|ijepa\w*)$", None),
    (r"openai|laion|clip|datacomp|webli|merged2b|lvd142m|jft|m30m|m38m|swag|dfn|metaclip", "web"),
    (r"inw?(22|21|12)k", "large"),
    (r"in1k|dino", "in1k"),
)
CLIP_NAMES = {
    "ViT-B-32": "vit_base_patch32_clip_224",
    "ViT-B-32-quickgelu": "vit_base_patch32_clip_quickgelu_224",
    "ViT-B-16": "vit_base_patch16_clip_224",
    "ViT-B-16-plus-240": "vit_base_patch16_plus_clip_240",
    "ViT-L-14": "vit_large_patch14_clip_224",
    "ViT-H-14": "vit_huge_patch14_clip_224",
    "ViT-g-14": "vit_giant_patch14_clip_224",
}  # fmt: skip


def pretraining(tag: str) -> str | None:
    """Return ``in1k``, ``large`` (ImageNet-21k or similar), ``web``, or None for features of another kind."""
    return next((kind for words, kind in _PRETRAINING if re.search(words, tag)), None)


@dataclass(frozen=True)
class Backbone:
    """What a prediction needs."""

    name: str  # timm's, with its tag; "" for a network of the probes
    side: int
    params_m: float
    gmacs: float
    pretraining: str

    def features(self) -> list[float]:
        """Return a constant, sizes and pretraining."""
        return [
            1.0,
            float(np.log10(self.params_m)),
            float(np.log10(self.gmacs)),
            float(np.log2(self.side / 224)),
            float(self.pretraining == "large"),
            float(self.pretraining == "web"),
        ]


def count(names: Iterable[str], kept: Path | None) -> dict[str, tuple[float, float]]:
    """Return millions of parameters and GMACs by ``architecture side``; `kept` is a file that grows."""
    known: dict[str, tuple[float, float]] = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    for number, name in enumerate(names):
        architecture, side = name.split()
        if name in known:
            continue
        size = {"img_size": int(side)} if "naflex" not in architecture else {}
        for options in ({}, size):
            try:
                with torch.device("meta"), FlopCounterMode(display=False) as counter:
                    network = timm.create_model(architecture, num_classes=0, **options).eval().requires_grad_(False)
                    network(torch.zeros(1, 3, int(side), int(side)))
            except Exception as error:  # timm's networks fail in many ways without weights or with other sizes
                known[name] = (0.0, 0.0)
                print(f"{name}: {type(error).__name__}: {str(error)[:80]}")
                continue
            num_params = sum(parameter.numel() for parameter in network.parameters())
            known[name] = (num_params / 1e6, counter.get_total_flops() / 2e9)
            break
        if kept is not None and number % 20 == 0:
            kept.write_text(json.dumps(known))
    if kept is not None:
        kept.write_text(json.dumps(known))
    return known


def side_of(name: str) -> int:
    """Return the image size at which a network is used: its own, but 224 for DINOv2, which takes any."""
    config = timm.models.get_pretrained_cfg(name)
    return 224 if "dinov2" in name else int(config.input_size[-1])


def candidates(macs: Path | None, *, with_all_licences: bool = False) -> list[Backbone]:
    """Return all networks of timm that may be ranked; the table has those whose licence allows any use."""
    names = []
    for name in timm.list_pretrained():
        config, tag = timm.models.get_pretrained_cfg(name), name.partition(".")[2]
        file = config.hf_hub_filename or "model.safetensors"
        is_free = with_all_licences or config.license in FREE_LICENSES
        is_usable = is_free and config.hf_hub_id and file.endswith((".safetensors", ".bin"))
        is_odd = "naflex" in name or name.startswith("test_")  # they take patches, or are made for tests
        if is_usable and pretraining(tag) and not is_odd and side_of(name) <= MAX_SIDE:
            names.append(name)
    counted = count(dict.fromkeys(f"{name.partition('.')[0]} {side_of(name)}" for name in names), macs)
    found = []
    for name in names:
        architecture, _, tag = name.partition(".")
        params_m, gmacs = counted[f"{architecture} {side_of(name)}"]
        if 0 < params_m * 1e6 <= MAX_PARAMS and gmacs > 0:
            found.append(Backbone(name, side_of(name), params_m, gmacs, pretraining(tag) or ""))
    return found


def published(records: Path) -> pd.DataFrame:
    """Return published accuracies, 0 to 1, by network and data set; the best one where image sizes differ."""
    columns = {}
    for dataset, file in PUBLISHED.items():
        rows = pd.read_csv(records / "timm_results" / f"{file}.csv").dropna(subset=["model"])
        columns[dataset] = rows.groupby("model")["top1"].max() / 100
    return pd.DataFrame(columns)


def clip_probes(records: Path) -> pd.DataFrame:
    """Return the accuracies of linear probes by timm's architecture and pretraining, and by data set and shots."""
    rows = pd.read_csv(records / "clip_linear_probes.csv")
    best = rows.groupby(["model_short", "dataset", "fewshot_k"])["lp_acc1"].max()
    best = best.to_frame().pivot_table(index="model_short", columns=["dataset", "fewshot_k"], values="lp_acc1")
    best.index = pd.Index([" ".join([CLIP_NAMES[name.split()[0]], *name.split()[1:]]) for name in best.index])
    best.columns = pd.Index([f"{dataset} {'full' if shots < 0 else shots}" for dataset, shots in best.columns])
    return best


@dataclass(frozen=True)
class Ranking:
    """A fitted ridge regression: slopes of the features, without the intercepts of data sets."""

    slopes: np.ndarray
    shrinkage: float
    intercepts: dict[str, float]

    def scores(self, backbones: Sequence[Backbone], results: pd.DataFrame) -> np.ndarray:
        """Return predicted logits, relative to the mean of data sets; `results` are published accuracies."""
        x = np.array([each.features() for each in backbones])[:, 1:]
        predicted = x @ self.slopes
        rows = _logit(results.reindex([each.name for each in backbones]))
        levels = np.array([self.intercepts.get(name, np.nan) for name in rows.columns])
        residual = (rows.to_numpy() - levels - predicted[:, None]).astype(float)
        known = ~np.isnan(residual)
        mean = np.where(known, residual, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.asarray(predicted + self.shrinkage * mean)


def learn(tables: Sequence[tuple[Sequence[Backbone], pd.DataFrame]], penalty: float, shrinkage: float) -> Ranking:
    """Fit the regression to tables of accuracies, (num_networks, num_datasets) each; data sets count equally."""
    xs, ys, weights, names = [], [], [], []
    for backbones, accuracies in tables:
        x = np.array([each.features() for each in backbones])[:, 1:]
        for dataset in accuracies.columns:
            y = _logit(accuracies[dataset]).to_numpy()
            known = ~np.isnan(y)
            xs.append(x[known])
            ys.append(y[known])
            weights.append(np.full(known.sum(), 1 / known.sum()))
            names += [dataset] * int(known.sum())
    x, y, weight = np.concatenate(xs), np.concatenate(ys), np.concatenate(weights)
    frame = pd.DataFrame(np.column_stack([x, y]) * weight[:, None]).groupby(np.array(names)).sum()
    means = frame.div(pd.Series(weight).groupby(np.array(names)).sum(), axis=0)
    centre = means.loc[names].to_numpy()
    x0, y0 = x - centre[:, :-1], y - centre[:, -1]
    gram = (x0 * weight[:, None]).T @ x0
    slopes = np.linalg.solve(gram + penalty * np.eye(x.shape[1]), (x0 * weight[:, None]).T @ y0)
    pairs = zip(means.index, means.to_numpy(), strict=True)
    intercepts = {name: float(row[-1] - row[:-1] @ slopes) for name, row in pairs}
    return Ranking(slopes, shrinkage, intercepts)


def _logit(accuracy: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    clipped = accuracy.clip(0.005, 0.995)
    return np.log(clipped / (1 - clipped))


def read_tables(records: Path, backbones: Sequence[Backbone]) -> list[tuple[list[Backbone], pd.DataFrame]]:
    """Return the tables that `learn` takes: published results, and probes of CLIP networks."""
    results = published(records)
    ranked = [each for each in backbones if each.name in results.index]
    by_architecture = {each.name.partition(".")[0]: each for each in backbones}
    probes = clip_probes(records)
    kept, rows = [], []
    for name in probes.index:
        architecture = name.split()[0]
        if (like := by_architecture.get(architecture)) is not None:
            kept.append(Backbone("", like.side, like.params_m, like.gmacs, "web"))
            rows.append(name)
    both = [(ranked, results.loc[[each.name for each in ranked]]), (kept, probes.loc[rows])]
    return [(networks, rows) for networks, rows in both if networks]


def held_out_correlation(
    tables: Sequence[tuple[Sequence[Backbone], pd.DataFrame]], penalty: float, shrinkage: float
) -> list[float]:
    """Return the rank correlation of scores and accuracies on each data set, learned from the others."""
    found = []
    for backbones, accuracies in tables:
        for dataset in accuracies.columns:
            others = [(each, rows.drop(columns=dataset, errors="ignore")) for each, rows in tables]
            ranking = learn(others, penalty, shrinkage)
            known = accuracies[dataset].notna().to_numpy()
            scores = ranking.scores(backbones, others[0][1])
            found.append(float(spearmanr(scores[known], accuracies[dataset][known]).statistic))
    return found


def main(argv: list[str] | None = None) -> None:
    """Learn the ranking, print the slopes and the choice of constants, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="folder of published results and records")
    parser.add_argument("--macs", type=Path, help="JSON file that keeps the counts of parameters and GMACs")
    parser.add_argument("--out", type=Path, default=TABLE, help="the table to write")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    backbones = candidates(given.macs)
    tables = read_tables(given.records, backbones)
    tried = {
        (penalty, shrinkage): float(np.mean(held_out_correlation(tables, penalty, shrinkage)))
        for penalty in (0.1, 1.0, 10.0)
        for shrinkage in (0.0, 0.25, 0.5, 0.75, 1.0)
    }
    for constants, correlation in tried.items():
        print("penalty {}, shrinkage {}:".format(*constants), f"rank correlation {correlation:.3f}")
    penalty, shrinkage = max(tried, key=lambda constants: tried[constants])
    ranking = learn(tables, penalty, shrinkage)
    print("slopes (params, GMACs, side, large, web):", ranking.slopes.round(3))
    results = tables[0][1]
    scores = ranking.scores(backbones, results)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["weights", "score", "params_m", "gmacs", "img_size"])
        for each, score in sorted(zip(backbones, scores, strict=True), key=lambda pair: pair[0].name):
            row = (f"{score:.2f}", f"{each.params_m:.3g}", f"{each.gmacs:.3g}", each.side)
            writer.writerow([each.name, *row])
    print(f"wrote {len(backbones)} networks, {given.out.stat().st_size / 1000:.0f} kB, to {given.out}")


if __name__ == "__main__":
    main()
