from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.deadline import Deadline
from saccade.events import Event, Warned
from saccade.space import Categorical
from saccade.training.probes.probe import cached_features
from saccade.training.recipes.recipe import recipe_space
from saccade.training.task import ImageTask
from saccade.training.trial import screening
from saccade.training.trial.screening import LEAST_KEPT, MOST_KEPT, ScreenedNetwork, Screening


@pytest.fixture
def events() -> list[Event]:
    return []


def screening_of(task: ImageTask, networks: list[str], events: list[Event], limit_s: float = math.inf) -> Screening:
    space = recipe_space({"model": Categorical(*networks), "img_size": 32})
    return Screening(space, task, Deadline(limit_s), events.append)


@pytest.mark.parametrize(
    ("num_networks", "limit_s", "num_kept"), [(2, 9e9, 2), (6, 9e9, 6), (30, math.inf, 4), (8, 100.0, 3), (5, 100.0, 3)]
)
def test_the_worse_half_is_dropped_until_few_are_left_or_fit_into_the_time(
    make_task: Callable[..., ImageTask],
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event],
    num_networks: int,
    limit_s: float,
    num_kept: int,
) -> None:
    names = [f"network {number}" for number in range(num_networks)]
    embedded: dict[str, int] = {}

    def probe(_: Screening, name: str, num: int, deadline: Deadline) -> ScreenedNetwork:
        embedded[name] = num
        return ScreenedNetwork(float(name.split()[1]), 0.5, image_s=1.0, num_images=num)

    monkeypatch.setattr(Screening, "_probe", probe)
    monkeypatch.setattr(screening, "FIRST_IMAGES", 2)
    monkeypatch.setattr(screening, "IMAGES_PER_OUTPUT", 1)
    task = make_task()
    found = screening_of(task, names, events, limit_s).run(names[::-1])
    assert list(found) == names[:num_kept]
    assert set(embedded) == set(names)
    assert all(embedded[name] == 2 for name in names[(num_networks + 1) // 2 :])  # dropped in the first round


def test_on_a_slow_machine_all_networks_are_compared_on_fewer_images(
    make_task: Callable[..., ImageTask], monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    asked: list[int] = []

    def probe(_: Screening, name: str, num: int, deadline: Deadline) -> ScreenedNetwork:
        asked.append(num)
        return ScreenedNetwork(float(name), 0.5, image_s=1.0, num_images=num)

    monkeypatch.setattr(Screening, "_probe", probe)
    monkeypatch.setattr(screening, "FIRST_IMAGES", 8)
    monkeypatch.setattr(screening, "LEAST_IMAGES", 3)
    monkeypatch.setattr(screening, "IMAGES_PER_OUTPUT", 1)
    names = [str(number) for number in range(8)]
    found = screening_of(make_task(), names, events, limit_s=100.0).run(names)  # 20 s for the first images
    assert asked[:3] == [8, 4, 3]
    assert all(network.num_images <= 6 for network in found.values())


def test_networks_that_must_stay_are_not_dropped(
    make_task: Callable[..., ImageTask], monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    names = [str(number) for number in range(16)]
    monkeypatch.setattr(Screening, "_probe", lambda _, name, num, deadline: ScreenedNetwork(float(name), 0.5, 1.0, num))
    found = screening_of(make_task(), names, events).run(names, always=["15"])
    assert list(found)[-1] == "15"
    assert LEAST_KEPT <= len(found) <= MOST_KEPT + 1


@pytest.mark.parametrize(("loads", "kept"), [([0.5, 3.0, 1.0, 2.0], {"0", "2"}), ([5.0, 3.0, 4.0, 9.0], {"1"})])
def test_networks_beyond_the_limits_are_left_out_or_else_all_but_the_nearest(
    make_task: Callable[..., ImageTask],
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event],
    loads: list[float],
    kept: set[str],
) -> None:
    monkeypatch.setattr(
        Screening, "_probe", lambda _, name, num, deadline: ScreenedNetwork(0.1, 0.5, 1.0, num, loads[int(name)])
    )
    one = screening_of(make_task(), list("0123"), events)
    assert set(one.run("0123")) == kept
    assert set(one.left_out) == set("0123") - kept
    assert set(screening_of(make_task(), list("0123"), events).run("0123", always=["3"])) == kept | {"3"}


def test_networks_are_ordered_by_real_probes_whose_features_are_reused(
    make_task: Callable[..., ImageTask],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event],
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "test_resnet.safetensors").symlink_to(tiny_weights / "test_resnet.safetensors")
    (folder / "test_vit.safetensors").write_bytes(b"damaged")
    task = make_task(weights=folder)
    made = screening_of(task, ["test_resnet", "test_vit"], events)
    made.limits = {"image_ms": 1e-6, "latency_ms": 1e9}
    found = made.run(["test_vit", "test_resnet"])
    assert found["test_resnet"].load > 1e3  # the part of the first limit, in milliseconds
    assert list(found) == ["test_resnet"]
    assert found["test_resnet"].score > 0.7
    assert found["test_resnet"].num_images == len(task.train.indices)
    assert "cannot be read as safetensors" in made.left_out["test_vit"]
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.text.startswith("test_vit is left out")
    classifier = made._build("test_resnet", 1, Deadline(60))
    monkeypatch.setattr("saccade.training.probes.probe.features_of", lambda *_: pytest.fail("computed again"))
    cached_features(classifier, task.store, np.sort(task.train.indices))


class _Downloads:
    """Downloads that bring a network each time they are asked, but for one that fails and one that never comes."""

    def __init__(self, networks: list[str]) -> None:
        self.networks, self.failures, self._num = networks, {networks[1]: "refused"}, 0

    def has(self, network: str) -> bool:
        self._num += 1
        return self._num > 5 and network != self.networks[-1]

    def progress(self) -> None:
        return None


def test_networks_are_probed_as_they_arrive(
    make_task: Callable[..., ImageTask], monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    monkeypatch.setattr(
        Screening, "_probe", lambda _, name, num, deadline: ScreenedNetwork(float(ord(name)), 0.5, 0.0, num)
    )
    monkeypatch.setattr(screening, "POLL_S", 0.001)
    made = screening_of(make_task(), list("abcd"), events, limit_s=1.0)
    assert list(made.run(list("abcd"), _Downloads(list("abcd")))) == ["a", "c"]  # type: ignore[arg-type]
    assert made.left_out == {"b": "refused", "d": "no time was left to probe it"}
