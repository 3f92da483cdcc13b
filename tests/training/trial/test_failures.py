from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from saccade.errors import DiskFullError, OutOfMemoryError
from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.trainer import explained_failures

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError(FULL)])
def test_a_full_disk_is_a_disk_full_error_with_the_folder(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=f"weights of resnet18 in {tmp_path}"),
        explained_failures(Recipe(), tmp_path),
    ):
        raise error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_an_out_of_memory_error_with_the_batch_size(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="batch_size=16"), explained_failures(Recipe(), tmp_path):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), OSError(errno.EACCES, "denied"), SafetensorError("broken")])
def test_other_errors_are_not_changed(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, explained_failures(Recipe(), tmp_path):
        raise error
    assert raised.value is error
