"""What a predictor shares with the program around it: global state, and the working directory."""

# ruff: noqa: NPY002  (the legacy generator is part of the global state)
from __future__ import annotations

import inspect
import logging
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn  # noqa: F401  its import sets environment variables
import torch

from saccade import ImagePredictor
from saccade.errors import SaccadeError

MakeColours = Callable[..., pd.DataFrame]
SMALL = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1}
DIVERGING = {**SMALL, "opt": "sgd", "lr": 1e30, "warmup_epochs": 0}


def fails(call: Callable[[], object]) -> None:
    with pytest.raises(SaccadeError):
        call()


def global_state() -> dict[str, Any]:
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "errors of NumPy": np.geterr(),
        "environment": dict(os.environ),
        "working directory": Path.cwd(),
    }


def test_no_public_method_changes_the_global_state(make_colours: MakeColours, tmp_path: Path) -> None:
    frame, seen = make_colours(8), set()
    images = frame["image"].tolist()[:2]
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    calls: dict[str, Callable[[], object]] = {
        "fit": lambda: predictor.fit(frame, hyperparameters=SMALL, nthreads_per_trial=1, num_trials=1),
        "resume": lambda: ImagePredictor.resume(predictor.path),
        "warm_up": predictor.warm_up,
        "predict": lambda: predictor.predict(frame),
        "predict_set": lambda: predictor.predict_set(images, coverage=0.5),
        "predict_proba": lambda: predictor.predict_proba(images),
        "embed": lambda: predictor.embed(images),
        "predict_feature": lambda: predictor.predict_feature(images),
        "evaluate": lambda: predictor.evaluate(frame, interval=0.9),
        "explain": lambda: predictor.explain(images),
        "nearest": lambda: predictor.nearest(images),
        "why": lambda: predictor.why(images),
        "reasons": lambda: predictor.reasons(images),
        "near_duplicates": lambda: predictor.near_duplicates(frame),
        "find_leaks": lambda: predictor.find_leaks(frame),
        "novelty": lambda: predictor.novelty(images),
        "add_classes": lambda: predictor.add_classes(frame.replace({"label": {frame["label"][0]: "new"}})),
        "label_issues": lambda: predictor.label_issues(frame),
        "save": lambda: predictor.save(tmp_path / "saved"),
        "load": lambda: ImagePredictor.load(tmp_path / "saved", net=None),
        "choose": lambda: fails(predictor.choose),
        "export": lambda: predictor.export("pt2", tmp_path / "exported"),
        "model_card": predictor.model_card,
        "report": lambda: predictor.report().frames["metrics"],
        "push_to_hub": lambda: fails(lambda: predictor.push_to_hub("not a name")),
        "from_hub": lambda: fails(lambda: ImagePredictor.from_hub("not a name")),
        "a fit that fails": lambda: fails(
            lambda: ImagePredictor(path=tmp_path / "failed", verbosity=0).fit(frame, hyperparameters=DIVERGING)
        ),
    }
    for name, call in calls.items():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        before = global_state()
        call()
        after = global_state()
        assert [part for part in before if before[part] != after[part]] == [], name
        seen.add(name)
    cheap = {"get_params", "clone", "to", "fit_summary", "leaderboard", "list_models"}
    methods = {name for name, _ in inspect.getmembers(ImagePredictor, inspect.isroutine) if not name.startswith("_")}
    assert methods <= seen | cheap


def test_relative_paths_mean_the_working_directory_of_the_call(
    make_colours: MakeColours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_colours(8)
    monkeypatch.chdir(tmp_path)
    given = ImagePredictor(path="run", verbosity=0)
    monkeypatch.chdir("/")
    given.fit(frame, hyperparameters=SMALL)
    assert given.path == str(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    own = ImagePredictor(verbosity=0).fit(frame, hyperparameters=SMALL)
    assert Path(given.save("saved")) == tmp_path / "saved"
    loaded = ImagePredictor.load("saved", verbosity=0)
    monkeypatch.chdir("/")
    for predictor in (given, own, loaded):
        assert predictor.predict(frame).notna().all()
        assert Path(predictor.save()).is_absolute()
    assert len(own.nearest(frame["image"][0])) == 5
    assert given.clone().get_params()["path"] == "run"
