"""Soups at the end of a search: which trials may go into one, and the jobs that make them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from saccade.deadline import Deadline
from saccade.events import Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.models.custom import OwnPart
from saccade.selection.candidates import Candidate, ranked, read_blueprint, read_predictions
from saccade.selection.soup import OUTPUTS, RECORD, WEIGHTS, Ingredient, SoupOrder, SoupTrainable
from saccade.study.trial import Decision, Job, Trial
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial_files import BLUEPRINT, outputs_file, weights_file


def soup_groups(trials: Sequence[Trial], most: int, *, is_any_start: bool = False) -> list[list[Trial]]:
    """Return the trials that may go into one soup each: of one network, fine-tuned from the same weights.

    Networks that began at random and went different ways have nothing in common but their shape, and the mean of their
    weights is worth nothing, so they are left out.

    Parameters
    ----------
    trials : sequence of Trial
        All trials of a search.
    most : int
        The most trials in a group.
    is_any_start : bool
        Whether networks that were not pretrained count as well, as when all go on from one fitted network.

    Returns
    -------
    list of list of Trial
        Two trials at least in each, whose weights and outputs are there; the highest score first in each, and the
        group with the highest score first.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in ranked(trials):
        if not has_files(trial) or not (is_any_start or Recipe.of(trial.config).starts_pretrained):
            continue
        config = trial.config
        start = config.get("pretrained"), repr(config.get("weights"))
        key = json.dumps([read_blueprint(trial).to_json(), repr(config.get("model")), *start], default=repr)
        group = groups.setdefault(key, [])
        if not (_is_probe(trial) and any(_is_probe(other) for other in group)):  # probes of one network are the same
            group.append(trial)
    return [group[:most] for group in groups.values() if len(group) > 1]


def _is_probe(trial: Trial) -> bool:
    """Tell whether a trial was best before any fine-tuning."""
    return trial.best_report is not None and trial.best_report.epoch == 0


def has_files(trial: Trial) -> bool:
    """Tell whether the weights and the outputs of a trial's best epoch are there, and its blueprint."""
    if trial.best_report is None:
        return False
    folder, epoch = Path(trial.folder), trial.best_report.epoch
    return all(
        path.is_file() for path in (weights_file(folder, epoch), outputs_file(folder, epoch), folder / BLUEPRINT)
    )


def make_soups(
    executor: Executor,
    task: ImageTask,
    groups: Sequence[Sequence[Trial]],
    folder: Path,
    deadline: Deadline,
    tell: Listener,
) -> list[Candidate]:
    """Make a greedy soup of each group of trials, as far as time allows, and return those that are better.

    Parameters
    ----------
    executor : Executor
        Idle, with its workers warm.
    task : ImageTask
        The task of the search.
    groups : sequence of sequence of Trial
        As `soup_groups` returns them.
    folder : Path
        Where the files go, in a folder for each soup, named for its first trial.
    deadline : Deadline
        When it must be over; what is not finished by then is left out.
    tell : callable
        Told of progress, and of failures.
    """
    waiting = deque(group for group in groups if _tasting_s(group) < deadline.seconds_left())
    if not waiting:
        return []
    begun: list[Sequence[Trial]] = []
    num_done = 0
    executor.trainable = SoupTrainable(task)

    def submit() -> None:
        while waiting and executor.num_free and deadline.seconds_left() > 0:
            begun.append(waiting.popleft())
            first = begun[-1][0].number
            place = str(_folder(folder, begun[-1]))
            executor.submit(Job(first, {"order": _order(begun[-1])}, place, seconds_left=deadline.seconds_left()))

    def handle(event: Event) -> Decision:
        nonlocal num_done
        if isinstance(event, JobFailed):
            tell(Warned(f"no soup of the trials like trial {event.trial}: {event.reason}"))
        if isinstance(event, JobDone | JobFailed):
            num_done += 1
            tell(Progressed("soups of weights", num_done, len(begun) + len(waiting)))
            submit()
        return Decision.CONTINUE

    submit()
    executor.run(handle)
    return [soup for group in begun if (soup := _read(_folder(folder, group), group, task)) is not None]


def _folder(folder: Path, group: Sequence[Trial]) -> Path:
    return folder / f"{group[0].number:04d}"


def _order(group: Sequence[Trial]) -> SoupOrder:
    ingredients = []
    for trial in group:
        assert trial.best_report is not None
        place, epoch = Path(trial.folder), trial.best_report.epoch
        ingredients.append(Ingredient(trial.number, weights_file(place, epoch), outputs_file(place, epoch)))
    config = group[0].config
    own = model if isinstance(model := config.get("model"), OwnPart) else None
    return SoupOrder(ingredients, read_blueprint(group[0]), own, config.get("amp"), _tasting_s(group))


def _tasting_s(group: Sequence[Trial]) -> float:
    """Return how long it may take to judge one mean: as long as it took to judge one of the trials."""
    return max(report.metrics.get("val_s", 0.0) for trial in group for report in trial.reports)


def _read(folder: Path, group: Sequence[Trial], task: ImageTask) -> Candidate | None:
    """Return the soup in a folder; None where no mean was better than its first trial alone."""
    if not (folder / RECORD).is_file():
        return None
    predictions = read_predictions(folder / OUTPUTS, task)
    if predictions is None:
        return None
    trials = json.loads((folder / RECORD).read_text(encoding="utf-8"))["trials"]
    first = group[0]
    return Candidate(
        first.number, first.config, read_blueprint(first), folder / WEIGHTS, predictions, soup=tuple(trials)
    )
