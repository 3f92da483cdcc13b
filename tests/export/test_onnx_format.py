"""ONNX files of real networks: families of timm, and whole predictors beside `predict_proba`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from contracts.export_problems import Problems
from saccade import ImagePredictor
from saccade.data.decoding import decode_image
from saccade.export.exporting import COMPANIONS, export, write_companions
from saccade.export.formats.onnx_format import OPSET, OnnxFormat
from saccade.export.onnx_model import OnnxModel
from saccade.inference.calibration import Calibration
from saccade.inference.description import Member
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.thresholds import Thresholds
from saccade.models.network import InputSpec
from saccade.models.weights import write_weights

onnx = pytest.importorskip("onnx", reason="requires the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="requires the extra onnx")
pytest.importorskip("onnxscript", reason="requires the extra onnx")

MakeColours = Callable[..., pd.DataFrame]
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}

SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet": ("test_resnet", {}),
    "MobileNetV2": ("mobilenetv2_035", {}),
    "MobileNetV3": ("mobilenetv3_small_050", {}),
    "EfficientNet": ("test_efficientnet", {}),
    "RegNet": ("regnetx_002", {}),
    "ConvNeXt": ("test_convnext", {"depths": (1, 1, 2, 1)}),
    "ViT": ("vit_tiny_patch16_224", {"img_size": 64, **SMALL}),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56, **SMALL}),
    "SigLIP": ("vit_base_patch16_siglip_224", {"img_size": 64, **SMALL}),
    "EVA": ("eva02_tiny_patch14_224", {"img_size": 56, **SMALL}),
    "Swin": (
        "swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (2, 1), "embed_dim": 24, "num_heads": (2, 2)}
    ),
    "TinyViT": (
        "tiny_vit_5m_224",
        {"depths": (1, 1), "embed_dims": (16, 32), "num_heads": (2, 2), "window_sizes": (7, 7)},
    ),
}  # fmt: skip


def keep_first_blocks(network: nn.Module) -> None:
    """Drop repeated blocks of networks without options for that, each of which takes time to convert."""
    stages = (
        network.blocks if hasattr(network, "conv_stem") else [network.s3, network.s4] if hasattr(network, "s4") else []
    )
    for number, stage in enumerate(stages):
        for name, _ in list(stage.named_children())[2 if number == 1 else 1 :]:
            delattr(stage, name)


class Networks(nn.Module):
    """The outputs of several networks for the same images, as an `ExportModule` has them for one predictor."""

    def __init__(self, families: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = []
        for name, options in map(FAMILIES.__getitem__, families):
            network = timm.create_model(name, num_classes=3, **options).eval()
            keep_first_blocks(network)
            for parameter in network.parameters():  # some layers start as zero
                parameter.data.add_(0.05 * torch.randn_like(parameter))
            made.append(network)
        self.networks = nn.ModuleList(made)
        self.sides = [FAMILIES[name][1].get("img_size", 64) for name in families]
        self.output_names = [f"of_{number}" for number in range(len(made))]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x_BCHW = images.permute(0, 3, 1, 2) / 64 - 2  # files of whole predictors have a real preprocessing
        pairs = zip(self.networks, self.sides, strict=True)
        return tuple(network(x_BCHW[:, :, :side, :side]) for network, side in pairs)

    def example(self, num: int = 2, height: int = 70, width: int = 90) -> torch.Tensor:
        return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))  # the time of a conversion grows with the square of the graph
def test_families_of_networks_give_the_outputs_of_torch(tmp_path: Path, part: int) -> None:
    families = list(FAMILIES)[part::4]
    networks = Networks(families).eval()
    onnx.save(OnnxFormat().convert(networks), tmp_path / "model.onnx")  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = networks.example(3, 80, 65)
    with torch.no_grad():
        expected = networks(images)
    for name, ours, theirs in zip(families, session.run(None, {"images": images.numpy()}), expected, strict=True):
        assert theirs.std() > 0.01, name
        np.testing.assert_allclose(ours, theirs, atol=2e-4 * float(theirs.abs().max()), err_msg=name)


def test_the_documented_families_are_these() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `([a-z0-9_]+)` \|", page, re.MULTILINE)
    assert rows == [(family, name) for family, (name, _) in FAMILIES.items()]


@pytest.fixture(scope="module")
def colours(make_colours_once: MakeColours) -> pd.DataFrame:
    return make_colours_once(14, ("blue", "green", "red"))


@pytest.fixture(scope="module")
def pipeline(colours: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> InferencePipeline:
    """An ensemble of different input sizes, weights, interpolation and test-time augmentation; classes are unequal."""
    fitted = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    fitted.fit(colours, hyperparameters={**TINY, "epochs": 3}, holdout_frac=0.5)
    saved = fitted.pipeline.saved
    network = timm.create_model("test_efficientnet", num_classes=3)
    (saved.folder / "members").mkdir()
    write_weights(saved.folder / "members" / "0001.safetensors", network.state_dict())
    (first,) = saved.members
    spec = InputSpec(48, 0.875, "bilinear", (0.48, 0.45, 0.4), (0.2, 0.22, 0.25))
    blueprint = replace(first.blueprint, architecture="test_efficientnet", input=spec, tta=True)
    members = [replace(first, weight=0.7), Member(0, blueprint, "members/0001.safetensors", 0.3)]
    parts = replace(
        saved.postprocessing,
        calibration=Calibration(0.7, logit_adjustment=0.5, class_prior=(0.6, 0.3, 0.1)),
        thresholds=Thresholds(class_prior=(0.5, 0.3, 0.2)),
    )
    return InferencePipeline(replace(saved, members=members, postprocessing=parts, numerics={}), "cpu")


@pytest.fixture(scope="module")
def exported(pipeline: InferencePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(pipeline, "onnx", tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def photos(colours: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of many sizes and kinds."""
    folder = tmp_path_factory.mktemp("photos")
    image = Image.effect_noise((120, 90), 90).convert("RGB")
    image.paste(Image.open(colours["image"].iloc[-1]).resize((60, 60)), (30, 9))
    rotated = Image.Exif()
    rotated[274] = 6
    image.resize((901, 1203)).save(folder / "large.jpg")
    image.resize((640, 431)).save(folder / "rotated.jpg", exif=rotated)
    image.convert("CMYK").resize((333, 250)).save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "grey.png")
    image.resize((32, 33)).save(folder / "tiny.png")
    image.resize((20, 9)).save(folder / "smaller.png")
    image.resize((40, 300)).save(folder / "tall.png")
    image.resize((50, 12)).save(folder / "short.png")
    image.resize((1500, 1101)).save(folder / "large.png", compress_level=1)
    image.convert("P").save(folder / "palette.png")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(folder / "alpha.png")
    return sorted(map(str, folder.iterdir()))


def test_the_file_gives_the_predictions_of_the_predictor(
    pipeline: InferencePipeline, exported: Path, photos: list[str]
) -> None:
    model = OnnxModel(exported)
    side = model.metadata.preprocessing.shorter_side
    found = model.predict([np.asarray(decode_image(photo, min_shorter_side=side).image) for photo in photos])
    expected = pipeline.predict(photos, coverage=0.9)
    np.testing.assert_allclose(found["probabilities"], expected.predictions, atol=1e-4)
    np.testing.assert_allclose(found["novelty"], pipeline.novelty(photos), atol=1e-4)
    names = model.metadata.class_names
    assert [names[number] for number in found["label"]] == expected.labels.tolist()
    for mask, one in zip(found["set_mask"], expected.sets, strict=True):
        assert {name for name, has in zip(names, mask, strict=True) if has} == set(one)
    proto = onnx.load(exported)
    assert proto.opset_import[0].version >= OPSET
    assert [each.dim_param for each in proto.graph.input[0].type.tensor_type.shape.dim][:3] == [
        "batch",
        "height",
        "width",
    ]
    assert "/site-packages/" not in str(proto)
    assert [model.license for model in model.metadata.models] == ["apache-2.0", "apache-2.0"]


BLOCKER = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED and name.partition(".")[0] not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
ALLOWED = {"numpy", "PIL", "onnxruntime", "predict"}
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_py_requires_only_numpy_pillow_and_onnxruntime(
    pipeline: InferencePipeline, exported: Path, photos: list[str]
) -> None:
    script = exported.with_name("predict.py")
    assert len(script.read_text().splitlines()) <= 40
    command = [sys.executable, "-c", BLOCKER, str(script), "--json", *photos]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = pipeline.predict(photos)
    assert [row["image"] for row in rows] == photos
    assert [row["label"] for row in rows] == expected.labels.tolist()
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected.predictions, atol=1e-4)
    text = exported.with_name("README.md").read_text()
    assert "blue, green, red" in text
    assert "| test_resnet | 0.700 | apache-2.0 |" in text


def test_a_users_own_files_beside_the_model_are_kept(exported: Path, tmp_path: Path) -> None:
    metadata = OnnxModel(exported).metadata
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "new").mkdir()
    write_companions(tmp_path / "new", tmp_path / "model.onnx", metadata)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["index.html", "predict.py"]
    for name in COMPANIONS:
        shutil.copy(exported.with_name(name), tmp_path / name)
    write_companions(tmp_path / "new", tmp_path / "model.onnx", metadata)  # those of an earlier export are replaced
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(COMPANIONS)


def test_binary_multilabel_and_regression_give_the_outputs_of_torch(tmp_path: Path) -> None:
    module = Problems().eval()
    onnx.save(OnnxFormat().convert(module), tmp_path / "model.onnx")  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert module.output_names == [
        "probabilities_0", "label_0", "set_mask_0", "probabilities_1", "given_1", "prediction_2", "interval_2"
    ]  # fmt: skip
    images = torch.cat([module.example(), module.example()])
    with torch.no_grad():
        expected = module(images)
    found = session.run(None, {"images": images.numpy()})
    for name, ours, theirs in zip(module.output_names, found, expected, strict=True):
        assert ours.dtype == theirs.numpy().dtype, name
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-10, err_msg=name)
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[-1][:, 1] - found[-1][:, 0], 5.0)
