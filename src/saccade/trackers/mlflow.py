"""MLflow: a run with a nested run for each trial, and the predictor as a model that MLflow loads."""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.events import EpochDone
from saccade.study.trial import Status, Trial
from saccade.trackers.base import LibraryTracker, best_score, flat, printing_to_stderr

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from saccade.predictor import ImagePredictor

_PARENT, _TRIAL = "mlflow.parentRunId", "saccade.trial"
_ENDS = {Status.COMPLETED: "FINISHED", Status.STOPPED: "FINISHED", Status.FAILED: "FAILED"}


class MlflowTracker(LibraryTracker):
    """Records a run in MLflow, where its environment variables and `mlflow.set_tracking_uri` say.

    A run that is active in the calling thread is used, and stays active. Otherwise there is a new one in the active
    experiment, with the name of the run folder. Each trial is a nested run with its configuration as parameters, and
    the metrics of each epoch. The predictor is the model ``model`` of the run: a DataFrame with a column ``image``
    (paths, URLs, bytes of files, or these as base64 text) gives labels, and with ``params={"proba": True}``
    probabilities. Its ONNX file is an artifact if the extra ``onnx`` is installed.

    Parameters
    ----------
    close_timeout_s
        Seconds for which the end of the run waits for models and metrics to be stored.
    """

    library = "mlflow"

    def open(self, folder: Path | None) -> None:
        """Find the run that is active in this thread; MLflow has one for each thread."""
        super().open(folder)
        mlflow = sys.modules.get("mlflow")  # slow to import; before, no run can be active
        active = None if mlflow is None else mlflow.active_run()
        self._own_id = None if active is None else active.info.run_id

    def start(self, name: str, earlier: str | None) -> str:
        """Start a run, or continue one."""
        import mlflow
        from mlflow.exceptions import MlflowException

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        self._children: dict[int, str] = {}
        run_id = self._own_id or earlier
        try:
            run = mlflow.start_run(run_id, run_name=name if run_id is None else None, log_system_metrics=False)
        except MlflowException:  # it was deleted, or is in another experiment or another store
            if run_id != earlier:
                raise
            run = mlflow.start_run(run_name=name, log_system_metrics=False)
        self._id: str = run.info.run_id
        self._experiment_id: str = run.info.experiment_id
        self._known = set(run.data.params)
        if self._id == earlier:
            query, token = f"tags.`{_PARENT}` = '{self._id}'", None
            while token != "":
                page = self._client.search_runs([self._experiment_id], query, page_token=token)
                self._children |= {
                    int(one.data.tags[_TRIAL]): one.info.run_id for one in page if _TRIAL in one.data.tags
                }
                token = page.token or ""
        return str(self._id)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Record parameters; those of an earlier session cannot be changed."""
        new = {name: value for name, value in values.items() if name not in self._known}
        self._known |= new.keys()
        self._log(self._id, params=new)
        if "run_folder" in values:
            self._client.set_tag(self._id, "saccade.run_folder", values["run_folder"])

    def start_trial(self, trial: Trial) -> None:
        """Start a nested run."""
        name, tags = f"trial {trial.number}", {_PARENT: self._id, _TRIAL: str(trial.number)}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._children[trial.number] = run.info.run_id
        self._log(run.info.run_id, params=flat(trial.config))

    def log_epoch(self, trial: Trial, report: EpochDone, values: Mapping[str, float], *, is_best: bool) -> None:
        """Record metrics of a trial by epoch, and the best score by trial."""
        if trial.number not in self._children:  # the process was killed before it was recorded
            self.start_trial(trial)
        self._log(self._children[trial.number], values, report.epoch)
        if is_best:
            self._log(self._id, {"best_score": report.score}, trial.number)

    def end_job(self, trial: Trial) -> None:
        """Record the best score, and the status unless the trial has only paused."""
        if trial.number not in self._children:
            self.start_trial(trial)
        run_id = self._children[trial.number]
        self._client.set_tag(run_id, "saccade.status", trial.status.value)
        reason = trial.note if trial.failure is None else trial.failure.reason
        if reason:
            self._client.set_tag(run_id, "saccade.reason", reason[:4000])
        if trial.reports:
            self._log(run_id, {"best_score": best_score(trial)}, trial.num_epochs)
        if trial.status in _ENDS:
            self._client.set_terminated(run_id, _ENDS[trial.status])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record the result as metrics and a tag, and the table of trials."""
        numbers = {name: value for name, value in summary.items() if not isinstance(value, str)}
        self._log(self._id, numbers, max(self.trials, default=0))
        for name, value in summary.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, f"saccade.{name}", value[:4000])
        self._client.log_text(self._id, self.leaderboard().to_csv(index=False), "leaderboard.csv")

    def log_predictor(self, folder: Path) -> None:
        """Log the predictor as a model, and files about it as artifacts."""
        from saccade.predictor import ImagePredictor

        for name in ("report.html", "fit.toml"):
            if (folder.parent / name).is_file():
                self._client.log_artifact(self._id, str(folder.parent / name))
        example, predictor = _example(), ImagePredictor.load(folder, verbosity=0)
        self._mlflow.pyfunc.log_model(
            name="model",
            loader_module=__name__,
            data_path=str(folder),
            signature=_signature(_Model(predictor).predict(example)),
            input_example=example,
            pip_requirements=[f"saccade=={__version__}"],
        )
        if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
            with tempfile.TemporaryDirectory() as made, printing_to_stderr():
                predictor.export("onnx", made)
                self._client.log_artifacts(self._id, made, "onnx")

    def end(self, *, is_finished: bool) -> None:
        """End the run; trials that have paused are finished with it."""
        for number, run_id in self._children.items():
            if number in self.trials and self.trials[number].status not in _ENDS:
                self._client.set_terminated(run_id, "FINISHED" if is_finished else "KILLED")
        if self._own_id is None:
            with printing_to_stderr():  # the address of the run on a server
                self._mlflow.end_run("FINISHED" if is_finished else "FAILED")

    def _log(
        self,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        numbers = [Metric(_key(name), float(value), now_ms, step) for name, value in (metrics or {}).items()]
        texts = [Param(_key(name), str(value)) for name, value in (params or {}).items()]
        for start in range(0, max(len(numbers), len(texts), 1), 100):  # the limit of a request
            self._client.log_batch(run_id, numbers[start : start + 100], texts[start : start + 100])


def _key(name: object) -> str:
    """Return a name that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", str(name), flags=re.ASCII)[:250]


def _example() -> pd.DataFrame:
    import pandas as pd
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    example: pd.DataFrame = pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})
    return example


def _signature(labels: Any) -> Any:
    """Return the signature of a model with such labels; MLflow's own inference warns of whole numbers."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {"b": "boolean", "i": "long", "f": "double"}
    types = (labels if hasattr(labels, "columns") else labels.to_frame()).dtypes
    outputs: list[Any] = [ColSpec(kinds.get(dtype.kind, "string"), str(name)) for name, dtype in types.items()]
    proba = ParamSpec("proba", "boolean", default=False)
    return ModelSignature(Schema([ColSpec("string", "image")]), Schema(outputs), ParamSchema([proba]))


def _load_pyfunc(data_path: str) -> _Model:
    """Return the model of a predictor's folder; MLflow calls it by this name."""
    from saccade.predictor import ImagePredictor

    return _Model(ImagePredictor.load(data_path, verbosity=0))


class _Model:
    """A predictor with the interface of MLflow's Python models."""

    def __init__(self, predictor: ImagePredictor) -> None:
        self.predictor = predictor

    def predict(
        self, model_input: Any, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame | pd.Series[Any] | np.ndarray:
        """Return the labels of images, or with the parameter `proba` their probabilities."""
        column = model_input
        if hasattr(model_input, "columns"):
            names = list(model_input.columns)
            column = model_input[names[0] if len(names) == 1 else "image"]
        images = [_image_of(value) for value in column]
        return (self.predictor.predict_proba if (params or {}).get("proba") else self.predictor.predict)(images)


def _image_of(value: Any) -> Any:
    """Return the bytes for base64 text, also in a data URL; a path or URL, and anything else, as it is."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"^data:image/[\w.+-]+;base64,", "", value)
    is_path = len(value) < 64 or re.search(r"[^\w+/=\r\n]", value) or os.path.isfile(value)  # noqa: PTH113 (any length)
    if text == value and is_path:
        return value
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return value
