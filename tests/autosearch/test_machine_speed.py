from __future__ import annotations

import math

import pytest
import torch

from saccade import Categorical
from saccade.autosearch import machine_speed
from saccade.autosearch.description import describe_recipe
from saccade.autosearch.features import DatasetDescription, Description
from saccade.autosearch.machine_speed import forward_seconds, measure_log_speed
from saccade.autosearch.portfolio import Portfolio
from saccade.training.recipes.recipe import recipe_space

CPU = torch.device("cpu")


def test_larger_images_and_larger_networks_take_longer() -> None:
    space = recipe_space(
        {"model": Categorical("test_resnet", "resnet50"), "img_size": Categorical(32, 224), "in_chans": 1}
    )
    found = forward_seconds(space, device=CPU, num_threads=1, longest_s=600)
    seconds = {(network.family, network.num_params > 1e6, network.input_size): s for network, s in found.items()}
    small, large = (sorted(key for key in seconds if key[1] is is_large) for is_large in (False, True))
    assert len(small) == len(large) == 2
    assert seconds[large[1]] > seconds[large[0]]
    assert seconds[large[1]] > 2 * seconds[small[1]]


def test_timing_stops_at_its_limit_and_restores_the_threads() -> None:
    before = torch.get_num_threads()
    space = recipe_space({"model": Categorical("test_resnet", "test_vit", "resnet18"), "pretrained": False})
    assert forward_seconds(space, device=CPU, num_threads=1, longest_s=0) == {}
    assert len(forward_seconds(space, device=CPU, num_threads=1, longest_s=1e-9)) <= 1
    assert torch.get_num_threads() == before


def test_nothing_is_timed_on_other_devices_or_with_a_single_network() -> None:
    several = Categorical("test_resnet", "test_vit")
    assert forward_seconds(recipe_space({"model": several}), device=torch.device("meta"), longest_s=60) == {}
    assert forward_seconds(recipe_space({"model": "test_resnet"}), device=CPU, longest_s=60) == {}
    mixed = Categorical("test_resnet", lambda num_classes: torch.nn.Linear(1, num_classes))
    assert len(forward_seconds(recipe_space({"model": mixed}), device=CPU, num_threads=1, longest_s=60)) == 1


def test_the_speed_is_that_of_a_step_and_restores_threads_and_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_threads, state, seen = torch.get_num_threads(), torch.get_rng_state(), []

    def step_s(device: torch.device, longest_s: float) -> float:
        seen.append(torch.get_num_threads())
        return step(device, longest_s)

    step = machine_speed._step_s
    monkeypatch.setattr(machine_speed, "_step_s", step_s)
    assert math.isfinite(measure_log_speed("cpu", num_threads=1))
    assert seen == [1]
    assert torch.get_num_threads() == num_threads
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr(machine_speed, "_step_s", lambda *_: 2 * machine_speed.RECORDED_STEP_S)
    assert measure_log_speed(CPU) == pytest.approx(math.log(2))
    assert machine_speed.worker_speed() == pytest.approx(0.5)


def test_the_recorded_step_agrees_with_the_portfolio() -> None:
    # A CPU that trains 45 images of 224 pixels a second with mobilenetv2_100 takes 1 / 45 / 14.4 s for one of the 8
    # images of a step; of the portfolio's seconds that must make 45 images a second again, give or take a factor of 2.
    log_speed = math.log(8 / 45 / 14.4 / machine_speed.RECORDED_STEP_S)
    data = DatasetDescription(1192, 10)
    described: Description = describe_recipe({"model": "mobilenetv2_100"}, device=CPU)
    (log_epoch_s,) = Portfolio.load().predict_log_epoch_s([described], data)
    assert 45 / 2 < 1192 / math.exp(log_epoch_s + log_speed) < 45 * 2
