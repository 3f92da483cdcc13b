"""Classifiers and predictors whose backbone ONNX Runtime computes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from saccade import ImagePredictor
from saccade.inference import classifier as module
from saccade.inference.classifier import Classifier, known_inference
from saccade.inference.pipeline import BATCH_SIZE, known_numerics
from saccade.numerics.choice import MEMORY
from saccade.numerics.device import Numerics
from saccade.numerics.engine import ENGINE_VARIABLE, LEAST_EXPORTED, ONNX, OnnxNetwork
from saccade.training.probes.probe import cached_features
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

CPU = Numerics(torch.device("cpu"))
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}


def new(task: ImageTask, engine: str = ONNX) -> Classifier:
    torch.manual_seed(0)
    recipe = Recipe(model="test_resnet", pretrained=False, img_size=32)
    classifier = new_classifier(recipe, task.problem, CPU)
    classifier.use(CPU, replace(CPU, engine=engine))
    return classifier


def is_exported(classifier: Classifier) -> bool:
    return isinstance(classifier.predicting, OnnxNetwork)


def test_features_are_those_of_torch_and_are_cached_under_the_same_key(
    make_task: Callable[..., ImageTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, engines = make_task(), []
    num_images = len(task.train.indices)
    monkeypatch.setattr(module, "LEAST_EXPORTED", num_images)
    monkeypatch.setattr("saccade.training.probes.probe.LEAST_FOLDED", 1)

    def features(engine: str, num: int = num_images, seconds_left: float = 100.0) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
            compute = module.features_of
            patch.setattr(
                "saccade.training.probes.probe.features_of",
                lambda one, *given: engines.append(is_exported(one)) or compute(one, *given),
            )
            indices = task.train.indices[:num]
            return cached_features(new(task, engine), task.store, indices, lambda: seconds_left, max_bytes=0)

    expected, found = features("torch"), features(ONNX)
    assert engines == [False, True]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    features(ONNX, num_images - 1)
    features(ONNX, seconds_left=1.0)
    assert engines[2:] == [False, False]  # an export would take longer than it saves, or than there is time
    assert new(task).backbone_digest() == new(task, "torch").backbone_digest()


def test_an_export_is_used_again_until_the_weights_change(make_task: Callable[..., ImageTask]) -> None:
    classifier = new(make_task())
    classifier.network.eval()
    classifier.fuse()
    assert not is_exported(classifier)
    classifier.fuse(LEAST_EXPORTED)
    first = classifier.predicting
    assert is_exported(classifier)
    classifier.unfuse()
    assert classifier.predicting is classifier.network
    classifier.fuse(1)
    assert classifier.predicting is first
    classifier.unfuse()
    with torch.no_grad():
        next(classifier.network.parameters()).mul_(1.5)
    classifier.fuse(1)
    assert not is_exported(classifier)
    classifier.unfuse()
    classifier.fuse(LEAST_EXPORTED)
    x_BCHW = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(classifier.forward(x_BCHW), classifier.forward(x_BCHW, classifier.network))
    assert is_exported(classifier)
    classifier.use(CPU, CPU)  # for training
    assert classifier._exported is None


def test_torch_predicts_if_the_export_fails(
    make_task: Callable[..., ImageTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = new(make_task())
    monkeypatch.setattr(module, "OnnxNetwork", lambda *_: (_ for _ in ()).throw(RuntimeError("unknown operation")))
    classifier.fuse(math.inf)
    assert not isinstance(classifier.predicting, OnnxNetwork)
    assert classifier.inference == CPU
    assert classifier.outputs_and_features(torch.randn(2, 3, 32, 32))[1].shape == (2, classifier.head.in_features)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(8, ("blue", "red"))


@pytest.fixture(scope="module")
def fitted(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(images, images, hyperparameters=TINY)


def with_engine(fitted: ImagePredictor, folder: Path) -> ImagePredictor:
    """Return a copy of the predictor with the engine in its description."""
    path = Path(fitted.save(folder)) / "predictor.json"
    record = json.loads(path.read_text())
    record["numerics"] = {"cpu": [{"dtype": "float32", "channels_last": True, "engine": ONNX}]}
    path.write_text(json.dumps(record))
    return ImagePredictor.load(folder, verbosity=0, device="cpu")


def test_the_engine_is_saved_with_the_predictor_and_labels_stay(
    fitted: ImagePredictor, images: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pd.concat([images] * (LEAST_EXPORTED // len(images) + 1))
    loaded = with_engine(fitted, tmp_path / "a")
    few = loaded.predict_proba(images, as_pandas=False)
    (member,) = loaded.pipeline._loaded()
    assert member.inference.engine == ONNX
    assert not is_exported(member)  # not for so few images
    found = loaded.predict_proba(many, as_pandas=False)
    assert is_exported(member)
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
    embedded = loaded.embed(images)
    assert is_exported(member)
    assert not isinstance(loaded.pipeline.module().networks[0], OnnxNetwork)
    again = ImagePredictor.load(loaded.save(tmp_path / "b"), verbosity=0, device="cpu")
    assert again.pipeline.saved.numerics["cpu"][0]["engine"] == ONNX

    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    with_torch = with_engine(fitted, tmp_path / "c")
    expected = with_torch.predict_proba(many, as_pandas=False)
    assert not is_exported(with_torch.pipeline._loaded()[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(few, expected[: len(few)], atol=1e-5)
    np.testing.assert_allclose(embedded, with_torch.embed(images), rtol=1e-4, atol=1e-5)


def test_warm_up_chooses_the_engine(
    fitted: ImagePredictor, images: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "choose_numerics", lambda *_: CPU)
    monkeypatch.setattr(module, "choose_engine", lambda *_: (replace(CPU, engine=ONNX), None, 2.0))
    warm = ImagePredictor.load(fitted.path, verbosity=0, device="cpu").warm_up()
    (member,) = warm.pipeline._loaded()
    assert warm.pipeline.saved.numerics["cpu"][0]["engine"] == ONNX
    assert is_exported(member)
    warm.predict(images)
    assert member.predicting.is_checked  # type: ignore[union-attr]
    assert member.predicting.is_active  # type: ignore[union-attr]


def test_a_measurement_of_a_trial_is_the_engine_of_predictions(
    fitted: ImagePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "inference_candidates", lambda *_: [CPU])
    member = replace(fitted.pipeline.saved.members[0], amp=None)
    plain = {"dtype": "float32", "channels_last": True}
    assert known_numerics([member]) == {"cpu": [plain]}
    classifier = fitted.pipeline._loaded()[0]
    with monkeypatch.context() as patch:
        patch.setattr(
            "saccade.numerics.engine._measured",
            lambda *_: ({"export_s": 1.0, "onnx_image_s": 0.01, "torch_image_s": 0.02}, None),
        )
        assert classifier.choose_engine(CPU, BATCH_SIZE, 1000) == replace(CPU, engine=ONNX)
    assert classifier.engine_gain == 2
    assert known_numerics([member]) == {"cpu": [{**plain, "engine": ONNX}]}
    assert known_inference(member.blueprint, True, CPU.device, BATCH_SIZE) == CPU  # 16 bits were requested
    assert MEMORY.path.parent == tmp_path
