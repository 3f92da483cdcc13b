"""The run folder of a fit."""

from __future__ import annotations

from pathlib import Path

from saccade.fit.run_folder import tidy_up


def test_tidying_up_leaves_results_and_can_be_done_twice(tmp_path: Path) -> None:
    for name in ("trials/0000/last-0003.safetensors", "trials/0000/best-0002.safetensors", "trials/start.safetensors",
                 "trials/0000/best-0003.safetensors.part", "trials/0000/config.json", "store/pixels.bin",
                 "trials/0000/best-0002.outputs.npy", "trials/0000/best-0003.outputs.npy.part",
                 "refit/best-0003.safetensors", "predictor/predictor.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        tidy_up(tmp_path)
        files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
        best = ["trials/0000/best.outputs.npy", "trials/0000/best.safetensors"]
        assert files == ["predictor/predictor.json", *best, "trials/0000/config.json"]
