"""A predictor on disk: a movable folder of safetensors and JSON that contains no code."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from saccade.data.earlier_split import EarlierSplit
from saccade.data.examples import Examples
from saccade.errors import DataWarning, JournalError, SavedPredictorError, explained_file_errors
from saccade.inference.classifier import Blueprint, Classifier, empty_classifier, load_weights
from saccade.inference.description import WEIGHTS, Choice, Description, Member
from saccade.inference.feature_bank import FEATURES, FeatureBank
from saccade.inference.validation import VALIDATION, ValidationRecord
from saccade.models.loading import AllocationLimit
from saccade.models.network import CustomObject
from saccade.models.weights import CHECKSUM
from saccade.numerics.device import Numerics
from saccade.study.event_log import EventLog, copy_events
from saccade.study.run_folder import write_json_atomically
from saccade.study.trial_files import sync
from saccade.tasks.matching import match_classes

DESCRIPTION = "predictor.json"
SPLIT = "split.safetensors"  # the file with the `EarlierSplit` of the first member, for ``warm_start=True``
HISTORY = "history.jsonl"  # the events of the run, as in its event log; the report shows them
PREDICTOR_FOLDER = "predictor"  # the folder of the predictor in a run folder
CHOICES_FOLDER = "choices"  # the folder, in a predictor's, with the weights of the other trials that may be chosen

MEMBERS_FOLDER = "members"
"""The folder, in a predictor's, with the weights of the members of an ensemble after the first."""

BESIDE = (FEATURES, SPLIT, VALIDATION, HISTORY)
"""Files in a predictor's folder, besides weights and description; predictions do not read them."""

MAX_HISTORY_BYTES = 2**26  # of events that are read

INTERRUPTED = "interrupted"  # entry of the summary of a predictor whose run was interrupted, and can be resumed

_Weights = TypeVar("_Weights", Member, Choice)


@dataclass(frozen=True, kw_only=True)
class SavedPredictor(Description):
    """A predictor in its folder; the weights stay on disk until they are used."""

    folder: Path  # with the file `DESCRIPTION` and the files of weights
    net: CustomObject | None = None  # the user's own network; never written, `with_network` sets it after loading
    # An object with the lifetime of all predictors of this folder, such as the owner of a temporary folder.
    keeps: object = field(default=None, repr=False, compare=False)

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
        return str(self.summary["result"])

    @property
    def earlier_split(self) -> EarlierSplit | None:
        """The images that the first member was fitted to; None if its file is missing."""
        split = EarlierSplit.load(self.folder / SPLIT)
        return split.fitted_also_to(split.held_out) if split and self.members[0].has_seen_val else split

    @property
    def features(self) -> FeatureBank | None:
        """The stored features of the first member; None for predictors without them. Raises a SavedPredictorError."""
        return FeatureBank.load(self.folder, self.features_key, self.problem)

    @property
    def features_key(self) -> str:
        """The checksum of the first member's weights, by which `features` belong to them."""
        return self.members[0].checksum or _checksum(self.weights_path)

    @property
    def validation(self) -> ValidationRecord | None:
        """The stored predictions for the validation images; None without them. Raises a SavedPredictorError."""
        return ValidationRecord.load(self.folder, self.validation_key, self.problem)

    @property
    def history(self) -> EventLog | None:
        """The events of the run; None without them, or if there are too many. Objects of the user are text."""
        path = self.folder / HISTORY
        is_kept = path.is_file() and path.stat().st_size <= MAX_HISTORY_BYTES
        return EventLog(path, as_text=True) if is_kept else None

    @property
    def validation_key(self) -> str:
        """The checksums of all members' weights, by which `validation` belongs to this predictor."""
        return " ".join(member.checksum or _checksum(self.folder / member.weights) for member in self.members)

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

    def match_classes(self, examples: Examples) -> Examples:
        """Return labelled images in this predictor's classes, matched by name; a DataError lists differences."""
        return match_classes(examples, self.problem, self.class_names, "the data", "the predictor")

    def write(self, writers: Mapping[str, Callable[[Path], object]]) -> SavedPredictor:
        """Write the folder and return the predictor in it; at whatever instant that fails, an earlier one stays whole.

        `writers` write the files that `members` and `choices` name, and `SPLIT`, to the paths that they are given. New
        files do not replace those of an earlier predictor: the description, which names them, is replaced last. A
        SavedPredictorError is raised if weights differ from the checksum that is known of them.
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

                def written(one: _Weights) -> _Weights:
                    if one.weights not in names:
                        return one
                    checksum = _checksum(folder / names[one.weights])
                    if one.checksum not in (None, checksum):
                        raise SavedPredictorError(
                            f"{self.folder} cannot be saved: its weights have been replaced, as by a later fit into "
                            "this folder. Load the new predictor: ImagePredictor.load(path)"
                        )
                    return replace(one, weights=names[one.weights], checksum=checksum)

                saved = replace(
                    self, members=list(map(written, self.members)), choices=list(map(written, self.choices))
                )
                write_json_atomically(folder / DESCRIPTION, saved.to_json())
            except BaseException:
                for name in (*names.values(), f"{DESCRIPTION}.part"):
                    (folder / name).unlink(missing_ok=True)
                raise
            if writers:
                for name in (SPLIT, HISTORY):
                    (folder / name).unlink(missing_ok=True)
            if SPLIT in writers:
                (folder / f"{SPLIT}.part").replace(folder / SPLIT)
            saved._remove_other_weights()
        return saved

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
        return cls(folder=folder, **vars(Description.read(folder / DESCRIPTION)))

    def copy_to(self, folder: Path, *, is_public: bool = False) -> SavedPredictor:
        """Write a copy to another, empty folder and return it; in the predictor's own folder, update numerics.

        `is_public` leaves out paths of images, warnings and tracebacks.
        """
        if folder.resolve() == self.folder.resolve():
            found = SavedPredictor.read(folder)
            there, here = ([(one.weights, one.checksum) for one in each.members] for each in (found, self))
            if there != here:
                raise SavedPredictorError(
                    f"{folder} contains the predictor that this one was chosen from, or a later one. Pass another "
                    "folder"
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
        writers: dict[str, Callable[[Path], object]] = {}
        for old, new in names.items():
            if not (self.folder / old).is_file():
                raise SavedPredictorError(
                    f"{self.folder / old} is missing, or not a regular file; the predictor cannot be saved"
                )
            writers[new] = partial(shutil.copyfile, self.folder / old)
        # These are read and written: the file of a stranger's predictor may be a link to one of the user's.
        if (split := EarlierSplit.load(self.folder / SPLIT)) is not None:
            writers[SPLIT] = split.save
        features, validation = self.features, self.validation
        copy = copy.write(writers)
        with explained_file_errors(folder, SavedPredictorError):
            if features is not None:
                features.save(folder, copy.features_key)
            if validation is not None:
                validation = replace(validation, paths=()) if is_public else validation
                validation.save(folder, copy.validation_key)
            self.copy_history(folder, is_public=is_public)
        return copy

    def copy_history(self, folder: Path, *, is_public: bool = False) -> None:
        """Copy the events of the run to the folder of another predictor, as `copy_to` does."""
        if (log := self.history) is not None:
            try:
                copy_events(log.path, folder / HISTORY, is_public=is_public)
            except JournalError as error:  # of a newer version
                text = f"The predictor is saved without the events of its run: {error}"
                warnings.warn(DataWarning(text), stacklevel=4)

    def chosen(self, choice: Choice) -> SavedPredictor:
        """Return the predictor of one of the `choices`; its weights stay in this folder until it is saved."""
        shared = {name: getattr(choice, name) for name in ("trial", "blueprint", "weights", "has_seen_val", "checksum")}
        summary, parts = {**self.summary, **choice.summary}, choice.postprocessing
        chosen = replace(
            self, summary=summary, net=None, choices=[], members=[Member(**shared)], postprocessing=parts, numerics={}
        )
        model, amp = (chosen.config.get(name) for name in ("model", "amp"))
        net = model if isinstance(model, CustomObject) else None
        return replace(chosen, net=net, members=[Member(**shared, amp=amp if isinstance(amp, bool) else None)])

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
        path, is_own = self.folder / member.weights, member.blueprint.architecture is None
        num_bytes = path.stat().st_size if path.is_file() else 0
        # A stranger's description may name a network that is larger than the memory, or have millions of classes.
        with contextlib.nullcontext() if is_own else AllocationLimit(4 * num_bytes + 2**28):
            classifier = empty_classifier(member.blueprint, self.problem, numerics, self.net, member.amp)
        load_weights(classifier.network, path, member.checksum)
        return classifier


def _checksum(path: Path) -> str:
    """Return the checksum that is recorded in a file of weights, or "" without one; raise a SavedPredictorError."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get(CHECKSUM, ""))
    except (SafetensorError, OSError) as error:
        raise SavedPredictorError(f"{path} cannot be loaded: {error}") from None


def _free_name(folder: Path, name: str) -> str:
    """Return the name of a file that does not exist yet: with -1, -2 and so on before its suffix, if necessary."""
    stem, suffix = name.rsplit(".", 1)
    numbered = (f"{stem}-{number}.{suffix}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], numbered) if not (folder / each).exists())
