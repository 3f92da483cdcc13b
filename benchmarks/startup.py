"""Time to the first result of a command or a prediction, over the import of torch and timm alone.

    python -m benchmarks.startup [--network mobilenetv3_small_100] [--rounds 5] [--details] [--json OUT]

Each line is a new interpreter, started in turns with the others, with its files in memory already: wall-clock seconds,
and CPU seconds, which are correct on a busy machine too. `--details` prints the import time of `ImagePredictor` by
package, as measured by Python for each module itself.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import arguments_of, in_turns, run_command, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

REFERENCE = "import torch, timm"
HEAVY = ("torch", "timm", "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "optuna", "PIL", "numpy")


def save_predictor(photos: str, config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write a hardly trained predictor."""
    from saccade import ImagePredictor

    predictor = ImagePredictor(path=Path(folder) / "run", verbosity=0)
    predictor.fit(photos_of(photos), time_limit=None, hyperparameters=config)
    return {"path": predictor.save(Path(folder) / "predictor")}


def commands(predictor: str, photo: str) -> dict[str, list[str]]:
    """Return the timed commands, as arguments of the interpreter."""
    load = f"from saccade import ImagePredictor; predictor = ImagePredictor.load({predictor!r}, verbosity=0)"
    return {
        "python": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        REFERENCE: ["-c", "import torch, timm"],
        "import saccade": ["-c", "import saccade"],
        "saccade --help": ["-m", "saccade", "--help"],
        "import ImagePredictor": ["-c", "from saccade import ImagePredictor"],
        "load": ["-c", load],
        "first prediction": ["-c", f"{load}; predictor.predict({photo!r})"],
    }


def heavy_imports(statement: str) -> list[str]:
    """Return the heavy packages that a statement imports."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    return run_command([sys.executable, "-c", code]).stdout.split()


def import_seconds(statement: str) -> dict[str, float]:
    """Return the seconds that a statement's imports take, by package, the longest first; without those of others."""
    code = "import subprocess, sys; print(subprocess.run([sys.executable, '-X', 'importtime', '-c', sys.argv[1]], "
    code += "stderr=subprocess.PIPE, text=True).stderr)"
    return by_package(run_command([sys.executable, "-c", code, statement]).stdout)


def by_package(importtime: str) -> dict[str, float]:
    r"""Return seconds by package of what ``-X importtime`` says.

    Examples
    --------
    >>> by_package("import time: 1500 | 4000 | torch.nn\nimport time: 500 | 500 |   torch\nimport time: 9 | 9 | re")
    {'torch': 0.002, 're': 9e-06}
    """
    microseconds: Counter[str] = Counter()
    for line in importtime.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            microseconds[rest.rpartition("|")[2].strip().partition(".")[0]] += int(own)
    return {name: value / 1e6 for name, value in microseconds.most_common()}


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.add_argument("--network", default="mobilenetv3_small_100")
    parser.add_argument("--img-size", type=int, default=None, help="side in pixels; default: the network's own")
    parser.add_argument("--details", action="store_true", help="import time by package")
    given = parser.parse_args(argv)
    with work_folder() as folder:
        photos = make_photos(folder / "photos", 16)
        config = {"model": given.network, "pretrained": False, "epochs": 1, "batch_size": 8}
        if given.img_size is not None:
            config["img_size"] = given.img_size
        cache = {"SACCADE_CACHE": str(folder / "cache")}
        saved = measuring.in_own_process(
            save_predictor, cache, photos=str(photos), config=config, folder=str(folder / "fit")
        )
        photo = str(next(photos.glob("*/*")))
        timed = {
            name: partial(_costs, [sys.executable, *arguments], cache)
            for name, arguments in commands(saved["path"], photo).items()
        }
        for measure in timed.values():
            measure()  # from here on files are in memory, and bytecode is compiled
        costs = in_turns(given.rounds, timed)
    reference = costs[REFERENCE]
    figures: dict[str, Any] = {"costs": costs, "ratios": {}, "heavy": {}}
    rows = []
    for name, cost in costs.items():
        figures["ratios"][name] = ratios = {what: cost[what] / reference[what] for what in cost}
        rows.append([name, *(figure for what in cost for figure in (cost[what], ratios[what]))])
    print(table(["new interpreter", "s", f"/ {REFERENCE}", "cpu s", "/ the same"], rows))
    for statement in ("import saccade", "import saccade.cli.app"):
        figures["heavy"][statement] = found = heavy_imports(statement)
        print(f"{statement}: imports {', '.join(found) or 'nothing heavy'}")
    if given.details:
        figures["packages_s"] = packages = import_seconds("import torch, timm; from saccade import ImagePredictor")
        print(table(["package, itself", "s"], [[name, took_s] for name, took_s in list(packages.items())[:15]]))
    write_json(given.json, given, figures)


def _costs(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    ended = run_command(command, environment)
    return {"wall_s": ended.wall_s, "cpu_s": ended.cpu_s}


if __name__ == "__main__":
    main()
