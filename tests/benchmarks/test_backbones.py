from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import backbones, rank_backbones

NETWORKS = {  # accuracy in percent, millions of parameters
    "deit_tiny_patch16_224.fb_in1k": (72, 6),
    "deit_small_patch16_224.fb_in1k": (80, 22),
    "deit_base_patch16_224.fb_in1k": (82, 86),
    "swin_tiny_patch4_window7_224.ms_in1k": (81, 28),
    "convnext_base.fb_in22k_ft_in1k": (86, 88),
}
CLIP = {"ViT-B-32 openai": 0.7, "ViT-B-16 openai": 0.75, "ViT-L-14 openai": 0.85}


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records of few networks, in which larger ones are better."""
    folder = tmp_path / "records"
    (folder / "timm_results").mkdir(parents=True)
    for number, file in enumerate(rank_backbones.PUBLISHED.values()):
        rows = [{"model": name, "top1": top1 - number} for name, (top1, _) in NETWORKS.items()]
        pd.DataFrame(rows).to_csv(folder / "timm_results" / f"{file}.csv", index=False)
    probes = [
        {"model_short": name, "dataset": dataset, "fewshot_k": shots, "lp_acc1": accuracy - 0.1 * (shots > 0)}
        for name, accuracy in CLIP.items()
        for dataset in ("imagenet1k-unverified", "vtab/pets", "vtab/dtd")
        for shots in (10, -1)
    ]
    pd.DataFrame(probes).to_csv(folder / "clip_linear_probes.csv", index=False)
    runs = [
        {
            "model_identifier": f"facebook/deit-{size}-patch16-224",
            "train_dataset_name": dataset,
            "val_accuracy": accuracy,
            "test_accuracy": accuracy,
        }
        for size, accuracy in (("tiny", 0.5), ("small", 0.6), ("base", 0.7))
        for dataset in ("pets", "dtd")
    ]
    pd.DataFrame(runs).to_csv(folder / "finetune_records.csv", index=False)
    sizes = {name.partition(".")[0]: float(size) for name, (_, size) in NETWORKS.items()}
    sizes |= {f"vit_{size}_clip_224": num for size, num in (("base_patch32", 88), ("base_patch16", 86))}
    sizes["vit_large_patch14_clip_224"] = 304.0

    def count(names: Any, kept: Path | None) -> dict[str, tuple[float, float]]:
        return {name: (size := sizes.get(name.split()[0], 0.0), size / 5) for name in names}

    monkeypatch.setattr(rank_backbones, "count", count)
    return folder


def test_larger_networks_are_ranked_first(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rank_backbones.main(["--records", str(records), "--out", str(tmp_path / "table.csv")])
    table = pd.read_csv(tmp_path / "table.csv").set_index("weights")
    scores = table.loc[list(NETWORKS), "score"]
    assert scores["deit_tiny_patch16_224.fb_in1k"] == scores.min()
    assert scores["convnext_base.fb_in22k_ft_in1k"] == scores.max()
    assert (
        table.loc["vit_large_patch14_clip_224.openai", "score"] > table.loc["vit_base_patch32_clip_224.openai", "score"]
    )
    assert "rank correlation" in capsys.readouterr().out


def test_the_learned_order_has_no_regret_where_larger_networks_are_better(
    run_benchmark: Callable[..., Any], records: Path
) -> None:
    figures = run_benchmark(backbones.main, "--records", records)
    for title in ("CLIP", "fine-tuning"):
        assert np.allclose(figures[title]["learned"], 0)
        assert np.allclose(figures[title]["ImageNet"], 0)
        assert np.mean(figures[title]["random"], axis=0)[0] > 0.3
    assert np.allclose(figures["CLIP"]["successive"], 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("facebook/convnext-tiny-224", "convnext_tiny.fb_in1k"),
        ("facebook/convnext-base-384-22k-1k", "convnext_base.fb_in22k_ft_in1k_384"),
        ("microsoft/swin-base-patch4-window7-224", "swin_base_patch4_window7_224.ms_in22k_ft_in1k"),
        ("nateraw/food", None),
    ],
)
def test_names_of_hugging_face(name: str, expected: str | None) -> None:
    assert backbones.timm_name(name) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("fb_in1k", "in1k"),
        ("fb_in22k_ft_in1k", "large"),
        ("lvd142m", "web"),
        ("v2_webli", "web"),
        ("mim_in22k", None),
        ("mim_in22k_ft_in1k", "large"),
        ("sa1b", None),
    ],
)
def test_pretraining_by_tag(tag: str, expected: str | None) -> None:
    assert rank_backbones.pretraining(tag) == expected
