"""What the server serves: a predictor, or an exported ONNX file, behind one small interface."""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel
from typing_extensions import override

from saccade._version import __version__
from saccade.data.decoding import decode_image, image_size, thumbnail
from saccade.data.store.stored_form import pixels_of, stored_size
from saccade.errors import ImageReadError, SaccadeError

if TYPE_CHECKING:
    from saccade.predictor import ImagePredictor

COVERAGE = 0.9  # of the sets, if there are validation images enough
NUM_NEIGHBOURS = 4
# Images that an exported file gets in their own size, so that it computes what `predict` does. Larger ones would take
# much memory while they wait: Pillow shrinks them, which differs by one of 255 levels in few pixels.
MAX_EXPORTED_PIXELS = 1_000_000
MAP_SIDE, THUMBNAIL_SIDE = 512, 160  # longer sides in pixels


class ModelInfo(BaseModel):
    """What ``GET /model`` returns."""

    name: str
    saccade_version: str
    problem_type: str
    class_names: list[str]
    metrics: dict[str, float]
    coverage: float | None
    can_embed: bool
    can_explain: bool
    has_neighbours: bool
    has_novelty: bool


class ServedModel(ABC):
    """A model whose methods the server calls in threads: `decode` in several, each other method in one of its own."""

    info: ModelInfo

    def initialize_thread(self) -> None:  # noqa: B027  nothing is the usual case
        """Prepare a thread that decodes."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """Return a file as `predict` and `embed` take it; an ImageReadError has the reason if it is unreadable."""

    @abstractmethod
    def predict(self, images: list[Any]) -> list[dict[str, Any]]:
        """Return the prediction of each decoded image, as JSON values."""

    def embed(self, images: list[Any]) -> list[list[float]]:
        """Return the features of each decoded image; only if `ModelInfo.can_embed`."""
        raise NotImplementedError

    def explain(self, images: list[tuple[bytes, Any]]) -> list[dict[str, Any]]:
        """Return the explanation of each image, given its file and `decode` of it; only if `ModelInfo.can_explain`."""
        raise NotImplementedError


def open_model(path: Path) -> ServedModel:
    """Return the model of a run folder, a predictor's folder or an ONNX file; a SaccadeError if there is none."""
    if path.suffix.lower() == ".onnx":
        return ServedOnnx(path)
    from saccade.predictor import ImagePredictor  # imports torch

    return ServedPredictor(ImagePredictor.load(path, verbosity=0))


class ServedPredictor(ServedModel):
    """An `ImagePredictor`."""

    def __init__(self, predictor: ImagePredictor) -> None:
        from saccade.fit.run_folder import DATA
        from saccade.inference.classifier import head_of
        from saccade.inference.feature_bank import FALSE_ALARM_RATE
        from saccade.insight.embeddings import EMBEDDINGS

        self._pipeline = pipeline = predictor.pipeline
        saved = pipeline.saved
        self._names = saved.names_of_classes
        self._name_of = dict(zip(saved.problem.classes, self._names, strict=True))
        module = pipeline.module()  # loads the networks now
        self._coverage: float | None = COVERAGE
        self._false_alarm_rate: float | None = FALSE_ALARM_RATE
        try:
            saved.postprocessing.conformal.check(saved.problem, COVERAGE)
        except SaccadeError:  # too few validation images, or a problem without sets
            self._coverage = None
        try:
            pipeline.bank.threshold(FALSE_ALARM_RATE)
        except SaccadeError:  # no stored features, or too few validation images
            self._false_alarm_rate = None
        can_embed = head_of(module.networks[0]) is not None
        score = saved.summary.get("valid_score")
        networks = dict.fromkeys(member.blueprint.name for member in saved.members)
        self.info = ModelInfo(
            name=" + ".join(networks),
            saccade_version=__version__,
            problem_type=saved.problem.type,
            class_names=self._names,
            metrics={} if score is None else {saved.metric: float(score)},
            coverage=self._coverage,
            can_embed=can_embed,
            can_explain=True,
            has_neighbours=can_embed
            and ((saved.folder / EMBEDDINGS).is_file() or (saved.folder.parent / DATA).is_file()),
            has_novelty=self._false_alarm_rate is not None,
        )
        self.predict([pipeline.decode(np.zeros((32, 32, 3), np.uint8))])  # the first prediction takes longer

    @override
    def initialize_thread(self) -> None:
        from saccade.data.batches import be_one_thread

        be_one_thread()

    @override
    def decode(self, data: bytes) -> Any:
        return self._pipeline.decode(data)

    @override
    def predict(self, images: list[Any]) -> list[dict[str, Any]]:
        found = self._pipeline.predict(images, coverage=self._coverage, false_alarm_rate=self._false_alarm_rate)
        problem = found.problem
        names = found.names(self._names)
        probabilities = np.round(found.predictions.astype(np.float64), 8).tolist()
        answers = []
        for row, of_label in enumerate(found.label_probabilities):
            label: Any = names[row] or []
            if not problem.has_classes:
                label = float(found.labels[row])
            elif problem.has_one_class:
                label = label[0]
            labels = found.sets[row]
            answers.append(
                {
                    "label": label,
                    "probability": None if of_label is None else round(of_label, 8),
                    "probabilities": dict(zip(self._names, probabilities[row], strict=True)) if self._names else None,
                    "set": None if labels is None else [self._name_of.get(each, each) for each in labels],
                    "unknown": bool(found.unknown[row]) if self.info.has_novelty else None,
                    "novelty": round(float(found.novelty[row]), 6) if self.info.has_novelty else None,
                }
            )
        return answers

    @override
    def embed(self, images: list[Any]) -> list[list[float]]:
        # Not `pipeline.features`, which would keep the features of clients' images on disk.
        (features,), _ = self._pipeline.run(
            images, lambda classifier, x_BCHW: classifier.outputs_and_features(x_BCHW)[1].cpu().numpy(), 1
        )
        rows: list[list[float]] = features.tolist()
        return rows

    @override
    def explain(self, images: list[tuple[bytes, Any]]) -> list[dict[str, Any]]:
        from saccade.insight.saliency import SaliencyMapper, draw_heatmap, place_in_image

        decoded = [each for _, each in images]
        found = self._pipeline.predict(decoded)
        (maps,), _ = self._pipeline.run(decoded, SaliencyMapper(found.main_class), 1)
        spec = self._pipeline.saved.blueprint.input
        answers = []
        for row, ((data, _), of_image) in enumerate(zip(images, self._neighbours(decoded), strict=True)):
            width, height = image_size(data)
            scale = min(1.0, MAP_SIDE / max(width, height))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            heatmap = draw_heatmap(place_in_image(maps[row], size, spec))
            label = self._names[found.main_class[row]] if found.problem.has_classes else float(found.labels[row])
            probability = float(found.predictions[row, found.main_class[row]]) if found.problem.has_classes else None
            answers.append(
                {
                    "label": label,
                    "probability": probability,
                    "heatmap": _png_url(heatmap),
                    "neighbours": of_image,
                }
            )
        return answers

    def _neighbours(self, decoded: list[Any]) -> list[list[dict[str, Any]] | None]:
        """Return the most similar training images of each image; None if the images of the fit are not found."""
        import pandas as pd

        from saccade.data.examples import Examples
        from saccade.insight.embeddings import EmbeddedImages, embedded_training_images, unit_vectors
        from saccade.insight.reasons import neighbours_of

        if not self.info.has_neighbours:
            return [None] * len(decoded)
        saved = self._pipeline.saved
        try:  # they are kept in memory, and in the predictor's folder
            train = embedded_training_images(saved, lambda images: self._pipeline.features(images)[0])
        except SaccadeError:
            self.info.has_neighbours = False
            return [None] * len(decoded)
        vectors = unit_vectors(np.array(self.embed(decoded), np.float32))
        queries = EmbeddedImages(Examples(decoded, pd.RangeIndex(len(decoded))), vectors)
        answers: list[list[dict[str, Any]] | None] = []
        for of_image in neighbours_of(queries, train, NUM_NEIGHBOURS, saved):
            shown = []
            for neighbour in of_image:
                try:
                    url = thumbnail(neighbour.image, THUMBNAIL_SIDE)
                except ImageReadError:  # it was moved since
                    continue
                shown.append(
                    {
                        "label": neighbour.label,
                        "similarity": round(float(neighbour.similarity), 6),
                        "thumbnail": url,
                    }
                )
            answers.append(shown)
        return answers


class ServedOnnx(ServedModel):
    """An ONNX file that ``saccade export`` has written. It requires no torch."""

    def __init__(self, path: Path) -> None:
        from saccade.export.onnx_model import OnnxModel

        self._model = OnnxModel(path)
        metadata = self._model.metadata
        self._names = metadata.class_names
        self._novelty_threshold = metadata.novelty_threshold
        self.info = ModelInfo(
            name=" + ".join(dict.fromkeys(each.name for each in metadata.models)),
            saccade_version=metadata.saccade_version,
            problem_type=metadata.problem_type,
            class_names=self._names,
            metrics=metadata.metrics,
            coverage=metadata.coverage,
            can_embed=False,
            can_explain=False,
            has_neighbours=False,
            has_novelty=self._novelty_threshold is not None,
        )
        self.predict([np.zeros((32, 32, metadata.preprocessing.channels), np.uint8)])  # the first one takes longer

    @override
    def decode(self, data: bytes) -> Any:
        preprocessing = self._model.metadata.preprocessing
        side = preprocessing.shorter_side
        image = decode_image(
            data, min_shorter_side=side, channels=preprocessing.channels, pixel_range=preprocessing.pixel_range
        ).image
        if image.width * image.height > MAX_EXPORTED_PIXELS:
            size = stored_size(*image.size, side)
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        return pixels_of(image)

    @override
    def predict(self, images: list[Any]) -> list[dict[str, Any]]:
        found = self._model.predict(images)
        threshold, answers = self._novelty_threshold, []
        for row in range(len(images)):
            probabilities = found["probabilities"][row].astype(np.float64).round(8) if self._names else np.zeros(0)
            given: Any = None
            if "label" in found:
                given = self._names[found["label"][row]]
            elif "given" in found:
                given = [self._names[number] for number in np.flatnonzero(found["given"][row])]
            in_set: Any = None
            if "set_mask" in found:
                order = np.argsort(-probabilities, kind="stable")
                in_set = [self._names[number] for number in order if found["set_mask"][row, number]]
            elif "interval" in found:
                in_set = found["interval"][row].tolist()
            novelty = float(found["novelty"][row]) if threshold is not None else None
            answers.append(
                {
                    "label": float(found["prediction"][row]) if given is None else given,
                    "probability": float(probabilities[found["label"][row]]) if "label" in found else None,
                    "probabilities": dict(zip(self._names, probabilities.tolist(), strict=True)) or None,
                    "set": in_set,
                    "unknown": None if novelty is None or threshold is None else novelty > threshold,
                    "novelty": None if novelty is None else round(novelty, 6),
                }
            )
        return answers


def _png_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
