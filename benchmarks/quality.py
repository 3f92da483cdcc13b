"""Quality of the classifier after a number of seconds: Saccade and others, with the same weights, images and time.

    python -m benchmarks.quality --data DIR [DIR …] [--weights DIR] [--limits 30 120 300] [--seeds 5] [--json OUT]
                                 [--methods saccade random probe …] [--ablate layer_decay ensemble …]
                                 [--subset full fewshot=5 …]
                                 [--peers DIR --autogluon-python AG/bin/python --fastai-python FA/bin/python]

Each DIR has `train/` and `test/` with a folder for each class; `--weights` is a folder of safetensors files named as
timm names its networks. The methods:

- *saccade*: a fit whose only arguments are the images, the weights and the time limit;
- *fast_inference*, *medium_quality*, *high_quality*, *best_quality* and AutoGluon's three: the presets of these names;
- *random*: a random search in the same space, each trial in full; the best trial is the predictor;
- *probe*: frozen features and a logistic regression by scikit-learn; the network with the best cross-validation;
- *fastai*: `benchmarks/fastai_fit.py`, a fine-tune of `--network` that is cut off at the limit;
- *autogluon*, *autogluon search*: `autogluon_fit.py` in the folder `--peers`, one fit of `--network`, or four trials;
- *handwritten*: `handwritten.py` there, for as many epochs as there is time for.

Methods that are not installed are skipped with a message. `--ablate` fits without an ingredient, beside the default, to
measure its effect. `--subset` makes hard sets of each DIR: `fewshot=IMAGES` a class, `imbalanced=RATIO`,
`noisy=SHARE` of wrong labels, `side=PIXELS`, or several with + between; each seed draws its own.

Every fit is a new process with empty caches, in turns. A value is the mean over seeds ± its standard error, of test
images and seeds together; *sd* is that of seeds alone. *by chance* is the ECE of that many images if all probabilities
were correct. *optimism* is the validation score of the fit minus the test score. *images/s* are predicted files per
second, including decoding. *less than saccade* is the mean difference in accuracy to the default fit of the same seed,
± its standard error over seeds. With `--json`, each fit is written when it is done, and fits in the file are not
repeated unless they failed. Two targets: an ECE of .03 at most; a standard deviation over seeds of .01 at 120 s.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments_of, read_figures, table, work_folder, write_json
from benchmarks.quality_methods import (
    ABLATIONS,
    ADDITIONS,
    METHODS,
    PEERS,
    PRESETS,
    Bench,
    Task,
    ablation,
    peers_for,
    weight_files,
)
from benchmarks.subsets import FULL, make_subset, parse_subset

DEFAULT = "saccade"

HEADS = (
    "", "fits", "accuracy", "sd", "log-loss", "ECE", "by chance", "validation", "optimism", "fit s", "wall s",
    "images/s", "less than saccade",
)  # fmt: skip

KEY = ("data", "subset", "limit_s", "method", "seed", "told")
"""Keys that identify a fit in the file of results; `told` holds the arguments of all fits of a run."""

Fit = dict[str, Any]


def keys_of(given: argparse.Namespace, methods: Sequence[str], told: Mapping[str, Any]) -> Iterator[Fit]:
    """Yield the keys that identify fits, in the order of fitting: a whole round of all before the next seed."""
    for seed in range(given.seeds):
        for data in given.data:
            for subset in given.subset:
                for limit_s in given.limits:
                    for method in methods:
                        values = (str(data.resolve()), subset, limit_s, method, seed, told)
                        yield dict(zip(KEY, values, strict=True))


def fit_all(given: argparse.Namespace, methods: Sequence[str], bench: Bench, fits: list[Fit]) -> None:
    """Fit what is not in `fits` yet, add it, and write the file after each; a failed fit is reported."""
    fits[:] = [fit for fit in fits if "error" not in fit]
    done = [{name: fit[name] for name in KEY} for fit in fits]
    folders: dict[tuple[Any, ...], Path] = {}
    for key in keys_of(given, methods, bench.told):
        if key in done:
            continue
        made = (key["data"], key["subset"], key["seed"])
        if made not in folders:
            place = bench.place / f"subset-{len(folders)}"
            folders[made] = make_subset(Path(key["data"]), key["subset"], key["seed"], place)
        epochs_s = [fit["epoch_s"] for fit in fits if "epoch_s" in fit and _is_alike(fit, key)]
        task = Task(key["method"], folders[made], key["limit_s"], key["seed"], epochs_s[0] if epochs_s else None)
        try:
            found = bench.fit(task)
        except RuntimeError as error:  # the other results are still useful
            found = {"error": str(error)[-500:]}
        fits.append({**key, **found})
        print(_line(fits[-1]), flush=True)
        write_json(given.json, given, fits)


def _is_alike(fit: Fit, other: Fit) -> bool:
    return all(fit[name] == other[name] for name in ("data", "subset", "method", "told"))


def _line(fit: Fit) -> str:
    where = f"{Path(fit['data']).name}, {fit['subset']}, {fit['limit_s']:g} s, seed {fit['seed']}: {fit['method']}"
    if "error" in fit:
        return f"{where} failed: {fit['error'].strip().splitlines()[-1]}"
    return f"{where} {fit['top1']:.4f} after {fit['fit_s']:.1f} s"


def rows_of(fits: Sequence[Fit]) -> list[list[str]]:
    """Return the rows of one table, for one data set, subset and time limit: one for each method."""
    rows = []
    defaults = {fit["seed"]: fit["top1"] for fit in fits if fit["method"] == DEFAULT and "top1" in fit}
    for method in dict.fromkeys(fit["method"] for fit in fits):
        all_of = [fit for fit in fits if fit["method"] == method]
        of = [fit for fit in all_of if "error" not in fit]
        failed = len(all_of) - len(of)
        count = f"{len(of)}" + f" ({failed} failed)" * bool(failed)
        if not of:
            rows.append([method, count, *["-"] * (len(HEADS) - 2)])
            continue
        tops = [fit["top1"] for fit in of]
        optimism = [{"optimism": fit["valid"] - fit["top1"]} for fit in of if "valid" in fit]
        less = [defaults[fit["seed"]] - fit["top1"] for fit in of if fit["seed"] in defaults]
        rows.append(
            [
                method, count, _mean(of, "top1"), f"{statistics.stdev(tops):.4f}" if len(tops) > 1 else "-",
                _mean(of, "log_loss"), _mean(of, "ece"), _mean(of, "ece_by_chance"),
                _mean(of, "valid"), _mean(optimism, "optimism"), _mean(of, "fit_s", 1), _mean(of, "wall_s", 1),
                _mean(of, "images_per_s", 0),
                "-" if method == DEFAULT or not less else _difference(less),
            ]
        )  # fmt: skip
    return rows


def _mean(fits: Sequence[Mapping[str, Any]], name: str, digits: int = 4) -> str:
    """Return the mean of a value, and its standard error if the fits have one for their test images."""
    values = [fit[name] for fit in fits if fit.get(name) is not None]
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    errors = [fit[f"{name}_se"] for fit in fits if f"{name}_se" in fit]
    if not errors:
        return text
    # All seeds are evaluated on the same images, so more seeds do not reduce that error.
    of_seeds = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
    return f"{text} ± {math.sqrt(statistics.fmean(errors) ** 2 + of_seeds):.{digits}f}"


def _difference(values: Sequence[float]) -> str:
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.4f}{error}"


def tables_of(fits: Sequence[Fit]) -> str:
    """Return a table for each data set, subset and time limit."""
    texts = []
    for where in dict.fromkeys((fit["data"], fit["subset"], fit["limit_s"]) for fit in fits):
        of = [fit for fit in fits if (fit["data"], fit["subset"], fit["limit_s"]) == where]
        texts.append(f"{Path(where[0]).name}, {where[1]}, {where[2]:g} s\n{table(HEADS, rows_of(of))}")
    return "\n\n".join(texts)


def _methods(given: argparse.Namespace, bench: Bench) -> list[str]:
    """Return the methods that can run here, and print why the others cannot."""
    methods = [method for method in given.methods if method not in PEERS or PEERS[method] in bench.peers]
    if bench.weights is None:
        for method in [method for method in methods if method == "probe" or method in PEERS]:
            methods.remove(method)
            print(f"{method} is skipped: it requires pretrained weights; pass their folder to --weights")
    added = [ablation(name) for name in given.ablate]
    return list(dict.fromkeys([*([DEFAULT] if added else []), *methods, *added]))


def _subset(text: str) -> str:
    try:
        parse_subset(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, has_rounds=False)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train/ and test/")
    parser.add_argument("--weights", type=Path, help="a folder of pretrained weights, safetensors")
    parser.add_argument("--limits", type=float, nargs="+", default=[30.0, 120.0, 300.0], help="seconds for a fit")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each kind")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[m for m in METHODS if m not in PRESETS])
    parser.add_argument("--ablate", nargs="+", choices=[*ABLATIONS, *ADDITIONS], default=[], help="ingredients")
    parser.add_argument("--subset", type=_subset, nargs="+", default=[FULL], help="hard sets made of each data set")
    parser.add_argument("--network", help="network of methods that train one (default: the largest file of weights)")
    parser.add_argument("--networks", nargs="+", help="networks for Saccade to search (default: its own choice)")
    parser.add_argument("--from-scratch", action="store_true", help="start Saccade from random weights")
    parser.add_argument("--peers", type=Path, help="a folder with handwritten.py and autogluon_fit.py")
    parser.add_argument("--autogluon-python", help="interpreter with AutoGluon (default: this one)")
    parser.add_argument("--fastai-python", help="interpreter with fastai (default: this one)")
    return parser.parse_args(argv)


def _saccade_options(given: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of all fits of Saccade, in JSON's types: a list of networks is a choice among them."""
    hyperparameters: dict[str, Any] = {"pretrained": False} if given.from_scratch else {}
    if given.networks:
        hyperparameters["model"] = given.networks if len(given.networks) > 1 else given.networks[0]
    return {"hyperparameters": hyperparameters} if hyperparameters else {}


def main(argv: list[str] | None = None) -> None:
    """Fit, print and write the results."""
    given = _arguments(argv)
    pythons = {"autogluon": given.autogluon_python, "fastai": given.fastai_python}
    peers, told = peers_for(given.methods, given.peers, pythons)
    if told:
        print(told)
    files = weight_files(given.weights)
    network = given.network or (files[0].name.split(".")[0] if files else "")
    fits: list[Fit] = read_figures(given.json) or []
    with work_folder() as place:
        bench = Bench(place, given.weights if files else None, network, peers, _saccade_options(given))
        try:
            fit_all(given, _methods(given, bench), bench, fits)
        except KeyboardInterrupt:
            print("interrupted; results so far:")
        print(tables_of([fit for fit in fits if fit["told"] == bench.told]))


if __name__ == "__main__":
    main()
