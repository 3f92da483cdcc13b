"""The model card of a predictor: a README in Markdown with the Hugging Face hub's metadata, and a calibration plot."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from huggingface_hub import EvalResult, ModelCardData

from saccade._version import __version__
from saccade.errors import DataError, UnknownModelError, count_of, explained_file_errors
from saccade.fit.run_folder import CHECKS, RUN
from saccade.inference.saved import INTERRUPTED, PREDICTOR_FOLDER, SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.models.catalogue import license_of
from saccade.report.prediction_sections import (
    CONFIDENCE,
    classes_frame,
    plot_reliability,
    plot_residuals,
    reliability_frame,
    residuals_frame,
    validation_scores,
)
from saccade.report.style import report_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

README, PLOT = "README.md", "calibration.png"

MAX_LISTED = 100  # classes in the table; more are counted
FEW_IMAGES, FEW_OF_A_CLASS = 100, 10  # with fewer validation images, or images of a class, the card warns
IMBALANCE = 3.0  # ratio of the largest class to the smallest from which on the card warns

_MARK = re.compile(r"\n<!-- Written by Saccade\. sha256:([0-9a-f]{64}) -->\n\Z")
_SPECIAL = re.compile(
    # Markup, tables, formulas, mentions; emoji and addresses; underscores at the end of a word.
    r"[\\`*\[\]<>|&~$@#{]|:(?=\S)|(?<=www)\.|(?<![a-z0-9])_|_(?![a-z0-9])",
    re.IGNORECASE,
)
_HUB_METRICS = {"top1": "accuracy"}  # the hub's identifiers of metrics that have other names here


@dataclass(frozen=True)
class ModelCard:
    """A model card: its Markdown, and the calibration plot that it shows, if there is one.

    ``print(card)`` prints the Markdown, notebooks show it, and `save` writes both.
    """

    text: str
    figure: Figure | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text.partition("\n---\n")[2]

    def save(self, path: str | Path) -> Path:
        """Write the card and, beside it, the plot; return the path of the card.

        Parameters
        ----------
        path : str or Path
            The file, if the name ends in ``.md``; otherwise a folder, which gets ``README.md``. An existing file is
            replaced only if it is a card that Saccade wrote and nobody edited; otherwise a DataError is raised.
        """
        file = Path(path).expanduser()
        file = file if file.suffix.lower() == ".md" else file / README
        with explained_file_errors(file):
            if file.exists() and not is_generated(file.read_text(encoding="utf-8", errors="replace")):
                raise DataError(
                    f"{file} exists, and is not an unedited card of Saccade. Pass another path, or move it away"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            if self.figure is not None:
                self.figure.savefig(file.parent / PLOT)
            file.write_text(self.text, encoding="utf-8")
        return file


def is_generated(text: str) -> bool:
    """Return whether a README is a card of `make_card` that has not been edited."""
    found = _MARK.search(text.replace("\r\n", "\n"))
    return found is not None and found[1] == _digest(text.replace("\r\n", "\n")[: found.start()])


def make_card(
    saved: SavedPredictor,
    name: str | None = None,
    *,
    dataset: str | None = None,
    license: str | None = None,  # noqa: A002
) -> ModelCard:
    """Return the model card of a predictor; the arguments are those of `ImagePredictor.model_card`."""
    record = saved.validation
    has_predictions = record is not None and len(record.targets) > 0
    scores = validation_scores(saved, record) if record is not None and has_predictions else {}
    networks = _networks(saved)
    figure = None
    if record is not None and has_predictions:
        figure = _figure(saved, record)
    title = name or "Image predictor"
    sections = [
        f"# {escaped(title)}\n\n{_introduction(saved, record)}",
        _metrics(saved, record, scores),
        _calibration(saved, scores) if figure is not None else "",
        _classes(saved, record) if saved.problem.has_classes else "",
        _training(saved, record, dataset),
        _network_table(networks),
        _limits(saved, record, networks),
        _usage(saved, name),
        _versions(saved),
    ]
    text = f"---\n{_metadata(saved, title, scores, networks, dataset, license)}\n---\n\n"
    text += "\n\n".join(filter(None, sections)) + "\n"
    return ModelCard(f"{text}\n<!-- Written by Saccade. sha256:{_digest(text)} -->\n", figure)


def _figure(saved: SavedPredictor, record: ValidationRecord) -> Figure:
    """Return the reliability diagram; of a regression, predicted and true values."""
    targets, predictions, calibration = record.targets, record.predictions, saved.postprocessing.calibration
    with report_style():
        frame = reliability_frame(saved.problem, targets, predictions, calibration)
        if frame is not None:
            return plot_reliability(frame)
        residuals = residuals_frame(saved.problem, [], targets, predictions, predictions)
        assert residuals is not None
        return plot_residuals(residuals)


def escaped(text: object, most: int = 200) -> str:
    """Return text that Markdown and HTML show as it is, in one line: special characters become numeric entities.

    Examples
    --------
    >>> escaped("a|b <i>")
    'a&#124;b &#60;i&#62;'
    """
    line = " ".join(str(text).split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    line = "".join(each if each.isprintable() else "\ufffd" for each in line)
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Return a table whose first columns are aligned left, the others right."""
    marks = ["---" if number < left else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows))


@dataclass(frozen=True)
class _Network:
    name: str
    img_size: int
    weight: float
    is_pretrained: bool
    license: str  # of the pretrained weights, as timm records it; "" if there are none, or it is not known


def _networks(saved: SavedPredictor) -> list[_Network]:
    configs = {row["trial"]: row["config"] for row in saved.trials}
    networks = []
    for member in saved.members:
        config = configs.get(member.trial, saved.config)
        is_own = member.blueprint.architecture is None
        is_pretrained = not is_own and config.get("pretrained", True) is not False
        # The name in the configuration may have the tag of the weights, which the architecture lacks.
        named = config.get("model") if isinstance(config.get("model"), str) else member.blueprint.architecture
        try:
            of_weights = license_of(str(named)) if is_pretrained else ""
        except UnknownModelError:
            of_weights = ""
        of_weights = "" if of_weights == "unknown" else of_weights
        shown = member.blueprint.name if is_own else str(named)
        networks.append(_Network(shown, member.blueprint.input.img_size, member.weight, is_pretrained, of_weights))
    return networks


def _metadata(
    saved: SavedPredictor,
    title: str,
    scores: dict[str, Any],
    networks: Sequence[_Network],
    dataset: str | None,
    own_license: str | None,
) -> str:
    """Return the metadata of the hub, as YAML without its delimiters."""
    of_weights = {network.license for network in networks if network.is_pretrained}
    # A licence that is not known is left out rather than guessed.
    found = own_license or (of_weights.pop() if len(of_weights) == 1 else "") or None
    where = dataset or "validation images of the fit"
    results = [
        EvalResult(
            task_type="image-classification" if saved.problem.has_classes else "image-regression",
            dataset_type=dataset or "image-folder",
            dataset_name=f"{where} (validation images of the fit)" if dataset else where,
            dataset_split="validation",
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_value=round(float(scores[metric]), 6),
            metric_name=f"{metric}, {CONFIDENCE:.0%} interval {_interval(scores[f'{metric}_interval'])}",
        )
        for metric in _names_of(scores)
        if np.isfinite(scores[metric])
    ]
    kind = "image-classification" if saved.problem.has_classes else "image-regression"
    data = ModelCardData(
        license=found,
        library_name="saccade",
        pipeline_tag=kind if saved.problem.has_classes else None,
        tags=[kind, saved.problem.type, "saccade", "timm", *dict.fromkeys(network.name for network in networks)],
        datasets=None if dataset is None else [dataset],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _introduction(saved: SavedPredictor, record: ValidationRecord | None) -> str:
    problem, names = saved.problem, saved.names_of_classes
    what = {
        "regression": "Predicts a number for an image",
        "multilabel": f"Assigns any of {len(names)} labels to an image",
    }.get(problem.type, f"Classifies an image as one of {len(names)} classes")
    num = len(saved.members)
    made = "one network" if num == 1 else f"an ensemble of {num} networks"
    fitted = "" if record is None else f" It was fitted to {count_of(record.num_train, 'training image')}."
    return f"{what}, with {made}. Fitted by Saccade: {escaped(saved.result, 500)}.{fitted}"


def _metrics(saved: SavedPredictor, record: ValidationRecord | None, scores: dict[str, Any]) -> str:
    summary, lines = saved.summary, ["## Metrics", ""]
    how = str(summary.get("valid_score_how") or "")
    if record is None or not scores:
        score = summary.get("valid_score")
        if score is None or not np.isfinite(score):
            return "\n".join([*lines, "No metrics are stored with this predictor. Evaluate it on labelled images."])
        shown = f"{abs(score):.4g}" if score < 0 else f"{score:.4g}"  # of an error, the score is the negative
        lines += [
            f"{escaped(saved.metric)}: **{shown}**{f' ({escaped(how, 1000)})' if how else ''}.",
            "",
            "Predictions for the validation images are not stored with this predictor, so that intervals, a "
            "calibration plot and numbers of each class are not available.",
        ]
        return "\n".join(lines)
    num = len(record.targets)
    images = str(num) if num == record.num_val else f"{num} of {record.num_val}"
    lines += [
        f"Measured {escaped(how or 'on the validation images of the fit', 1000)}. These are {images} images, and not "
        "test images.",
        "",
        _table(
            ("metric", "value", f"{CONFIDENCE:.0%} interval"),
            [
                (escaped(name), f"{scores[name]:.4g}", _interval(scores[f"{name}_interval"]))
                for name in _names_of(scores)
            ],
        ),
        "",
        "Intervals are those of a bootstrap with 1,000 resamples of these images; those of an accuracy of 0 or 1 are "
        "exact. They do not include the optimism of choosing networks, epochs or calibration on these images.",
    ]
    score, metric = summary.get("valid_score"), "top1" if saved.metric == "accuracy" else saved.metric
    if score is not None and metric in scores and abs(abs(score) - abs(scores[metric])) > 5e-5:
        lines[-1] += (
            f" `fit_summary()` has a {escaped(saved.metric)} of {abs(score):.4g}: a mean over repeated cross-fitting, "
            "or over all validation images."
        )
    elif metric not in scores and score is not None:
        lines += ["", f"Metric used for model selection: {escaped(saved.metric)} {abs(score):.4g}."]
    return "\n".join(lines)


def _names_of(scores: dict[str, Any]) -> list[str]:
    """Return the metrics that have an interval."""
    return [name for name in scores if f"{name}_interval" in scores]


def _interval(ends: tuple[float, float]) -> str:
    return " to ".join(f"{end:.4g}" for end in ends) if np.isfinite(ends).all() else "not defined"


def _calibration(saved: SavedPredictor, scores: dict[str, Any]) -> str:
    if not saved.problem.has_classes:
        return f"## Predictions and labels\n\n![Predicted and true values of the validation images]({PLOT})"
    calibration = saved.postprocessing.calibration
    cross_fitted = ""
    if calibration.ece_after is not None:
        cross_fitted = f" Cross-fitted, the error is {calibration.ece_after:.3g}"
        cross_fitted += f" ({calibration.ece_before:.3g} before calibration)."
    return (
        f"## Calibration\n\n![Accuracy of the validation images by their predicted probability]({PLOT})\n\n"
        f"Expected calibration error {scores['ece']:.3g}; right probabilities would have {scores['ece_by_chance']:.3g} "
        f"on so few images, by chance. Temperature {calibration.temperature:.3g} was fitted to the same images."
        f"{cross_fitted}"
    )


def _classes(saved: SavedPredictor, record: ValidationRecord | None) -> str:
    names = saved.names_of_classes
    rows: list[list[object]] = [[escaped(name)] for name in names[:MAX_LISTED]]
    head, notes = ["class"], ""
    if record is not None:
        head.append("training images")
        for row, num in zip(rows, record.train_counts.tolist(), strict=False):
            row.append(num)
        if len(record.targets):
            given = record.targets, record.predictions, record.adjusted
            found = classes_frame(saved.problem, names, *given)
            assert found is not None
            numbers = found.sort_index()[["images", "precision", "recall", "f1"]].head(MAX_LISTED)
            head += ["validation images", "precision", "recall", "F1"]
            for row, (num, *ratios) in zip(rows, numbers.itertuples(index=False), strict=True):
                # A ratio without images in its denominator is not 0.
                row += [int(num), *("n/a" if np.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios)]
            notes = "\n\nPrecision, recall and F1 score are those of the validation images above."
    more = len(names) - MAX_LISTED
    listed = f"\n\n{more} more classes are not listed here; `predictor.class_names` has all." if more > 0 else ""
    return f"## Classes\n\n{_table(head, rows)}{listed}{notes}"


def _training(saved: SavedPredictor, record: ValidationRecord | None, dataset: str | None) -> str:
    lines = []
    if dataset is not None:
        lines.append(f"- Data set: {escaped(dataset)}.")
    summary = saved.summary
    num_folds = summary.get("num_folds")
    if record is not None and num_folds:
        lines.append(
            f"- {record.num_train} training images; each of {num_folds} networks was trained without its fold of them, "
            "which validates it."
        )
    elif record is not None:
        is_on_all = summary.get("refit_full") or any(member.has_seen_val for member in saved.members)
        final = ", to which the final weights were fitted as well, after the validation" if is_on_all else ""
        lines.append(f"- {record.num_train} training images, {record.num_val} validation images{final}.")
    else:
        lines.append("- The number of images is not stored with this predictor.")
    left_out = summary.get("left_out") or {}
    if num := left_out.get("num_unreadable"):
        lines.append(f"- {count_of(num, 'image')} could not be read, and {'was' if num == 1 else 'were'} left out.")
    if lost := left_out.get("classes"):
        lines.append(f"- Classes without a readable training image, which were left out: {_listed(lost)}.")
    if added := summary.get("added_classes"):
        lines.append(f"- Classes that were added after the fit, with a new classifier layer: {_listed(added)}.")
    seconds, num_trials = summary.get("total_time"), summary.get("num_trials")
    if seconds and num_trials:
        interrupted = ", and was interrupted" if summary.get(INTERRUPTED) else ""
        lines.append(f"- The search took {seconds:.0f} s for {count_of(num_trials, 'trial')}{interrupted}.")
    folder = saved.folder.parent if saved.folder.name == PREDICTOR_FOLDER else None
    if folder is not None and (folder / CHECKS).is_file():
        with (folder / CHECKS).open(encoding="utf-8", newline="") as file:
            counts = Counter((row.get("code"), row.get("title")) for row in csv.DictReader(file))
        found = "; ".join(f"{escaped(code)} {escaped(title)} ({num})" for (code, title), num in counts.items())
        lines.append(f"- Findings of the data checks (rows of {CHECKS}): {found}.")
    elif folder is not None and (folder / RUN).is_file():
        lines.append("- The data checks found no problems.")
    return "\n".join(["## Training", "", *lines])


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(map(escaped, names[:20])) + more


def _network_table(networks: Sequence[_Network]) -> str:
    rows = [
        (
            escaped(network.name),
            "random" if not network.is_pretrained else escaped(network.license or "not known"),
            f"{network.img_size} px",
            f"{network.weight:.3f}",
        )
        for network in networks
    ]
    return (
        f"## Networks\n\n{_table(('network', 'licence of the initial weights', 'input', 'weight'), rows, left=2)}\n\n"
        "The licence is the one that timm records for the pretrained weights of this name. It may restrict the use of "
        "weights that were fine-tuned from them."
    )


def _limits(saved: SavedPredictor, record: ValidationRecord | None, networks: Sequence[_Network]) -> str:
    problem, names = saved.problem, saved.names_of_classes
    kind = "the same kind, as from the same camera and place," if problem.has_classes else "the same kind"
    lines = [f"- Intended for images of {kind} as the training images. Other images have other error rates."]
    if problem.has_one_class:
        lines.append(
            "- Each image gets one of the classes, also an image of something else. `predict(images, unknown=…)` marks "
            "images that are unlike the training images, if features are stored with the predictor."
        )
    if record is not None and record.num_val < FEW_IMAGES:
        lines.append(f"- Only {count_of(record.num_val, 'validation image')}: the metrics above are imprecise.")
    if record is not None and len(record.train_counts):
        counts = record.train_counts
        if counts.min() < FEW_OF_A_CLASS:
            rare = [names[row] for row in np.flatnonzero(counts < FEW_OF_A_CLASS)]
            lines.append(f"- Fewer than {FEW_OF_A_CLASS} training images: {_listed(rare)}.")
        if counts.max() >= IMBALANCE * max(counts.min(), 1):
            most, least = (names[int(row)] for row in (counts.argmax(), counts.argmin()))
            lines.append(
                f"- Classes are imbalanced: {counts.max()} training images of {escaped(most)}, {counts.min()} of "
                f"{escaped(least)}. Rare classes have higher error rates."
            )
        if len(record.targets):
            of_val = problem.true_labels(record.targets).sum(0) if not problem.has_one_class else None
            of_val = np.bincount(record.targets, minlength=len(names)) if of_val is None else of_val
            if rare := [names[row] for row in np.flatnonzero(of_val < FEW_OF_A_CLASS)]:
                lines.append(
                    f"- Fewer than {FEW_OF_A_CLASS} validation images, so that numbers of the class are imprecise: "
                    f"{_listed(rare)}."
                )
    if any(network.is_pretrained and not network.license for network in networks):
        lines.append("- The licence of some pretrained weights is not known. Check it before use.")
    lines.append("- Evaluate it on images of your own before use: `predictor.evaluate(test, interval=0.95)`.")
    return "\n".join(["## Intended use and limits", "", *lines])


def _usage(saved: SavedPredictor, name: str | None) -> str:
    is_repo = name is not None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is not None and "/" in name
    own = ", net=…" if saved.own_network is not None else ""
    source = f"from_hub({name!r}{own})" if is_repo else f"load('folder'{own})"
    lines = [
        "from saccade import ImagePredictor",
        "",
        f"predictor = ImagePredictor.{source}",
        "predictor.predict(['image.jpg'])",
    ]
    if saved.problem.has_classes:
        lines.append("predictor.predict_proba(['image.jpg'])  # calibrated probabilities")
    needs = " The network is a class of the author's, which has to be passed." if own else ""
    body = "\n".join(lines)
    return f"## How to use it\n\n```python\n{body}\n```\n\nNo code is loaded with the weights.{needs}"


def _versions(saved: SavedPredictor) -> str:
    now = (
        f"saccade {__version__}, torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}"
    )
    lines = [f"- This card: {now}."]
    if saved.folder.name == PREDICTOR_FOLDER and (run := saved.folder.parent / RUN).is_file():
        try:
            versions = dict(json.loads(run.read_text(encoding="utf-8"))["versions"])
        except (OSError, ValueError, LookupError, TypeError):
            versions = {}
        if versions:
            lines.insert(0, f"- The fit: {', '.join(f'{escaped(n)} {escaped(v)}' for n, v in versions.items())}.")
    return "\n".join(["## Versions", "", *lines])
