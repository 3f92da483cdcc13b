"""A predictor on disk: one folder of safetensors and JSON, movable, loadable anywhere, and never any code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from saccade._version import __version__
from saccade.errors import SavedPredictorError
from saccade.inference.average import weighted_mean
from saccade.inference.classifier import Blueprint, Classifier, empty_classifier
from saccade.inference.postprocessing import Trust
from saccade.models.custom import CustomObject
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.problem import Problem

DESCRIPTION, WEIGHTS = "predictor.json", "weights.safetensors"
PREDICTOR_FOLDER = "predictor"
"""Where a run folder keeps its predictor."""

CHOICES_FOLDER = "choices"
"""Where it keeps the weights of what else may be chosen, named for their trials."""

MEMBERS_FOLDER = "members"
"""Where it keeps the weights of the members of an ensemble, but for the first."""

FORMAT = 2
"""The newest format that is read. A predictor of one network is written in format 1, which lacks nothing of it."""


@dataclass(frozen=True)
class Member:
    """A network of a predictor.

    Attributes
    ----------
    trial : int
        The trial that trained it.
    blueprint : Blueprint
        What it is.
    weights : str
        The file of its weights in the predictor's folder.
    weight : float
        How much its predictions count: more than 0; those of all members sum to 1.
    soup : list of int
        In predictors of earlier versions, the trials whose weights were averaged; otherwise empty.
    amp : bool or None
        As in `saccade.training.recipes.recipe.Recipe`.
    """

    trial: int
    blueprint: Blueprint
    weights: str = WEIGHTS
    weight: float = 1.0
    soup: list[int] = field(default_factory=list)
    amp: bool | None = None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Member:
        """Return the member whose `dataclasses.asdict` was written."""
        return cls(**{**record, "blueprint": Blueprint.from_json(record["blueprint"])})


@dataclass(frozen=True)
class Choice:
    """A trial on the Pareto front of a search with several objectives.

    Attributes
    ----------
    trial : int
        Its number.
    costs : dict
        What its network costs, by the name of the figure: ``latency_ms``, ``num_params``, ``num_bytes``.
    blueprint : Blueprint
        The network.
    summary : dict
        What is different in the summary of a predictor of this trial.
    weights : str
        The file in the predictor's folder.
    trust : Trust
        As in `SavedPredictor`.
    """

    trial: int
    costs: dict[str, float]
    blueprint: Blueprint
    summary: dict[str, Any]
    weights: str = WEIGHTS
    trust: Trust = field(default_factory=Trust)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**asdict(self), "trust": self.trust.to_json()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Choice:
        """Return the choice that `to_json` wrote."""
        blueprint, trust = Blueprint.from_json(record["blueprint"]), Trust.from_json(record.get("trust", {}))
        return cls(**{**record, "blueprint": blueprint, "trust": trust})


@dataclass(frozen=True)
class SavedPredictor:
    """What a fitted predictor consists of; the weights stay on disk until they are used.

    Attributes
    ----------
    folder : Path
        The folder with the files `DESCRIPTION` and `WEIGHTS`.
    label : str or list of str
        The label column's name, or several, each of 0 and 1.
    problem : Problem
        What is predicted.
    blueprint : Blueprint
        The network.
    metric : str
        The name of the figure that chose it.
    eval_metric : str or None
        The name under which the user asked for it; None for the default, and for a function of the user's own.
    class_names : list of str or None
        Names behind integer labels, as the training data gave them.
    summary : dict
        What `ImagePredictor.fit_summary` returns.
    trials : list of dict
        Rows of the leaderboard.
    net : CustomObject or None
        The user's own network; it is never written, and `with_network` brings it back.
    choices : list of Choice
        What `ImagePredictor.choose` may choose from, the highest score first; empty where the score alone counts.
    weights : str
        The file of the weights in the folder.
    members : list of Member
        The networks whose predictions are averaged, the one with the highest score first; `blueprint` and `weights` are
        those of this one, which stands for all where one network is needed, as for features. Usually it is the only
        one.
    trust : Trust
        What corrects the mean of their predictions, and tells how sure it is.
    """

    folder: Path
    label: str | list[str]
    problem: Problem
    blueprint: Blueprint
    metric: str
    eval_metric: str | None
    class_names: list[str] | None
    summary: dict[str, Any]
    trials: list[dict[str, Any]]
    net: CustomObject | None = None
    choices: list[Choice] = field(default_factory=list)
    weights: str = WEIGHTS
    members: list[Member] = field(default_factory=list)
    trust: Trust = field(default_factory=Trust)

    def __post_init__(self) -> None:
        if not self.members:
            amp = self.summary.get("best_config", {}).get("amp")
            only = Member(self.summary.get("best_trial", 0), self.blueprint, self.weights, amp=amp)
            object.__setattr__(self, "members", [only])

    @property
    def own_network(self) -> str | None:
        """What the network of the user's own among the members is called; None where there is none."""
        return next((member.blueprint.own for member in self.members if member.blueprint.architecture is None), None)

    @property
    def names_of_classes(self) -> list[str]:
        """The name of each class: its folder's, where labels are numbers; else the label as text."""
        classes = self.problem.classes
        if self.class_names and all(isinstance(label, int) for label in classes):
            return [self.class_names[int(label)] for label in classes]
        return [str(label) for label in classes]

    @property
    def weights_path(self) -> Path:
        """The file of the weights."""
        return self.folder / self.weights

    def write(self, weights: Mapping[str, Path]) -> None:
        """Write the folder, with copies of the files of weights by the names that they have here."""
        for name, path in weights.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self.folder / name)
        record = {
            "format": FORMAT if len(self.members) > 1 else 1,
            "saccade": __version__,
            "label": self.label,
            "problem": self.problem.to_json(),
            "blueprint": self.blueprint.to_json(),
            "metric": self.metric,
            "eval_metric": self.eval_metric,
            "class_names": self.class_names,
            "summary": self.summary,
            "trials": self.trials,
            "choices": [choice.to_json() for choice in self.choices],
            "members": [asdict(member) for member in self.members],
            "trust": self.trust.to_json(),
        }
        text = json.dumps(record, indent=2, default=repr) + "\n"
        (self.folder / DESCRIPTION).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> SavedPredictor:
        """Read a saved predictor's folder, or the one in a run folder.

        Raises
        ------
        SavedPredictorError
            When there is none, or it is damaged, or of a newer format.
        """
        folder = _predictor_folder(Path(path))
        try:
            record = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            if record["format"] > FORMAT:
                raise SavedPredictorError(
                    f"{folder} was saved by saccade {record['saccade']} in a newer format "
                    f"({record['format']}; this version reads up to {FORMAT}); update saccade"
                )
            return cls(
                folder,
                record["label"],
                Problem.from_json(record["problem"]),
                Blueprint.from_json(record["blueprint"]),
                record["metric"],
                record["eval_metric"],
                record["class_names"],
                record["summary"],
                record["trials"],
                choices=[Choice.from_json(choice) for choice in record.get("choices", [])],
                members=[Member.from_json(member) for member in record.get("members", [])],
                trust=Trust.from_json(record.get("trust", {})),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise SavedPredictorError(f"{folder / DESCRIPTION} is damaged ({type(error).__name__}: {error})") from None

    def copy_to(self, folder: Path) -> SavedPredictor:
        """Write another copy, and return it.

        Raises
        ------
        SavedPredictorError
            When the folder holds something else.
        """
        if folder.resolve() == self.folder.resolve():
            if self.weights != WEIGHTS:
                raise SavedPredictorError(
                    f"{folder} holds the predictor that this one was chosen from; name another folder"
                )
            return self
        if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise SavedPredictorError(f"{folder} exists and is no saved predictor; name an empty or a new folder")
        first, *others = self.members
        copy = replace(self, folder=folder, weights=WEIGHTS, members=[replace(first, weights=WEIGHTS), *others])
        files = [*(choice.weights for choice in self.choices), *(member.weights for member in others)]
        copy.write({**{name: self.folder / name for name in files}, WEIGHTS: self.weights_path})
        return copy

    def chosen(self, choice: Choice) -> SavedPredictor:
        """Return the predictor of another trial; its weights stay where they are until it is saved."""
        model = choice.summary["best_config"].get("model")
        return replace(
            self,
            blueprint=choice.blueprint,
            summary={**self.summary, **choice.summary},
            net=model if isinstance(model, CustomObject) else None,
            choices=[],
            weights=choice.weights,
            members=[],
            trust=choice.trust,
        )

    def with_network(self, net: Any) -> SavedPredictor:
        """Return the predictor with the network of the user's own that its weights belong to.

        Raises
        ------
        SavedPredictorError
            When it needs one and gets none, or gets one that it does not need.
        """
        if self.own_network is None:
            if net is not None:
                raise SavedPredictorError(
                    f"{self.folder} holds the network {self.blueprint.architecture!r}; load it without net=…"
                )
            return self
        if not callable(net):
            given = "" if net is None else f", not net={net!r:.60}"
            raise SavedPredictorError(
                f"{self.folder} holds the weights of a network of your own, {self.own_network!r}, and no code is "
                "saved with a predictor; load it by ImagePredictor.load(path, net=…) with the same module, or with the "
                f"function or class that makes it of the number of classes{given}"
            )
        own = CustomObject(net)
        if self.blueprint.architecture is not None:  # it is another member
            return replace(self, net=own)
        config = {**self.summary["best_config"], "model": own}
        return replace(self, net=own, summary={**self.summary, "best_config": config})

    def classifier(self) -> Classifier:
        """Build the network, the first of several, with its weights on the best device here, wherever it was trained.

        Raises
        ------
        SavedPredictorError
            When its weights cannot be loaded.
        """
        return self._classifier(self.members[0])

    def classifiers(self) -> list[Classifier]:
        """Do the same for all members; `averaged` makes one prediction of theirs."""
        return [self._classifier(member) for member in self.members]

    def predictions(self, of_members: Sequence[np.ndarray]) -> np.ndarray:
        """Return what this predictor says, of what its members do: their weighted mean, calibrated.

        Parameters
        ----------
        of_members : sequence of ndarray, each of shape (num_images, num_outputs)
            In the order of `members`.
        """
        return self.trust.calibration.apply(self.averaged(of_members), self.problem)

    def averaged(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """Return the weighted mean of what the members predict: of probabilities, or of numbers.

        Parameters
        ----------
        predictions : sequence of ndarray, each of shape (num_images, num_outputs)
            In the order of `members`.
        """
        return weighted_mean(predictions, [member.weight for member in self.members])

    def _classifier(self, member: Member) -> Classifier:
        numerics = Numerics(choose_device())
        classifier = empty_classifier(member.blueprint, self.problem, numerics, self.net, member.amp)
        path = self.folder / member.weights
        try:
            classifier.network.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise SavedPredictorError(f"{path} cannot be loaded: {error}") from None
        return classifier


def _predictor_folder(path: Path) -> Path:
    for folder in (path, path / PREDICTOR_FOLDER):
        if (folder / DESCRIPTION).is_file():
            return folder
    what = "is no folder" if not path.is_dir() else f"holds no {DESCRIPTION}"
    raise SavedPredictorError(
        f"{path} {what}; expected a folder made by ImagePredictor.save(), or a run folder of a fit that has finished"
    )
