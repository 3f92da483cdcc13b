"""A predictor on disk: a movable folder of safetensors and JSON that contains no code."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from saccade._version import __version__
from saccade.checks import real_number
from saccade.data.earlier_split import EarlierSplit
from saccade.data.examples import Examples
from saccade.data.pixel_range import PixelRange
from saccade.errors import HyperparameterError, SavedPredictorError, explained_file_errors
from saccade.inference.classifier import Blueprint, Classifier, empty_classifier
from saccade.inference.description import check_postprocessing, load_weights, read_description
from saccade.inference.feature_bank import FEATURES, FeatureBank
from saccade.inference.postprocessing import Postprocessing
from saccade.models.custom import CustomObject
from saccade.models.weights import CHECKSUM
from saccade.numerics.device import Numerics
from saccade.study.objectives import COSTS, load
from saccade.study.run_folder import write_json_atomically
from saccade.study.trial_files import sync
from saccade.tasks.matching import match_classes, names_of_classes
from saccade.tasks.problem import Problem

DESCRIPTION, WEIGHTS = "predictor.json", "weights.safetensors"
SPLIT = "split.safetensors"  # the file with the `EarlierSplit` of the first member, for ``warm_start=True``
PREDICTOR_FOLDER = "predictor"  # the folder of the predictor in a run folder
CHOICES_FOLDER = "choices"  # the folder, in a predictor's, with the weights of the other trials that may be chosen

MEMBERS_FOLDER = "members"
"""The folder, in a predictor's, with the weights of the members of an ensemble after the first."""

INTERRUPTED = "interrupted"  # entry of the summary of a predictor whose run was interrupted, and can be resumed

FORMAT = 4
"""Version of `DESCRIPTION`. Formats 1 to 3 have no `SPLIT`, no "pixel_range" and no description of the result. Formats
1 and 2 repeat the first member's blueprint at the top level, have "trust" in the place of "postprocessing", and no
numerics; 1 may lack both "trust" and "members"."""


_PLAIN = ("label", "metric", "eval_metric", "class_names", "summary", "trials", "numerics", "pixel_range")
"""The fields of a `SavedPredictor` that are values of JSON."""


@dataclass(frozen=True)
class Member:
    """A network of a predictor."""

    trial: int  # that trained it
    blueprint: Blueprint
    weights: str = WEIGHTS  # the file of its weights, relative to the predictor's folder
    weight: float = 1.0  # of its predictions, positive; those of all members sum to 1
    soup: list[int] = field(default_factory=list)  # trials whose weights earlier versions averaged; otherwise empty
    amp: bool | None = None  # as in `saccade.training.recipes.recipe.Recipe`
    has_seen_val: bool = False  # whether it was fitted to the validation images as well, after the search

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Member:
        """Return the member whose `dataclasses.asdict` was written."""
        return cls(**{**record, "blueprint": Blueprint.from_json(record["blueprint"])})


@dataclass(frozen=True)
class Choice:
    """A trial on the Pareto front of a search with several objectives; `weights` and others are as in `Member`."""

    trial: int
    costs: dict[str, float]  # of its network by name, as in `saccade.study.objectives.COSTS`
    blueprint: Blueprint
    summary: dict[str, Any]  # the entries of `ImagePredictor.fit_summary` that differ for this trial
    weights: str = WEIGHTS
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    has_seen_val: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**asdict(self), "postprocessing": self.postprocessing.to_json()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Choice:
        """Return the choice that `to_json` wrote, in any format."""
        record = dict(record)
        blueprint, postprocessing = Blueprint.from_json(record.pop("blueprint")), _postprocessing_of(record)
        return cls(**record, blueprint=blueprint, postprocessing=postprocessing)


def choose(choices: Sequence[Choice], limits: Mapping[str, float], min_score: float | None = None) -> Choice:
    """Return the choice with the highest score within the maximum `limits` of costs by name.

    With `min_score`, return the cheapest choice of at least this score instead. Raises a HyperparameterError if a limit
    is not a number, its cost is not an objective of the search, or no choice is within the limits.
    """
    for name, limit in [*limits.items(), *([] if min_score is None else [("min_score", min_score)])]:
        real_number(name, limit)
    known = list(choices[0].costs) if choices else []
    if missing := [name for name in limits if name not in known]:
        objective_of = {cost: objective for objective, cost in COSTS.items()}
        raise HyperparameterError(
            f"{', '.join(missing)} is not an objective of this search. Search with "
            f"objectives={['accuracy', *[objective_of[name] for name in (*known, *missing)]]}"
        )
    if not choices:
        raise HyperparameterError(
            "there is nothing to choose from: the search had one objective. Search with "
            "objectives=['accuracy', 'latency']"
        )
    fitting = [
        choice
        for choice in choices
        if load(choice.costs, limits) <= 1 and (min_score is None or choice.summary["valid_score"] >= min_score)
    ]
    if not fitting:
        listed = "\n".join(
            f"  trial {choice.trial}: score {choice.summary['valid_score']:.4f}, "
            + ", ".join(f"{name} {cost:,.4g}" for name, cost in choice.costs.items())
            for choice in choices
        )
        raise HyperparameterError(f"no trial is within these limits; the choices are:\n{listed}")
    if min_score is not None:
        return min(fitting, key=lambda choice: tuple(choice.costs.values()))
    return max(fitting, key=lambda choice: choice.summary["valid_score"])


@dataclass(frozen=True)
class SavedPredictor:
    """The contents of a predictor's folder; the weights stay on disk until they are used."""

    folder: Path  # with the file `DESCRIPTION` and the files of weights
    label: str | list[str]  # the label column's name, or the names of several columns of 0 and 1
    problem: Problem
    metric: str  # used for model selection
    eval_metric: str | None  # its name as the user gave it; None for the default, and for a function
    class_names: list[str] | None  # names of integer labels, as the training data had them
    summary: dict[str, Any]  # what `ImagePredictor.fit_summary` returns
    trials: list[dict[str, Any]]  # rows of the leaderboard
    # The networks whose predictions are averaged, at least one, the one with the highest score first. Features and
    # explanations are those of the first one.
    members: list[Member]
    net: CustomObject | None = None  # the user's own network; never written, `with_network` sets it after loading
    # The Pareto front for `ImagePredictor.choose`, the highest score first; empty for searches with one objective.
    choices: list[Choice] = field(default_factory=list)
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    # The numerics of each member, for each kind of device (``"cpu"``, ``"cuda"``, ``"mps"``) that was warmed up.
    numerics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pixel_range: PixelRange | None = None  # of training images of more than 8 bits: see `saccade.data.pixel_range`

    @property
    def blueprint(self) -> Blueprint:
        """The blueprint of the first member."""
        return self.members[0].blueprint

    @property
    def weights_path(self) -> Path:
        """The file of the first member's weights."""
        return self.folder / self.members[0].weights

    @property
    def config(self) -> dict[str, Any]:
        """The hyperparameters of the first member's trial."""
        trial = self.members[0].trial
        of_best = self.summary.get("best_config", {})
        config = next((row["config"] for row in self.trials if row["trial"] == trial), of_best)
        is_own = self.blueprint.architecture is None and self.net is not None
        return {**config, "model": self.net} if is_own else dict(config)

    @property
    def result(self) -> str:
        """The networks and their score in one line, as `saccade.selection.summary.result_summary` describes them."""
        if "result" in self.summary:
            return str(self.summary["result"])
        score = self.summary.get("valid_score")  # of earlier versions
        return f"trial {self.members[0].trial}" + ("" if score is None else f", score {score:.4g}")

    @property
    def earlier_split(self) -> EarlierSplit | None:
        """The images that the first member was fitted to; None for predictors of earlier versions."""
        split = EarlierSplit.load(self.folder / SPLIT)
        return split.fitted_also_to(split.held_out) if split and self.members[0].has_seen_val else split

    @property
    def features(self) -> FeatureBank | None:
        """The stored features of the first member; None for predictors without them. Raises a SavedPredictorError."""
        return FeatureBank.load(self.folder, self.features_key)

    @property
    def features_key(self) -> str:
        """The checksum of the first member's weights, by which `features` belong to them."""
        try:
            with safe_open(self.weights_path, "pt") as file:
                return str((file.metadata() or {}).get(CHECKSUM, ""))
        except (SafetensorError, OSError) as error:
            raise SavedPredictorError(f"{self.weights_path} cannot be loaded: {error}") from None

    @property
    def trial_weights(self) -> dict[int, float]:
        """The weight of each trial's networks in the mean of predictions."""
        weights: dict[int, float] = {}
        for member in self.members:
            weights[member.trial] = weights.get(member.trial, 0.0) + member.weight
        return weights

    @property
    def own_network(self) -> str | None:
        """The name of the user's own network among the members; None if there is none."""
        return next((member.blueprint.own for member in self.members if member.blueprint.architecture is None), None)

    @property
    def names_of_classes(self) -> list[str]:
        """The name of each class: its folder's name for numbered classes, else the label as text."""
        return names_of_classes(self.problem.classes, self.class_names)

    def match_classes(self, examples: Examples) -> Examples:
        """Return labelled images in this predictor's classes, matched by name; a DataError lists differences."""
        return match_classes(examples, self.problem, self.class_names, "the data", "the predictor")

    def write(self, writers: Mapping[str, Callable[[Path], object]]) -> SavedPredictor:
        """Write the folder and return the predictor in it; at whatever instant that fails, an earlier one stays whole.

        `writers` write the files that `members` and `choices` name, and `SPLIT`, to the paths that they are given. New
        files do not replace those of an earlier predictor: the description, which names them, is replaced last.
        """
        folder = self.folder
        with explained_file_errors(folder, SavedPredictorError):
            folder.mkdir(parents=True, exist_ok=True)
            names = {name: f"{SPLIT}.part" if name == SPLIT else _free_name(folder, name) for name in writers}
            try:
                for name, write in writers.items():
                    path = folder / names[name]
                    path.parent.mkdir(exist_ok=True)
                    write(path)
                    sync(path)
                members = [replace(one, weights=names.get(one.weights, one.weights)) for one in self.members]
                choices = [replace(one, weights=names.get(one.weights, one.weights)) for one in self.choices]
                saved = replace(self, members=members, choices=choices)
                write_json_atomically(folder / DESCRIPTION, saved._description())
            except BaseException:
                for name in (*names.values(), f"{DESCRIPTION}.part"):
                    (folder / name).unlink(missing_ok=True)
                raise
            if writers:
                (folder / SPLIT).unlink(missing_ok=True)
            if SPLIT in writers:
                (folder / f"{SPLIT}.part").replace(folder / SPLIT)
            saved._remove_other_weights()
        return saved

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "saccade": __version__,
            "problem": self.problem.to_json(),
            **{name: getattr(self, name) for name in _PLAIN},
            "members": [asdict(member) for member in self.members],
            "choices": [choice.to_json() for choice in self.choices],
            "postprocessing": self.postprocessing.to_json(),
        }

    def _remove_other_weights(self) -> None:
        """Remove weights of an earlier predictor in the folder; files with other names are not touched."""
        used = {self.folder / one.weights for one in self.members} | {self.folder / one.weights for one in self.choices}
        for pattern in ("weights*", f"{MEMBERS_FOLDER}/[0-9]*", f"{CHOICES_FOLDER}/[0-9]*"):
            for path in set(self.folder.glob(f"{pattern}.safetensors")) - used:
                path.unlink()
        for name in (MEMBERS_FOLDER, CHOICES_FOLDER):
            with contextlib.suppress(OSError):  # it is in use, or does not exist
                (self.folder / name).rmdir()

    @classmethod
    def read(cls, path: str | Path) -> SavedPredictor:
        """Read a predictor's or a run folder; a SavedPredictorError if there is none, it is damaged, or newer."""
        places = [Path(path), Path(path) / PREDICTOR_FOLDER]
        folder = next((place for place in places if (place / DESCRIPTION).is_file()), None)
        if folder is None:
            reason = f"contains no {DESCRIPTION}" if Path(path).is_dir() else "is not a folder"
            expected = "expected a folder made by ImagePredictor.save(), or the run folder of a completed fit"
            raise SavedPredictorError(f"{path} {reason}; {expected}")
        record = read_description(folder / DESCRIPTION, FORMAT)
        try:
            if (found := record.get("pixel_range")) is not None:
                record["pixel_range"] = float(found[0]), float(found[1])
            members = [Member.from_json(member) for member in record.get("members", [])]
            if not members:  # of format 1
                best = record["summary"]
                trial, amp = best.get("best_trial", 0), best.get("best_config", {}).get("amp")
                members = [Member(trial, Blueprint.from_json(record["blueprint"]), amp=amp)]
            saved = cls(
                folder,
                problem=Problem.from_json(record["problem"]),
                members=members,
                choices=[Choice.from_json(choice) for choice in record.get("choices", [])],
                postprocessing=_postprocessing_of(record),
                **{name: record[name] for name in _PLAIN if name in record},
            )
            for part in (saved.postprocessing, *(choice.postprocessing for choice in saved.choices)):
                check_postprocessing(part, saved.problem)
            if any(len(records) != len(saved.members) for records in saved.numerics.values()):
                raise ValueError("numerics and members do not match")
            networks = [one.blueprint for one in saved.members] + [one.blueprint for one in saved.choices]
            if not all(network.name for network in networks):
                raise ValueError("a network has no name")
            _ = saved.names_of_classes
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise SavedPredictorError(
                f"{folder / DESCRIPTION} is damaged ({type(error).__name__}: {str(error)[:200]}). Restore a copy, or "
                "save again"
            ) from None
        return saved

    def copy_to(self, folder: Path) -> SavedPredictor:
        """Write a copy to another, empty folder and return it; in the predictor's own folder, update numerics."""
        if folder.resolve() == self.folder.resolve():
            found = SavedPredictor.read(folder)
            if [one.weights for one in found.members] != [one.weights for one in self.members]:
                raise SavedPredictorError(
                    f"{folder} contains the predictor that this one was chosen from; pass another folder"
                )
            return self if found.numerics == self.numerics else self.write({})
        with explained_file_errors(folder, SavedPredictorError):
            is_other = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if is_other and not (folder / DESCRIPTION).is_file():
            raise SavedPredictorError(f"{folder} exists and is no saved predictor; pass an empty or a new folder")
        names = {one.weights: f"{CHOICES_FOLDER}/{one.trial:04d}.safetensors" for one in self.choices}
        names |= {one.weights: f"{MEMBERS_FOLDER}/{place:04d}.safetensors" for place, one in enumerate(self.members)}
        names[self.members[0].weights] = WEIGHTS
        copy = replace(
            self,
            folder=folder,
            members=[replace(one, weights=names[one.weights]) for one in self.members],
            choices=[replace(one, weights=names[one.weights]) for one in self.choices],
        )
        files = {new: self.folder / old for old, new in names.items()}
        if (self.folder / SPLIT).is_file():
            files[SPLIT] = self.folder / SPLIT
        for file in files.values():
            if not file.is_file():
                raise SavedPredictorError(f"{file} is missing, or not a regular file; the predictor cannot be saved")
        copy = copy.write({name: partial(shutil.copyfile, file) for name, file in files.items()})
        if (self.folder / FEATURES).is_file():
            shutil.copyfile(self.folder / FEATURES, folder / FEATURES)
        return copy

    def chosen(self, choice: Choice) -> SavedPredictor:
        """Return the predictor of one of the `choices`; its weights stay in this folder until it is saved."""
        chosen = replace(
            self,
            summary={**self.summary, **choice.summary},
            net=None,
            choices=[],
            members=[Member(choice.trial, choice.blueprint, choice.weights, has_seen_val=choice.has_seen_val)],
            postprocessing=choice.postprocessing,
            numerics={},
        )
        model, amp = (chosen.config.get(name) for name in ("model", "amp"))
        net = model if isinstance(model, CustomObject) else None
        return replace(chosen, net=net, members=[replace(chosen.members[0], amp=amp)])

    def with_network(self, net: Any) -> SavedPredictor:
        """Return the predictor with the user's own network; a SavedPredictorError if it lacks one or needs none."""
        if self.own_network is None:
            if net is not None:
                raise SavedPredictorError(
                    f"{self.folder} contains the network {self.blueprint.architecture!r}; load it without net=…"
                )
            return self
        if not callable(net):
            given = "" if net is None else f", not net={net!r:.60}"
            raise SavedPredictorError(
                f"{self.folder} contains the weights of a network of your own, {self.own_network!r}, but no code; "
                "load it by ImagePredictor.load(path, net=…) with the same module, or with the function or class that "
                f"makes it of the number of classes{given}"
            )
        return replace(self, net=CustomObject(net))

    def classifier(self, member: Member, numerics: Numerics) -> Classifier:
        """Build the network of a member; a SavedPredictorError if its weights cannot be loaded."""
        classifier = empty_classifier(member.blueprint, self.problem, numerics, self.net, member.amp)
        load_weights(classifier.network, self.folder / member.weights)
        return classifier


def _postprocessing_of(record: dict[str, Any]) -> Postprocessing:
    """Take the postprocessing out of a record; it is called "trust" in formats 1 and 2."""
    old = record.pop("trust", {})
    return Postprocessing.from_json(record.pop("postprocessing", old))


def _free_name(folder: Path, name: str) -> str:
    """Return the name of a file that does not exist yet: with -1, -2 and so on before its suffix, if necessary."""
    stem, suffix = name.rsplit(".", 1)
    numbered = (f"{stem}-{number}.{suffix}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], numbered) if not (folder / each).exists())
