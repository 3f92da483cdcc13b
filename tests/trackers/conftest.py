"""Libraries that keep their files in temporary folders, send nothing, and report nothing about their use."""

from __future__ import annotations

import pytest

from saccade import tune
from saccade.space import Categorical, Dict

SPACE = {"x": Categorical(1, 3, 2), "net": Categorical("a", Dict(name="b", depth=3))}


def rising(config, report):
    """Report three epochs of a loss, and a metric with a name that some libraries do not allow."""
    for epoch in range(1, 4):
        report(epoch=epoch, loss=config["x"] / epoch, **{"f1@0.5": 1.0})


@pytest.fixture
def search():
    """Search with a tracker, in a folder or in none."""

    def run(*callbacks, num_trials=3, **options):
        defaults = {"metric": "loss", "mode": "min", "scheduler": "fifo", "searcher": "grid", "verbosity": 0}
        return tune(rising, SPACE, callbacks=callbacks, num_trials=num_trials, **{**defaults, **options})

    return run


@pytest.fixture(scope="session", autouse=True)
def _offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "wandb_config"))
        patch.setenv("WANDB_CACHE_DIR", str(folder / "wandb_cache"))
        patch.setenv("WANDB_DATA_DIR", str(folder / "wandb_data"))
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.chdir(folder)  # MLflow keeps artifacts beside its store
        yield
