"""What devices and disks say when they are full, as errors that say what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from saccade.errors import DiskFullError, OutOfMemoryError
from saccade.training.recipes.recipe import Recipe

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explained_faults(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Turn the ways in which memory or disk are said to be short into one error each.

    Parameters
    ----------
    recipe : Recipe
        What is trained meanwhile.
    folder : Path
        Where to its files are written.

    Raises
    ------
    OutOfMemoryError, DiskFullError
        With what to do about it.
    """
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"there is no space left for the weights of {recipe.model} in {folder}; free some, or give the fit a "
                f"path on a larger disk"
            ) from error
        if is_memory_short(error):
            raise OutOfMemoryError(
                f"{recipe.model} with batch_size={recipe.batch_size} does not fit the memory; "
                f"choose a smaller batch_size, img_size or network ({str(error).lower().splitlines()[0][:120]})"
            ) from error
        raise


def is_disk_full(error: Exception) -> bool:
    """Say whether a file could not be written for lack of space.

    Examples
    --------
    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("no such file"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    said = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return said is not None and int(said[1]) in _FULL


def is_memory_short(error: Exception) -> bool:
    """Say whether a device had too little memory; CPUs say so only in words.

    Examples
    --------
    >>> is_memory_short(RuntimeError("DefaultCPUAllocator: can't allocate memory")), is_memory_short(RuntimeError("?"))
    (True, False)
    """
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "memory" in text and "alloc" in text
    )
