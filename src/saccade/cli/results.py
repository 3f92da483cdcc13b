"""What commands return, and write with ``--json``: a model for each, from which `schema_of` makes its schema."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model, model_validator

from saccade.cli.output import json_value
from saccade.events import Event, Progressed
from saccade.study.url_folder import with_urls

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

    from saccade.inference.saved import SavedPredictor
    from saccade.predictor import ImagePredictor


class Line(BaseModel):
    """A line that a command writes, or a part of it; values without a JSON form are converted by `json_value`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _as_json(cls, values: Any) -> Any:
        return values if isinstance(values, Line) else json_value(values)

    @classmethod
    def make(cls, **values: Any) -> Self:
        """Return a line of values of any types."""
        return cls(**values)


class Result(Line):
    """The last line of a command that has succeeded."""

    kind: Literal["result"] = "result"

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return 0


class Failure(Line):
    """The last line of a command that has failed."""

    kind: Literal["error"] = "error"
    code: str
    """The class of the error, such as DataError; UsageError for arguments that cannot be parsed."""
    message: str
    """What was given, what is expected, and what to do."""
    advice: str | None = None
    """A command that helps, if there is one."""


class TrialRow(Line):
    """A trial in the order of the leaderboard."""

    trial: int
    status: str
    """completed, stopped, paused, failed or running."""
    score_val: float | None
    """The validation score, higher is better."""
    weight: float
    """Weight of its networks in the predictor."""
    images_per_s: float | None
    epochs_done: int
    best_epoch: int | None
    """0 is the linear probe."""
    fit_time_s: float
    config: dict[str, Any]
    """The hyperparameters."""
    reason: str
    """Why it failed, or stopped early."""
    costs: dict[str, float | None] | None = None
    """With several objectives: image_ms, latency_ms, num_params, num_bytes."""
    on_front: bool | None = None
    """With several objectives: whether it is on the Pareto front."""


def trial_lines(rows: Iterable[Mapping[str, Any]], weights: Mapping[int, float]) -> list[TrialRow]:
    """Return the rows of `trial_rows` as lines."""
    known = TrialRow.model_fields
    return [
        TrialRow.make(
            **{
                "images_per_s": None,
                **{key: value for key, value in row.items() if key in known},
                "weight": weights.get(row["trial"], 0.0),
                "reason": row["reason"] or "",
            }
        )
        for row in rows
    ]


class PredictorResult(Result):
    """A predictor and its scores."""

    predictor: str
    """Its folder."""
    result: str
    """Its networks and their score in one line."""
    problem_type: str
    classes: list[str]
    """Names of the classes; none for regression."""
    metric: str | None
    """The metric used for model selection."""
    score: float | None
    """The validation score of the predictor, higher is better; of an error it is the negative."""
    score_how: str
    """How it was measured."""
    images_per_s: float | None
    """Throughput on this machine, decoding excluded."""


def of_predictor(saved: SavedPredictor, folder: Path | str | None = None) -> dict[str, Any]:
    """Return the fields of a `PredictorResult`."""
    return {
        "predictor": with_urls(str(folder or saved.folder)),
        "result": saved.result,
        "problem_type": saved.problem.type,
        "classes": saved.names_of_classes,
        "metric": saved.summary.get("eval_metric"),
        "score": saved.summary.get("valid_score"),
        "score_how": saved.summary.get("valid_score_how", ""),
        "images_per_s": saved.summary.get("images_per_s"),
    }


class FitResult(PredictorResult):
    """A finished run."""

    run: str
    """The run folder."""
    is_interrupted: bool
    """Whether the search was interrupted; saccade resume continues it."""
    best_trial: int | None
    seconds: dict[str, float | None]
    """Of the whole fit (total) and its phases."""
    trials: list[TrialRow]
    report: str | None = None
    """The file of the report, if it was written; saccade report writes it."""
    test: dict[str, float | None] | None = None
    """Metrics on the test images, if the data has any."""

    @classmethod
    def of(cls, predictor: ImagePredictor, test: Mapping[str, float] | None = None) -> FitResult:
        """Return the result of a fit, and its metrics on test images."""
        from saccade.fit.run_folder import REPORT
        from saccade.inference.saved import INTERRUPTED  # slow to import, as torch is

        saved = predictor.pipeline.saved
        report = saved.folder.parent / REPORT
        return cls.make(
            **of_predictor(saved),
            run=predictor.path,
            is_interrupted=saved.summary.get(INTERRUPTED, False),
            best_trial=saved.summary.get("best_trial"),
            seconds=saved.summary.get("seconds", {}),
            trials=trial_lines(saved.trials, saved.trial_weights),
            report=with_urls(str(report)) if report.is_file() else None,
            test=test,
        )


class WatchResult(Result):
    """What a run had when the watching ended; a run that died is an error."""

    run: str
    is_finished: bool
    """False if the watching was ended by Ctrl-C."""
    num_trials: int
    best_trial: int | None
    score: float | None
    """Of the best trial, higher is better."""


class LeaderboardResult(Result):
    """The trials of a run, the best first."""

    run: str
    is_finished: bool
    """Whether the run has a predictor."""
    trials: list[TrialRow]
    result: str | None = None
    """The networks of the predictor and their score in one line."""
    why_not_best_trial: str | None = None
    """Why the best trial is not the predictor, if it is not."""
    seconds: dict[str, float | None] | None = None
    """Of the whole fit (total) and its phases."""
    advice: str | None = None
    """How to finish a run that has no predictor."""


class Table(Line):
    """A table with names of rows and columns."""

    index: list[Any]
    columns: list[str]
    data: list[list[Any]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Table:
        """Return a DataFrame as a table."""
        return cls.make(**frame.rename(columns=str).to_dict("split"))


class EvaluateResult(Result):
    """Metrics on labelled images."""

    metrics: dict[str, float | None]
    tables: dict[str, Table]
    """Such as confusion_matrix, whose rows are the true classes."""


class Difference(Line):
    """The metric of a run less that of another one, on the same images; null where they are not compared."""

    difference: float | None
    difference_low: float | None
    """Ends of its paired bootstrap interval."""
    difference_high: float | None
    p_value: float | None
    """Two-sided; not corrected for several comparisons."""
    verdict: str
    """better, worse, no clear difference, baseline, or not compared."""


class ComparedRow(Difference):
    """A run, and its difference to the baseline."""

    run: str
    status: str
    """finished, or why it has no predictor."""
    score: float | None
    score_low: float | None
    """Ends of its bootstrap interval."""
    score_high: float | None
    images_per_s: float | None
    num_bytes: int | None
    """Of the weights."""
    seconds: float | None
    """Of the fit."""
    networks: str


class Pair(Difference):
    """Two runs, and the difference of the first one to the other."""

    run: str
    other: str


class CompareResult(Result):
    """Runs on the same images."""

    metric: str
    greater_is_better: bool
    images: str
    """Which images these are."""
    num_images: int
    interval: float
    """Confidence of all intervals."""
    runs: list[ComparedRow]
    differences: list[Pair]
    """Of each pair of compared runs."""
    warnings: list[str]
    """What limits the comparison, such as images that were left out."""
    file: str | None = None
    """The page that was written."""


class Prediction(Line):
    """The prediction for an image; its label is null if it is unreadable."""

    image: str
    label: str | float | list[str] | None
    """The class; several for multilabel problems, a number for regression."""
    probability: float | None
    """Of the label, from 0 to 1; null for multilabel problems and regression."""
    probabilities: dict[str, float | None] | None = None
    """Of each class."""
    error: str | None = None
    """Why the image is unreadable."""
    is_unknown: bool = False
    """Whether the image is unlike the training images, with --unknown."""


class PredictResult(Result):
    """Predictions."""

    images: list[Prediction]
    num_images: int
    num_unreadable: int
    csv: str | None = None
    """The table that was written."""


class Similar(Line):
    """A training image that is similar to an image."""

    image: str
    label: str | None
    similarity: float | None
    """Cosine of the features, up to 1."""


class Explanation(Line):
    """An image, its prediction, and similar training images, the most similar first."""

    image: str
    label: str | None
    probability: float | None
    nearest: list[Similar]


class ExplainResult(Result):
    """Explanations, and the figure that shows them."""

    figure: str | None
    """The file that was written."""
    images: list[Explanation]
    num_images: int
    """How many were given; of more than --num-images, those with the lowest confidence are explained."""


class FileResult(Result):
    """A file that was written."""

    file: str
    num_bytes: int

    @classmethod
    def of(cls, file: str | Path) -> FileResult:
        """Return the result for a file or a folder of files."""
        path = Path(file)
        files = path.rglob("*") if path.is_dir() else [path]
        return cls.make(file=path, num_bytes=sum(each.stat().st_size for each in files if each.is_file()))


class ReportResult(Result):
    """A report that was written."""

    file: str
    sections: list[str]
    """Names of its tables and figures; in Python, ImagePredictor.report().frames has them."""
    table: Table | None = None
    """That of the section which was asked for."""


class CardResult(Result):
    """A model card."""

    text: str
    """Markdown."""
    file: str | None = None
    """Where it was written."""


class PushResult(Result):
    """A predictor on the Hugging Face hub."""

    repo: str
    url: str


class ServeResult(Result):
    """A server that was stopped."""

    url: str


class Serving(Line):
    """A server that accepts requests."""

    kind: Literal["serving"] = "serving"
    name: str
    url: str


class FlaggedFile(Line):
    """An image with a problem."""

    part: str
    file: str
    label: Any
    detail: str


class FoundProblem(Line):
    """The result of one check."""

    code: str
    """IMG001 and so on."""
    title: str
    severity: Literal["error", "warning", "info"]
    message: str
    what_to_do: str
    files: list[FlaggedFile]


class CheckResult(Result):
    """Problems of images; the exit code is 1 if one of them is an error."""

    num_images: dict[str, int]
    """By part."""
    findings: list[FoundProblem]
    csv: str | None = None
    """The table that was written."""

    @property
    def exit_code(self) -> int:
        """1 if scores would be misleading."""
        return int(any(finding.severity == "error" for finding in self.findings))


class CheckedFact(Line):
    """One thing that a fit depends on."""

    name: str
    verdict: Literal["OK", "note", "problem"]
    text: str
    advice: str


class DoctorResult(Result):
    """Facts about this machine; the exit code is 1 if there is a problem."""

    facts: list[CheckedFact]

    @property
    def exit_code(self) -> int:
        """1 if a fit would fail."""
        return int(any(fact.verdict == "problem" for fact in self.facts))


class ClusterNode(Line):
    """A node of a Ray cluster."""

    name: str
    is_alive: bool
    resources: dict[str, float]
    """CPU, GPU and others that it has for trials; memory in bytes."""
    pid: int | None = None
    """Its main process, if the cluster is that of saccade cluster up."""


class ClusterResult(Result):
    """A Ray cluster; after `down`, what has ended."""

    is_running: bool
    address: str | None
    """For fit --address; null if no cluster runs."""
    nodes: list[ClusterNode]
    free: dict[str, float]
    """What no trial or other job uses now."""
    workers: list[str]
    """Names of the workers of fits and searches that run on it."""
    logs: str | None
    """The folder of the log files."""


class Network(Line):
    """A network that can be searched; with --detailed also its default weights."""

    model: str
    weights: str | None = None
    """Where they are: folder, hub cache, package, hub or none."""
    licenses: str | None = None
    img_size: int | None = None
    top1: float | None = None
    """Published accuracy on ImageNet-1k, from 0 to 1."""


class ModelsResult(Result):
    """Networks."""

    models: list[Network]


class SampleDataResult(Result):
    """Photos that were written."""

    folder: str
    classes: list[str]
    num_images: int
    also_written: list[str]
    credits: list[str]


class DemoResult(Result):
    """Scores and pictures of the demo."""

    scores: dict[str, float | None]
    """Test metrics of the digits."""
    runs: list[str]
    figures: list[str]


class SchemaResult(Result):
    """JSON Schemas of what commands write with --json, by command."""

    schemas: dict[str, dict[str, Any]]


RESULTS: dict[str, type[Result]] = {
    "demo": DemoResult,
    "sample-data": SampleDataResult,
    "check": CheckResult,
    "fit": FitResult,
    "resume": FitResult,
    "watch": WatchResult,
    "leaderboard": LeaderboardResult,
    "choose": PredictorResult,
    "evaluate": EvaluateResult,
    "compare": CompareResult,
    "predict": PredictResult,
    "explain": ExplainResult,
    "export": FileResult,
    "report": ReportResult,
    "dashboard": ServeResult,
    "serve": ServeResult,
    "card": CardResult,
    "push": PushResult,
    "models": ModelsResult,
    "doctor": DoctorResult,
    "cluster": ClusterResult,
    "schema": SchemaResult,
}
"""The model of each command's result."""

FITS = ("demo", "fit", "resume", "watch")  # commands that write the events of fits
SERVERS = ("dashboard", "serve")


def event_models() -> list[type[BaseModel]]:
    """Return a model for each kind of event, as a line."""
    may_be_null: dict[Any, Any] = {float: float | None, dict[str, float]: dict[str, float | None]}  # for NaN
    models = []
    for cls in Event.__subclasses__():
        if cls is Progressed:
            continue
        hints = {name: hint for name, hint in typing.get_type_hints(cls).items() if name != "kind"}
        fields: dict[str, Any] = {"kind": (Literal[cls.kind], ...), "time": (float, ...)}
        fields |= {name: (may_be_null.get(hint, hint), ...) for name, hint in hints.items()}
        models.append(create_model(cls.__name__, __doc__=inspect.getdoc(cls), **fields))
    return models


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema of each line that a command writes with ``--json``."""
    before: list[type[BaseModel]] = event_models() if command in FITS else [Serving] if command in SERVERS else []
    lines: Any = (*before, RESULTS[command], Failure)
    schema = TypeAdapter(typing.Union[lines]).json_schema(mode="serialization")  # noqa: UP007
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
