from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from saccade import Categorical, ImagePredictor
from saccade.errors import HyperparameterError, SavedPredictorError, SearchFailedError

MakeColours = Callable[..., pd.DataFrame]


class Net(nn.Sequential):
    """Enough to tell colours apart."""

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
        )


def grey_net(num_classes: int) -> nn.Module:
    return Net(num_classes, channels=1)


OWN = {"img_size": 16, "batch_size": 8, "epochs": 6, "lr": 0.05}


@pytest.fixture
def predictor(tmp_path: Path) -> ImagePredictor:
    return ImagePredictor(path=tmp_path / "run", verbosity=0)


@pytest.mark.parametrize("net", [Net, Net(2)], ids=["factory", "module"])
def test_a_custom_network_is_trained_saved_and_loaded(
    predictor: ImagePredictor, make_colours: MakeColours, tmp_path: Path, net: Any
) -> None:
    before = None if isinstance(net, type) else [p.clone() for p in net.parameters()]
    predictor.fit(make_colours(12), hyperparameters={**OWN, "net": net})
    test = make_colours(4, seed=5)
    expected = predictor.predict_proba(test)
    assert len(expected) == len(test)  # how well it does depends on the module's own random weights
    assert before is None or all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))
    folder = predictor.save(tmp_path / "saved")
    record = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert (record["members"][0]["blueprint"]["architecture"], record["members"][0]["blueprint"]["own"]) == (
        None,
        "Net",
    )
    with pytest.raises(SavedPredictorError, match=r"network of your own, 'Net'.*ImagePredictor.load\(path, net=…\)"):
        ImagePredictor.load(folder)
    again = ImagePredictor.load(folder, verbosity=0, net=net)
    pd.testing.assert_frame_equal(again.predict_proba(test), expected)
    pd.testing.assert_frame_equal(
        ImagePredictor.load(again.save(tmp_path / "copy"), net=Net, verbosity=0).predict_proba(test), expected
    )
    with pytest.raises(SavedPredictorError, match="cannot be loaded"):
        ImagePredictor.load(
            folder, net=lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16**2, num_classes))
        )
    again.fit(make_colours(4, seed=6), hyperparameters={"epochs": 1}, warm_start=True)


def test_a_timm_network_is_loaded_without_its_object(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    predictor.fit(make_colours(6), hyperparameters={**tiny, "epochs": 1})
    with pytest.raises(SavedPredictorError, match="load it without net"):
        ImagePredictor.load(predictor.path, net=Net)


def test_a_network_of_too_few_outputs_fails_before_anything_is_trained(
    predictor: ImagePredictor, make_colours: MakeColours
) -> None:
    with pytest.raises(HyperparameterError, match=r"into \(1, 5\); expected a tensor of shape \(1, 2\)"):
        predictor.fit(make_colours(6), hyperparameters={**OWN, "net": Net(5)})
    assert not Path(predictor.path).exists()


def test_configurations_with_objects_survive_in_all_records(
    predictor: ImagePredictor, make_colours: MakeColours
) -> None:
    space = {
        **OWN,
        "epochs": 1,
        "net": Categorical(Net, Net(2), "test_resnet"),
        "pretrained": False,
        "opt": torch.optim.RAdam,
        "transform": v2.RandomCrop(16),
    }
    predictor.fit(make_colours(8), hyperparameters=space, num_trials=3, executor="inline")
    board = predictor.leaderboard()
    assert sorted(map(str, board["model"])) == ["Net", "Net", "test_resnet"]
    assert set(map(str, board["opt"])) == {"RAdam"}
    assert set(map(str, board["train_transform"])) == {"RandomCrop"}
    run = Path(predictor.path)
    assert "model=Categorical(Net, Net, 'test_resnet')" in json.loads((run / "run.json").read_text())["space"]
    configs = [json.loads(path.read_text()) for path in run.glob("trials/*/config.json")]
    assert sorted(config["model"] for config in configs) == ["Net", "Net", "test_resnet"]
    net = None if predictor.pipeline.saved.net is None else predictor.pipeline.saved.net.value
    loaded = ImagePredictor.load(predictor.path, verbosity=0, net=net)
    assert sorted(map(str, loaded.leaderboard()["model"])) == sorted(map(str, board["model"]))


def test_a_custom_transform_of_another_size_is_an_error(predictor: ImagePredictor, make_colours: MakeColours) -> None:
    with pytest.raises(SearchFailedError, match=r"train_transform returned shape \(3, 9, 9\)"):
        predictor.fit(make_colours(6), hyperparameters={**OWN, "net": Net, "transform": v2.Resize((9, 9))})


SCRIPT = """
import sys
import pandas as pd
import torch
from saccade import ImagePredictor

print(*{"matplotlib", "optuna", "sklearn"} & set(sys.modules))  # loaded only when they are used

class Net(torch.nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, width, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(width, num_classes),
        )

    def forward(self, x):
        return self.layers(x)

def wide(num_classes):
    return Net(num_classes, 8)

class Optimizer(torch.optim.SGD):
    pass

def halve(x):
    return x[:, ::2, ::2]

predictor = ImagePredictor(path=sys.argv[2], verbosity=0).fit(
    pd.read_csv(sys.argv[1]),
    hyperparameters={"net": wide, "opt": Optimizer, "transform": halve, "img_size": 16, "crop_pct": 0.5, "epochs": 1},
    executor="process", report=False,
)
print(*sorted(predictor.leaderboard()["status"]))
"""


def test_objects_of_a_script_without_a_main_guard_reach_the_worker_process(
    make_colours: MakeColours, tmp_path: Path
) -> None:
    make_colours(8).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "train.csv"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == ["", "completed"], done.stderr


@pytest.mark.parametrize("channels", [1, 4])
def test_images_with_other_channels(
    predictor: ImagePredictor, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path, channels: int
) -> None:
    """Of four channels, the fourth alone tells the classes apart."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(32):
        image = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
        image[:, :, 3] = image[:, :, 3] // 8 + (220 if number % 2 else 0)
        picture = Image.fromarray(image[:, :, 3] if channels == 1 else image)
        picture.save(tmp_path / f"{number}.png")
        rows.append((str(tmp_path / f"{number}.png"), "light" if number % 2 else "dark"))
    frame = pd.DataFrame(rows, columns=["image", "label"])
    recipe = {**tiny, "in_chans": channels, "pretrained": True, "epochs": 3}
    predictor.fit(frame, hyperparameters=recipe, weights=tiny_weights)
    assert predictor.evaluate(frame)["top1"] == 1.0
    loaded = ImagePredictor.load(predictor.path, verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(frame), predictor.predict_proba(frame))
    record = json.loads((Path(predictor.path) / "predictor" / "predictor.json").read_text())
    assert len(record["members"][0]["blueprint"]["input"]["mean"]) == channels


def test_a_custom_network_on_grey_images(predictor: ImagePredictor, make_colours: MakeColours) -> None:
    predictor.fit(make_colours(6), hyperparameters={**OWN, "epochs": 1, "net": grey_net, "in_chans": 1})
    assert len(predictor.predict(make_colours(2, seed=3))) == 4


@pytest.mark.parametrize(("model", "img_size"), [("test_vit", 64), ("test_vit", 192), ("test_resnet", 48)])
def test_other_image_sizes_are_trained_saved_and_loaded(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any], model: str, img_size: int
) -> None:
    frame = make_colours(6)
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 1, "model": model, "img_size": img_size})
    loaded = ImagePredictor.load(predictor.path, verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(frame), predictor.predict_proba(frame))
