"""The images that a network was fitted to, and those that were held out, to be recognised in later data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from saccade.data.splitting import Positions
from saccade.errors import DataError

NEW, FITTED, HELD_OUT = 0, 1, 2
"""The sides of images: not in the earlier data, fitted to, or held out."""

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class EarlierSplit:
    """The split of an earlier fit, by the digests of images (see `saccade.data.scanning.ImageFacts`).

    Attributes
    ----------
    fitted, held_out : ndarray of uint64
        Keys of the images on each side, sorted. What is in both counts as fitted.
    """

    fitted: Keys
    held_out: Keys

    @classmethod
    def of(cls, fitted: Iterable[str], held_out: Iterable[str]) -> EarlierSplit:
        """Return the split of images with these digests."""
        return cls(np.unique(_keys(fitted)), np.unique(_keys(held_out)))

    def fitted_also_to(self, others: Keys) -> EarlierSplit:
        """Return the split after the network was fitted to other images as well."""
        return EarlierSplit(np.union1d(self.fitted, others), self.held_out)

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        save_file({"fitted": self.fitted, "held_out": self.held_out}, path)

    @classmethod
    def load(cls, path: Path) -> EarlierSplit | None:
        """Read the file; None if it does not exist.

        Raises
        ------
        DataError
            If it is damaged.
        """
        if not path.is_file():
            return None
        try:
            found = load_file(path)
            return cls(found["fitted"].astype(np.uint64), found["held_out"].astype(np.uint64))
        except (SafetensorError, OSError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}). Restore a copy, or fit again") from None

    def sides(self, digests: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return `NEW`, `FITTED` or `HELD_OUT` for each image.

        Examples
        --------
        >>> EarlierSplit.of(["aa" * 16], ["bb" * 16]).sides(["bb" * 16, "aa" * 16, "cc" * 16]).tolist()
        [2, 1, 0]
        """
        keys = _keys(digests)
        sides = np.where(np.isin(keys, self.held_out), HELD_OUT, NEW)
        sides[np.isin(keys, self.fitted)] = FITTED
        return sides

    def hold_out(
        self,
        digests: Iterable[str],
        fraction: float,
        split: Callable[[Positions, float], tuple[Positions, Positions]],
    ) -> tuple[Positions, Positions]:
        """Return training and validation positions: images keep their side, and new ones are divided.

        Of the new images at least this fraction is held out, and more if too few images were held out before.

        Parameters
        ----------
        digests : iterable of str
            Of all images.
        fraction : float
            Of all images that is to be held out.
        split : callable
            As `saccade.data.splitting.split_holdout`, from the positions and the fraction of some images.
        """
        sides = self.sides(digests)
        in_val, new = sides == HELD_OUT, np.flatnonzero(sides == NEW)
        if len(new):
            missing = max(fraction, (fraction * len(sides) - in_val.sum()) / len(new))
            try:
                held_out = new if missing >= 1 else new[split(new, missing)[1]]
            except DataError:  # one image of each class
                held_out = new[:0] if in_val.any() else new
            in_val[held_out] = True
        if in_val.all() or not in_val.any():  # nothing to train on; or nothing to hold out that was not fitted to
            return split(np.arange(len(sides)), fraction)
        return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def _keys(digests: Iterable[str]) -> Keys:
    return np.array([int(digest[:16] or "0", 16) for digest in digests], np.uint64)
