"""The options of a fit, each declared once as a field of `FitOptions`.

The command line (`saccade.cli.fit`), TOML files (`saccade.fit.config_file`), ``run.json``, the docstring of
`ImagePredictor.fit` and the checks of values are derived from the fields. To add an option, add a field and use it
where it acts.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from saccade.errors import HyperparameterError, SaccadeError, UnknownArgumentError
from saccade.executor import EXECUTORS, Executor, plan_workers
from saccade.fit.values import parse_constant, parse_duration
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import SEARCHERS
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.space.base import plain
from saccade.study.event_log import to_json_value
from saccade.study.objectives import check_objectives, cost_names, speed_limits
from saccade.study.registry import Registry
from saccade.study.trackers import check_callbacks

AUTO_TIME_LIMIT_S = 7200.0  # the meaning of ``time_limit="auto"`` without a preset
AUTO_MEMBERS = 5  # the largest ensemble if no number is given: each member adds its time to every prediction


@dataclass(frozen=True)
class Option:
    """How an option appears outside of Python, and in which places; its name, type and default are the field's."""

    summary: str  # one sentence; the help of the command line
    details: str = ""  # more sentences for the docstring
    metavar: str = ""  # the value in the help of the command line
    flags: tuple[str, ...] = ()  # names on the command line and in TOML files, the first one shown; else the field's
    is_in_cli: bool = True  # `saccade fit` has it
    is_in_file: bool = True  # TOML files have it
    is_in_record: bool = True  # `run.json` has it
    is_for_search: bool = False  # `hyperparameter_tune_kwargs` may hold it
    may_change: bool = False  # a resumed run may have another value
    is_path: bool = False  # files and records keep it as an absolute path


@dataclass(frozen=True)
class Kind:
    """How error messages describe the values of a type, and how text is read as one of them."""

    expected: str  # Python values
    parse: Callable[[str], Any] | None = None  # reads text of the command line or a TOML file; None takes it as it is
    text: str = ""  # that `parse` reads; empty is the same as `expected`


def _as_dict(value: Any) -> Any:
    """Return a copy of a mapping; the caller's dictionary is never changed."""
    return dict(value) if isinstance(value, Mapping) else {} if value is None else value


def _as_dicts(value: Any) -> Any:
    return [_as_dict(part) for part in value or ()] if isinstance(value, list | tuple | NoneType) else value


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, os.PathLike) else value


def _as_values(value: Any) -> Any:
    """Return a Series as a dict by its index, and an array or a sequence as a list."""
    if hasattr(value, "to_dict") and not isinstance(value, Mapping):
        return list(value) if value.index.has_duplicates else value.to_dict()
    return list(value) if hasattr(value, "__array__") or isinstance(value, tuple) else _as_path(value)


def _as_images(value: Any) -> Any:
    """Return a path as absolute text, and a table, an array or a sequence as a list of images."""
    from saccade.data.examples import read_examples
    from saccade.remote.urls import is_url

    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return text if is_url(text) else str(Path(text).expanduser().absolute())
    return read_examples(value).images if hasattr(value, "columns") else _as_values(value)


def _num_gpus(value: float) -> float:
    num = int(value) if value.is_integer() else value
    plan_workers(1, 0, ngpus_per_trial=num)  # raises an error for a number that workers cannot have
    return num


def _num_networks(text: str) -> Any:
    return False if text.strip().lower() == "none" else parse_constant(text)


def _named(names: Registry[Any]) -> BeforeValidator:
    """Accept one of the names, whatever its case, or an instance of the base class."""
    return BeforeValidator(lambda value: value if isinstance(value, names.base) else names.canonical(value))


# NumPy's scalars become Python's before they are checked. NaN fails every comparison.
_Plain = BeforeValidator(plain)
Number: TypeAlias = Annotated[float, _Plain, Field(ge=-math.inf), Kind("a number", parse_constant)]
Count: TypeAlias = Annotated[int, _Plain, Field(ge=1), Kind("a whole number, 1 or more", parse_constant)]
Seed: TypeAlias = Annotated[int, _Plain, Field(ge=0), Kind("a whole number, 0 or more", parse_constant)]
NumFolds: TypeAlias = Annotated[int, _Plain, Field(ge=2), Kind("a whole number, 2 or more", parse_constant)]
Fraction: TypeAlias = Annotated[float, _Plain, Field(gt=0, lt=1), Kind("a number between 0 and 1", parse_constant)]
Seconds: TypeAlias = Annotated[
    float,
    _Plain,
    Field(gt=0),
    Kind("a positive number of seconds", parse_duration, "a duration such as 600, 90s, 10m or 1h30m"),
]
Positive: TypeAlias = Annotated[float, _Plain, Field(gt=0, lt=math.inf), Kind("a positive number", parse_constant)]
NumGpus: TypeAlias = Annotated[
    float, _Plain, Field(ge=0, lt=math.inf), AfterValidator(_num_gpus), Kind("0, 0.5, 1, 2 or the like", parse_constant)
]
Names: TypeAlias = Annotated[list[str], BeforeValidator(check_objectives), Kind("a list of names", str)]
Mappings: TypeAlias = Annotated[list[dict[Any, Any]], BeforeValidator(_as_dicts), Kind("a list of dicts")]
AnyDict: TypeAlias = Annotated[dict[Any, Any], BeforeValidator(_as_dict), Kind("a dict")]
FilePath: TypeAlias = Annotated[Path | str, BeforeValidator(_as_path), Kind("a path")]


if TYPE_CHECKING:
    from typing_extensions import Self

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class FitOptions(BaseModel):
    """The keyword arguments of `ImagePredictor.fit`, validated; `of` makes them, `model_fields_set` are those given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    call: ClassVar[str] = "argument of fit()"
    named: ClassVar[tuple[str, ...]] = ("train_data", "tuning_data", "hyperparameter_tune_kwargs")
    """Further arguments of it, which are no options."""

    time_limit: Annotated[
        Seconds | Literal["auto"] | None,
        Option(
            "Limit for the total time: seconds; on the command line also 90s, 10m, 1h30m or none.",
            '"auto" is the preset\'s limit, or 7200 s; None means no limit. Even a very short limit gives a predictor. '
            "With given `hyperparameters`, and without a space, a limit or a search option, one network is trained.",
            metavar="TIME",
            is_in_record=False,
        ),
    ] = "auto"
    presets: Annotated[
        str | list[str] | dict[str, Any] | None,
        Option(
            "medium_quality, high_quality, best_quality or fast_inference: how much work to invest.",
            "`saccade.fit.presets` has all of them. Other arguments take precedence; so do later presets.",
            metavar="NAME",
            flags=("preset", "presets"),
            is_in_record=False,
        ),
        Kind("a name, a list of names, a dict or None"),
    ] = None
    hyperparameters: Annotated[
        AnyDict,
        Option(
            "Values, or spaces of values, by name.",
            "See `saccade.training.recipes.recipe.Recipe` for all of them.",
            is_in_cli=False,
            is_in_record=False,
        ),
        Kind("a dict, such as {'model': 'resnet18', 'lr': 1e-3}"),
    ] = Field(default_factory=dict)
    num_trials: Annotated[
        Count | None,
        Option(
            "Maximum number of trials.",
            "None: the time limit and the size of the space decide.",
            metavar="N",
            is_for_search=True,
        ),
    ] = None
    searcher: Annotated[
        str | Searcher,
        _named(SEARCHERS),
        Option(
            "Search algorithm: random, grid, qmc, tpe, gp, cmaes or auto.",
            "Or an instance of `saccade.searcher.Searcher`, made with the same space as `hyperparameters`.",
            metavar="NAME",
            is_for_search=True,
        ),
    ] = "auto"
    searcher_options: Annotated[
        AnyDict, Option("Further arguments of the search algorithm.", is_in_cli=False, is_for_search=True)
    ] = Field(default_factory=dict)
    scheduler: Annotated[
        str | Scheduler,
        _named(SCHEDULERS),
        Option(
            "Decides which trial trains next, and for how long: fifo, asha, hyperband, median or auto.",
            "Or an instance of `saccade.scheduler.Scheduler`.",
            metavar="NAME",
            is_for_search=True,
        ),
    ] = "auto"
    scheduler_options: Annotated[
        AnyDict, Option("Further arguments of the scheduler.", is_in_cli=False, is_for_search=True)
    ] = Field(default_factory=dict)
    starting_configs: Annotated[
        Mappings,
        Option(
            "Configurations to try first, in this order.",
            "Missing hyperparameters have the defaults of their spaces.",
            is_in_cli=False,
            is_for_search=True,
        ),
    ] = Field(default_factory=list)
    trial_time_limit: Annotated[
        Seconds | None, Option("Maximum training time of one trial.", metavar="TIME", is_for_search=True)
    ] = None
    max_reward: Annotated[
        Number | None, Option("Score that stops the search.", metavar="SCORE", is_for_search=True)
    ] = None
    objectives: Annotated[
        Names,
        Option(
            "The score, and costs to minimise besides: latency, throughput, params, bytes.",
            "Such as ``['accuracy', 'latency']``. `choose` then picks from the Pareto front. Empty: the score alone.",
            metavar="NAME,NAME...",
            is_for_search=True,
        ),
    ] = Field(default_factory=list)
    min_images_per_s: Annotated[
        Positive | None,
        Option(
            "Minimum throughput of the predictor in images per second on this machine, decoding excluded.",
            "Only networks and ensembles that reach it are selected, and others are not searched further. If none "
            "does, the nearest is the result, with a warning.",
            metavar="N",
        ),
    ] = None
    max_latency_ms: Annotated[
        Positive | None,
        Option(
            "Maximum time of the predictor for a single image in milliseconds, otherwise as `min_images_per_s`.",
            metavar="MS",
        ),
    ] = None
    holdout_frac: Annotated[
        Fraction | None,
        Option(
            "Fraction of the training images that validates trials, if there is no validation set.",
            "None is a tenth; of many images, 500 to 5,000 at most.",
            metavar="FRACTION",
        ),
    ] = None
    groups: Annotated[
        str | dict[Any, Any] | list[Any] | Callable[..., Any] | None,
        BeforeValidator(_as_values),
        Option(
            "Column with the group of each image, such as a patient or a video: a group is on one side of each split.",
            "Or a list or Series of groups, a dict of groups by path, or a function of a `pathlib.Path`. The splits "
            "are the holdout, folds, and those of probes and calibration. An image whose group is missing is alone.",
            metavar="COLUMN",
            is_in_record=False,
        ),
        Kind("the name of a column, a list, Series or dict of values, or a function of a path"),
    ] = None
    time: Annotated[
        str | dict[Any, Any] | list[Any] | Callable[..., Any] | None,
        BeforeValidator(_as_values),
        Option(
            "Column with the time of each image: the latest images validate.",
            "Numbers, dates, or text in the format ISO 8601; given as `groups` are. Images of one time, or one group, "
            "stay on one side.",
            metavar="COLUMN",
            is_in_record=False,
        ),
        Kind("the name of a column, a list, Series or dict of values, or a function of a path"),
    ] = None
    random_state: Annotated[
        Seed | None,
        Option("Seed of the split, the search and the training.", "None draws one.", metavar="N", flags=("seed",)),
    ] = 0
    refit_full: Annotated[
        bool,
        Option(
            "After the search, train the best configuration again on all images, validation images included.",
            "The time limit includes it. `fit_summary` keeps the scores of the search, since no image is left to score "
            "the result.",
        ),
        Kind("True or False"),
    ] = False
    ensemble: Annotated[
        Count | bool | Literal["auto"],
        Option(
            "Maximum number of networks whose predictions are averaged, or none.",
            'They are averaged if that improves the score: see `saccade.selection.ensemble`. "auto" and True allow 5; '
            "False and 1 keep one network, which predicts faster. With `refit_full`, or costs among the `objectives`, "
            "there is one network.",
            metavar="N",
        ),
        Kind(
            "'auto', True or False, or the maximum number of networks",
            _num_networks,
            "auto, none or the maximum number of networks",
        ),
    ] = "auto"
    num_folds: Annotated[
        NumFolds | None,
        Option(
            "After the search, train the best configuration once per fold of all images, and average the networks.",
            "The time limit includes it; ``ensemble=False`` is not supported together with it. `fit_summary` has the "
            "out-of-fold score. Useful for small data: see `saccade.selection.folds`. If time is short, a warning "
            "says so, and the best trial is kept.",
            metavar="K",
        ),
    ] = None
    unlabeled: Annotated[
        str | list[Any] | None,
        BeforeValidator(_as_images),
        Option(
            "Images without labels: a folder, an archive, a list of paths or a table, whose labels are not read.",
            "They get labels by propagation from the training images, and train as well if that improves the "
            "out-of-fold log-loss of the training images by more than its standard error; `fit_summary` has both, as "
            "``unlabeled``. See `saccade.training.probes.pseudo_labels`. Only for problems with one class per image.",
            metavar="DIR",
            is_in_record=False,
        ),
        Kind("a path, a list of images, or a table of images"),
    ] = None
    distill: Annotated[
        bool,
        Option(
            "After the search, train a small, fast network on the predictions of the best; it is the result.",
            "The time limit includes it. The student has at least 5 times the throughput, where a network of the "
            "search allows it. `fit_summary` compares both on the validation images; the teacher is a predictor in the "
            "run "
            'folder: ``fit_summary()["distillation"]["teacher_path"]``. See `saccade.selection.distillation`.',
        ),
        Kind("True or False"),
    ] = False
    weights: Annotated[
        FilePath | None, Option("File, or folder of files, of pretrained weights.", metavar="PATH", is_path=True)
    ] = None
    nthreads_per_trial: Annotated[
        Count | None,
        Option(
            "CPU threads of a trial.",
            "Without GPUs, as many trials train at once as the cores allow. None: one at a time, on all cores.",
            metavar="N",
            flags=("threads",),
            may_change=True,
        ),
    ] = None
    ngpus_per_trial: Annotated[
        NumGpus | None,
        Option(
            "GPUs of a trial: 0 trains on the CPU, 0.5 lets two trials share a GPU.",
            "As many trials train at once as that leaves room for. None is one GPU, if there is any. On several GPUs a "
            "trial is data-parallel: see ``nprocs_per_trial``.",
            metavar="N",
            flags=("gpus",),
            may_change=True,
        ),
    ] = None
    nprocs_per_trial: Annotated[
        Count | None,
        Option(
            "Processes that train a trial together, each on a part of every batch.",
            "Each has a GPU of its own, or on CPUs a part of the trial's threads. The results are those of one process "
            "with the same batch size, up to rounding. None is one process for each GPU of ``ngpus_per_trial``.",
            metavar="N",
            flags=("procs",),
            may_change=True,
        ),
    ] = None
    executor: Annotated[
        str | Executor,
        _named(EXECUTORS),
        Option(
            "Where trials run: inline (in this process), process (in one that may crash), ray or auto.",
            '"auto" is inline for a single trial and for time limits below 90 s, else process. "ray" is a Ray cluster, '
            "with as many workers as it has room for (extra `ray`). Or an instance of `saccade.executor.Executor`, "
            "whose workers stay alive. Only a process can end a trial that hangs.",
            metavar="NAME",
            may_change=True,
        ),
    ] = "auto"
    address: Annotated[
        str | None,
        Option(
            "Ray cluster: host:6379, ray://host:10001, or auto for one that runs on this machine.",
            "None is the cluster of the variable RAY_ADDRESS, or one that runs on this machine, or else one that is "
            'started. With an address, the executor "auto" is "ray".',
            metavar="ADDRESS",
            may_change=True,
        ),
    ] = None
    max_workers: Annotated[
        Count | None,
        Option(
            "Maximum number of trials that train at once on a Ray cluster.",
            "None: as many as the cluster has room for; an autoscaler is asked for more while all are busy.",
            metavar="N",
            may_change=True,
        ),
    ] = None
    callbacks: Annotated[
        list[Any],
        BeforeValidator(check_callbacks),
        Option(
            "Trackers that record the run: csv, mlflow, tensorboard, trackio, wandb.",
            "Names, instances of `saccade.study.trackers.Tracker`, or functions of one event. An exception of one is a "
            "warning and does not end the run.",
            metavar="NAME[,NAME...]",
            flags=("track", "tracker"),
            may_change=True,
        ),
        Kind("a list of trackers, functions and names", _split),
    ] = Field(default_factory=list)
    warm_start: Annotated[
        bool,
        Option(
            "Continue from this predictor's network and best hyperparameters.",
            "With a new class, the classes are those of `train_data`, and the classifier layer is fitted anew; with "
            "fewer classes it is kept. `add_classes` keeps the earlier classes without their images.",
            is_in_cli=False,
            is_in_file=False,
        ),
        Kind("True or False"),
    ] = False
    resume: Annotated[
        bool,
        Option(
            "Resume the interrupted run in the run folder; start one if there is none.",
            "All other arguments must be those of that run, except for `time_limit` (of the whole run: earlier "
            "sessions count), `verbosity`, and where trials run. A finished run is loaded.",
            is_in_file=False,
            is_in_record=False,
        ),
        Kind("True or False"),
    ] = False
    overwrite: Annotated[
        bool,
        Option(
            "Replace the run in the run folder, as soon as the new run has a predictor.",
            "Files that are not the run's stay. Without it, a folder with a run is refused.",
            is_in_file=False,
            is_in_record=False,
        ),
        Kind("True or False"),
    ] = False

    report: Annotated[
        bool | Literal["auto"],
        Option(
            "Write report.html into the run folder at the end; by default, unless the time limit is below 30 s.",
            "The time limit includes it, about 3 s; where time is short, parts of it are left out. If it cannot be "
            "written, a warning says so. `ImagePredictor.report` makes it later. An interrupted fit writes none.",
            may_change=True,
        ),
        Kind("'auto', True or False", None, "auto, true or false"),
    ] = "auto"

    @field_validator("time_limit", "trial_time_limit", "random_state", "ensemble")
    @classmethod
    def _simplified(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name == "random_state" and value is None:
            return secrets.randbelow(2**31)  # drawn here, so that the run folder has it
        if info.field_name == "ensemble":
            return False if type(value) is int and value == 1 else value
        return None if value == math.inf else value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Refuse options that contradict each other."""
        if self.scheduler_options:
            make_scheduler(self.scheduler, **self.scheduler_options)
        if self.starting_configs and "starting_configs" in self.searcher_options:
            raise HyperparameterError("starting_configs given twice: as an option of its own and in searcher_options")
        if self.resume and self.overwrite:
            raise HyperparameterError(
                "resume=True continues the run in the run folder, and overwrite=True replaces it. Remove one of them"
            )
        num_gpus = self.ngpus_per_trial
        if num_gpus and self.nprocs_per_trial is not None and self.nprocs_per_trial > max(1, num_gpus):
            raise HyperparameterError(
                f"nprocs_per_trial={self.nprocs_per_trial} exceeds ngpus_per_trial={num_gpus:g}, and each process "
                "trains on a GPU of its own. Increase ngpus_per_trial, or leave it out"
            )
        costs = cost_names(self.objectives)
        if self.ensemble not in ("auto", False):
            asked = f"ensemble={self.ensemble}"
            if self.refit_full:
                raise HyperparameterError(
                    f"refit_full=True is not supported together with {asked}: no validation images are left to select "
                    "with. Remove one of them"
                )
            if costs:
                raise HyperparameterError(
                    f"objectives={self.objectives} is not supported together with {asked}: costs are those of single "
                    "networks. Remove one of them"
                )
        others = {"refit_full=True": self.refit_full, f"num_folds={self.num_folds}": self.num_folds is not None}
        if self.distill and (other := [*[name for name, is_given in others.items() if is_given], *costs]):
            raise HyperparameterError(
                f"distill=True (also of presets='fast_inference') is not supported together with {other[0]}: the "
                "student is one network, validated on the validation images. Remove it, or pass distill=False"
            )
        if self.num_folds is not None:
            self._check_folds(self.num_folds)
        return self

    def _check_folds(self, num_folds: int) -> None:
        asked = f"num_folds={num_folds}"
        if self.unlabeled is not None:
            raise HyperparameterError(
                f"{asked} is not supported together with unlabeled=…: propagated labels, which depend on all images, "
                "would be in the folds that evaluate. Remove one of them"
            )
        if self.time is not None:
            raise HyperparameterError(
                f"{asked} is not supported together with time=…: folds would be trained on images that are later than "
                "those that evaluate them. Remove one of them"
            )
        if self.refit_full:
            raise HyperparameterError(f"{asked} already trains on all images. Remove refit_full=True")
        if self.warm_start:
            raise HyperparameterError(
                f"{asked} is not supported together with warm_start=True: the network was trained on images that the "
                "folds hold out. Remove one of them"
            )
        if cost_names(self.objectives):
            raise HyperparameterError(
                f"{asked} is not supported together with objectives={self.objectives}, which select among single "
                "networks. Remove one of them"
            )
        if self.max_members == 1:
            raise HyperparameterError(
                f"{asked} averages the predictions of {num_folds} networks, and ensemble=False keeps one. Remove one "
                "of them; refit_full=True trains one network on all images"
            )
        if type(self.ensemble) is int and self.ensemble < num_folds:
            raise HyperparameterError(
                f"{asked} trains {num_folds} networks, and ensemble={self.ensemble} allows fewer. Pass "
                f"num_folds={self.ensemble}, or remove ensemble={self.ensemble}"
            )

    @property
    def limit_s(self) -> float | None:
        """The time limit in seconds; None means no limit."""
        return AUTO_TIME_LIMIT_S if isinstance(self.time_limit, str) else self.time_limit

    @property
    def limits(self) -> dict[str, float]:
        """The limits of the predictor's costs by name."""
        return speed_limits(self.min_images_per_s, self.max_latency_ms)

    @property
    def max_members(self) -> int:
        """The maximum number of networks whose predictions are averaged; 1 keeps the best one alone."""
        if self.refit_full or cost_names(self.objectives) or self.ensemble is False:
            return 1
        return self.ensemble if type(self.ensemble) is int else AUTO_MEMBERS

    @property
    def trains_once(self) -> bool:
        """Whether hyperparameters are given, but no space, limit or option of a search: then one trial is trained."""
        of_search = [name for name, option in options_of(type(self)) if option.is_for_search]
        others = {name: getattr(self, name) for name in ("time_limit", "presets", "ensemble", *of_search)}
        fields = type(self).model_fields
        is_search = any(value != fields[name].get_default(call_default_factory=True) for name, value in others.items())
        return bool(self.hyperparameters) and not is_search and Dict(self.hyperparameters).num_configurations == 1

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    @classmethod
    def of(cls, arguments: Mapping[str, Any], label: Callable[[str], str] | None = None) -> Self:
        """Return validated options; `hyperparameter_tune_kwargs` among the `arguments` may hold those of the search.

        `label` names an option in error messages, for a command line or file, whose texts are parsed; None: its own
        name.
        """
        values = dict(arguments)
        for_search = [name for name, option in options_of(cls) if option.is_for_search]
        nested = _as_dict(values.pop("hyperparameter_tune_kwargs", None))
        if not isinstance(nested, Mapping):
            raise HyperparameterError(f"hyperparameter_tune_kwargs was given {nested!r}; expected a dict")
        for kind, given, known, others in (
            (cls.call, values, [*cls.model_fields], cls.named),
            ("key of hyperparameter_tune_kwargs", nested, for_search, ()),
        ):
            for name in given:
                if name not in known:
                    raise UnknownArgumentError.of(kind, name, [*known, *others], elsewhere=places_of_arguments())
        if twice := sorted(values.keys() & nested.keys()):
            raise HyperparameterError(f"{', '.join(twice)} given twice: to fit() and in hyperparameter_tune_kwargs")
        values.update(nested)
        parsed = {name: cls.parse(name, value) for name, value in values.items() if label and isinstance(value, str)}
        try:
            return cls(**{**values, **parsed})
        except ValidationError as error:
            details = error.errors(include_url=False)
            for detail in details:
                if isinstance(ours := detail.get("ctx", {}).get("error"), SaccadeError):
                    raise ours from None
            problems = [
                f"{label(name) if label else name} was given {values[name]!r}; "
                f"expected {cls.expected(name, is_text=label is not None)}"
                for name in dict.fromkeys(str(detail["loc"][0]) for detail in details)
            ]
            raise HyperparameterError(". ".join(problems)) from None

    def with_defaults(self, defaults: Mapping[str, Any]) -> Self:
        """Return the options with a preset's defaults, except for those that contradict these options."""
        given = {name: value for name, value in self.given.items() if (name, value) != ("time_limit", "auto")}
        wants_one_network = self.refit_full or bool(cost_names(self.objectives))
        fitting = {
            name: value
            for name, value in defaults.items()
            if name != "ensemble" or not (self.num_folds or (wants_one_network and value is not False))
        }
        return type(self).of({**fitting, **given})

    def to_json(self) -> dict[str, Any]:
        """Return what ``run.json`` records; only a ``repr`` of the user's own objects."""
        record = {}
        for name, option in options_of(type(self)):
            value = getattr(self, name)
            if option.is_path and value is not None:
                value = str(Path(value).expanduser().absolute())
            if name == "callbacks":  # a resumed run makes them again by their names
                value = [one for one in value if isinstance(one, str)]
            if option.is_in_record:
                # Workers of an instance are gone when the run is resumed.
                record[name] = to_json_value("auto" if isinstance(value, Executor) else value)
        return record

    @classmethod
    def expected(cls, name: str, is_text: bool = False) -> str:
        """Return a description of the values of an option, for error messages."""
        field = cls.model_fields[name]
        texts: list[str] = []
        own = _last(Kind, field.metadata)
        for part in _alternatives(field.annotation):
            if kind := own or _last(Kind, get_args(part)):
                texts.append((is_text and kind.text) or kind.expected)
            elif get_origin(part) is Literal:
                texts += [choice if is_text else repr(choice) for choice in get_args(part)]
            else:
                texts.append({NoneType: "none" if is_text else "None", str: "text"}.get(part, part.__name__))
        texts = list(dict.fromkeys(texts))
        return ", or ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)

    @classmethod
    def parse(cls, name: str, text: str) -> Any:
        """Return the value that text of a command line or file stands for; other text is returned as it is."""
        field = cls.model_fields[name]
        alternatives = _alternatives(field.annotation)
        kinds = [_last(Kind, metadata) for metadata in (field.metadata, *map(get_args, alternatives))]
        parse = next((kind.parse for kind in kinds if kind and kind.parse), None)
        if parse is None:
            return text
        if NoneType in alternatives and text.strip().lower() == "none":
            return None
        try:
            return parse(text)
        except HyperparameterError:
            return text


def places_of_arguments() -> dict[str, str]:
    """Return a sentence for each name that belongs in another place than the call that it was given to."""
    from saccade.training.recipes.recipe import ALIASES, Recipe  # lazily: it imports torch

    made = ("label", "problem_type", "eval_metric", "path", "verbosity", "sample_weight")
    fields = ["train_data", "tuning_data", *FitOptions.named, *FitOptions.model_fields]
    return {
        **{name: f"Pass it in hyperparameters={{{name!r}: …}}." for name in (*Recipe.model_fields, *ALIASES)},
        **{name: f"{name!r} is an argument of fit()." for name in fields},
        **{name: f"{name!r} is an argument of the constructor: ImagePredictor({name}=…)." for name in made},
    }


def options_of(model: type[BaseModel]) -> list[tuple[str, Option]]:
    """Return the fields of a model that are options, with what they declare, in order."""
    found = [(name, _last(Option, field.metadata)) for name, field in model.model_fields.items()]
    return [(name, option) for name, option in found if option]


def option_flag(model: type[BaseModel], name: str) -> str:
    """Return the name of an option on the command line and in TOML files, without dashes."""
    return (dict(options_of(model))[name].flags or (name,))[0]


def option_rows(model: type[BaseModel] = FitOptions) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and description of each option, for documentation."""
    return [
        (
            name,
            _type_text(model.model_fields[name].annotation),
            repr(model.model_fields[name].get_default(call_default_factory=True)),
            f"{option.summary} {option.details}".strip(),
        )
        for name, option in options_of(model)
    ]


def document_options(function: _Function, model: type[BaseModel] = FitOptions) -> _Function:
    """Replace the entry ``**kwargs`` of a docstring by the options."""

    def entry(found: re.Match[str]) -> str:
        lines = []
        for name, type_text, default, description in option_rows(model):
            text = textwrap.fill(description, 116 - len(found[1]))
            lines.append(f"{name} : {type_text}, default {default}\n{textwrap.indent(text, '    ')}\n")
        return textwrap.indent("".join(lines), found[1])

    function.__doc__ = re.sub(r"^( *)\*\*kwargs\n(?:\1 +.*\n)+", entry, function.__doc__ or "", flags=re.MULTILINE)
    return function


def _last(kind: type[_T], metadata: Iterable[Any]) -> _T | None:
    return next((part for part in reversed(tuple(metadata)) if isinstance(part, kind)), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _joined(texts: list[str]) -> str:
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


def _type_text(annotation: Any) -> str:
    """Return an annotation in the words of numpydoc."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if len(alternatives := _alternatives(annotation)) > 1:
        return _joined([_type_text(part) for part in alternatives])
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is Literal:
        return _joined([f'"{choice}"' for choice in arguments])
    if origin is list:
        return f"list of {_type_text(arguments[0])}"
    return "None" if annotation is NoneType else (origin or annotation).__name__
