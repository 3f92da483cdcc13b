from __future__ import annotations

import torch

from saccade import Categorical
from saccade.autosearch.network_speed import forward_seconds
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


def test_measuring_ends_in_time_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    space = recipe_space({"model": Categorical("test_resnet", "test_vit", "resnet18"), "pretrained": False})
    assert forward_seconds(space, device=CPU, num_threads=1, longest_s=0) == {}
    assert len(forward_seconds(space, device=CPU, num_threads=1, longest_s=1e-9)) <= 1
    assert torch.get_num_threads() == before


def test_nothing_is_measured_on_other_devices_and_where_there_is_nothing_to_compare() -> None:
    several = Categorical("test_resnet", "test_vit")
    assert forward_seconds(recipe_space({"model": several}), device=torch.device("meta"), longest_s=60) == {}
    assert forward_seconds(recipe_space({"model": "test_resnet"}), device=CPU, longest_s=60) == {}
    mixed = Categorical("test_resnet", lambda num_classes: torch.nn.Linear(1, num_classes))
    assert len(forward_seconds(recipe_space({"model": mixed}), device=CPU, num_threads=1, longest_s=60)) == 1
