"""A predictor on disk: one folder of safetensors and JSON, movable, loadable anywhere, and never any code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from saccade._version import __version__
from saccade.errors import SavedPredictorError
from saccade.training.classifier import Blueprint, Classifier, empty_classifier
from saccade.training.device import Numerics, choose_device
from saccade.training.own_parts import OwnPart
from saccade.training.problem import Problem

DESCRIPTION, WEIGHTS = "predictor.json", "weights.safetensors"
PREDICTOR_FOLDER = "predictor"
"""Where a run folder keeps its predictor."""

CHOICES_FOLDER = "choices"
"""Where it keeps the weights of what else may be chosen, named for their trials."""

FORMAT = 1


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
    """

    trial: int
    costs: dict[str, float]
    blueprint: Blueprint
    summary: dict[str, Any]
    weights: str = WEIGHTS

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Choice:
        """Return the choice whose `dataclasses.asdict` was written."""
        return cls(**{**record, "blueprint": Blueprint.from_json(record["blueprint"])})


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
    net : OwnPart or None
        The user's own network; it is never written, and `with_network` brings it back.
    choices : list of Choice
        What `ImagePredictor.choose` may choose from, the highest score first; empty where the score alone counts.
    weights : str
        The file of the weights in the folder.
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
    net: OwnPart | None = None
    choices: list[Choice] = field(default_factory=list)
    weights: str = WEIGHTS

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
            "format": FORMAT,
            "saccade": __version__,
            "label": self.label,
            "problem": self.problem.to_json(),
            "blueprint": self.blueprint.to_json(),
            "metric": self.metric,
            "eval_metric": self.eval_metric,
            "class_names": self.class_names,
            "summary": self.summary,
            "trials": self.trials,
            "choices": [asdict(choice) for choice in self.choices],
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
        copy = replace(self, folder=folder, weights=WEIGHTS)
        others = {choice.weights: self.folder / choice.weights for choice in self.choices}
        copy.write({**others, WEIGHTS: self.weights_path})
        return copy

    def chosen(self, choice: Choice) -> SavedPredictor:
        """Return the predictor of another trial; its weights stay where they are until it is saved."""
        model = choice.summary["best_config"].get("model")
        return replace(
            self,
            blueprint=choice.blueprint,
            summary={**self.summary, **choice.summary},
            net=model if isinstance(model, OwnPart) else None,
            choices=[],
            weights=choice.weights,
        )

    def with_network(self, net: Any) -> SavedPredictor:
        """Return the predictor with the network of the user's own that its weights belong to.

        Raises
        ------
        SavedPredictorError
            When it needs one and gets none, or gets one that it does not need.
        """
        if self.blueprint.architecture is not None:
            if net is not None:
                raise SavedPredictorError(
                    f"{self.folder} holds the network {self.blueprint.architecture!r}; load it without net=…"
                )
            return self
        if not callable(net):
            given = "" if net is None else f", not net={net!r:.60}"
            raise SavedPredictorError(
                f"{self.folder} holds the weights of a network of your own, {self.blueprint.own!r}, and no code is "
                "saved with a predictor; load it by ImagePredictor.load(path, net=…) with the same module, or with the "
                f"function or class that makes it of the number of classes{given}"
            )
        own = OwnPart(net)
        config = {**self.summary["best_config"], "model": own}
        return replace(self, net=own, summary={**self.summary, "best_config": config})

    def classifier(self) -> Classifier:
        """Build the network and load its weights onto the best device here, wherever they were trained."""
        classifier = empty_classifier(self.blueprint, self.problem, Numerics(choose_device()), self.net)
        try:
            classifier.network.load_state_dict(load_file(self.weights_path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise SavedPredictorError(f"{self.weights_path} cannot be loaded: {error}") from None
        return classifier


def _predictor_folder(path: Path) -> Path:
    for folder in (path, path / PREDICTOR_FOLDER):
        if (folder / DESCRIPTION).is_file():
            return folder
    what = "is no folder" if not path.is_dir() else f"holds no {DESCRIPTION}"
    raise SavedPredictorError(
        f"{path} {what}; expected a folder made by ImagePredictor.save(), or a run folder of a fit that has finished"
    )
