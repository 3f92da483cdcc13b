"""A student beside its teacher, and beside the same student without a teacher, on test images.

    python -m benchmarks.distillation --data DIR [DIR …] [--weights DIR] [--limits 60 300] [--seeds 3] [--json OUT]
                                      [--without-teacher]

Each DIR has `train/` and `test/` with a folder for each class. A fit has `presets="fast_inference"`, images, weights
and the limit, and nothing else. Accuracies are those of the test images, ± the standard error over seeds. *images/s*
are without decoding, as the fit measured them; *files/s* are those of `evaluate` on all test images, with decoding.
*less* is the difference in accuracy to the teacher. `--without-teacher` fits again with the labels alone in place of
soft targets.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments_of, in_own_process, read_figures, table, work_folder, write_json

HEADS = ("data", "limit s", "", "fits", "accuracy", "images/s", "files/s", "ms for one", "less", "networks")


def fit(
    data: str, weights: str | None, limit_s: float, seed: int, run: str, *, has_teacher: bool
) -> dict[str, dict[str, Any]]:
    """Fit in this process; return figures of student and teacher."""
    from saccade import ImageDataset, ImagePredictor
    from saccade.selection import distillation

    if not has_teacher:
        distillation.TEACHER_PART = 0.0
    train, _, test = ImageDataset.from_folders(data)
    predictor = ImagePredictor(path=run, verbosity=0)
    predictor.fit(train, presets="fast_inference", time_limit=limit_s, weights=weights, random_state=seed)
    summary = predictor.fit_summary()["distillation"]
    found = {}
    teacher = ImagePredictor.load(summary["teacher_path"], verbosity=0)
    for name, each in (("student", predictor), ("teacher", teacher)) if has_teacher else (("plain", predictor),):
        start_s = time.perf_counter()
        accuracy = each.evaluate(test)["top1"]
        measured = {"top1": accuracy, "files_s": len(test) / (time.perf_counter() - start_s)}
        found[name] = {**summary["student" if name == "plain" else name], **measured}
    return found


def rows_of(fits: list[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each data set, limit and kind of predictor."""
    rows = []
    teachers = {(each["data"], each["limit"], each["seed"]): each["top1"] for each in fits if each["kind"] == "teacher"}
    for key in dict.fromkeys((each["data"], each["limit"], each["kind"]) for each in fits):
        of = [each for each in fits if (each["data"], each["limit"], each["kind"]) == key]
        less = [teachers[each["data"], each["limit"], each["seed"]] - each["top1"] for each in of]
        means = [
            f"{statistics.fmean(each[name] for each in of):.3g}" for name in ("images_per_s", "files_s", "latency_ms")
        ]
        networks = "; ".join(dict.fromkeys(", ".join(each["networks"]) for each in of))
        accuracy = _mean([each["top1"] for each in of])
        rows.append([key[0], f"{key[1]:g}", key[2], str(len(of)), accuracy, *means, _mean(less), networks])
    return rows


def _mean(values: list[float]) -> str:
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{error}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, has_rounds=False)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train/ and test/")
    parser.add_argument("--weights", type=Path, help="a folder of pretrained weights, safetensors")
    parser.add_argument("--limits", type=float, nargs="+", default=[60.0, 300.0], help="seconds for a fit")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each kind")
    parser.add_argument("--without-teacher", action="store_true", help="fit students of the labels alone as well")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Fit, print and write the results."""
    given = _arguments(argv)
    fits: list[dict[str, Any]] = read_figures(given.json) or []
    weights = None if given.weights is None else str(given.weights.resolve())
    with work_folder() as place:
        for seed in range(given.seeds):
            for data in given.data:
                for limit_s in given.limits:
                    for has_teacher in (True, False) if given.without_teacher else (True,):
                        key = {"data": data.name, "limit": limit_s, "seed": seed}
                        done = {each["kind"] for each in fits if key.items() <= each.items()}
                        if ("student" if has_teacher else "plain") in done:
                            continue
                        name = f"{data.name}-{limit_s:g}-{seed}-{has_teacher}"
                        found = in_own_process(
                            fit,
                            {"SACCADE_CACHE": str(place / f"cache-{name}")},
                            data=str(data.resolve()),
                            weights=weights,
                            limit_s=limit_s,
                            seed=seed,
                            run=str(place / f"run-{name}"),
                            has_teacher=has_teacher,
                        )
                        fits += [{**key, "kind": kind, **figures} for kind, figures in found.items()]
                        print(name, {kind: figures["top1"] for kind, figures in found.items()}, flush=True)
                        write_json(given.json, given, fits)
    print(table(HEADS, rows_of(fits)))


if __name__ == "__main__":
    main()
