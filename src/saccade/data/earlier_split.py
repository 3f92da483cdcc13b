"""The images that a network was fitted to, and those that were held out, to be recognised in later data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from saccade.data.examples import ImageLike
from saccade.data.splitting import Positions
from saccade.errors import DataError

NEW, FITTED, HELD_OUT = 0, 1, 2  # the sides of images: not in the earlier data, fitted to, or held out

MAX_BYTES = 2**30  # of a file that is read, with 32 for each image

Keys = npt.NDArray[np.uint64]


def image_keys(images: Sequence[ImageLike], digests: Sequence[str]) -> Keys:
    """Return two keys for each image, of shape (num_images, 2): of its decoded pixels, and of its path or bytes.

    An image is recognised by either: the digest of pixels differs if a JPEG is decoded at another scale, the path if it
    was moved. Pictures in memory have no second key.
    """
    keys = np.zeros((len(images), 2), np.uint64)
    for row, (image, digest) in enumerate(zip(images, digests, strict=True)):
        keys[row, 0] = int(digest[:16] or "0", 16)
        if isinstance(image, str | Path | bytes):
            own = image if isinstance(image, bytes) else str(Path(image).absolute()).encode("utf-8", "surrogateescape")
            keys[row, 1] = int.from_bytes(hashlib.blake2b(own, digest_size=8).digest(), "big")
    return keys


@dataclass(frozen=True, eq=False)
class EarlierSplit:
    """The split of an earlier fit: the keys of the images on each side, sorted. What is in both counts as fitted."""

    fitted: Keys
    held_out: Keys

    @classmethod
    def of(cls, fitted: Keys, held_out: Keys) -> EarlierSplit:
        """Return the split of images with these keys, from `image_keys`."""
        return cls(np.unique(fitted), np.unique(held_out))

    def fitted_also_to(self, others: Keys) -> EarlierSplit:
        """Return the split after the network was fitted to other images as well."""
        return EarlierSplit(np.union1d(self.fitted, others), self.held_out)

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        save_file({"fitted": self.fitted, "held_out": self.held_out}, path)

    @classmethod
    def load(cls, path: Path) -> EarlierSplit | None:
        """Read the file; None if it does not exist; a DataError if it is damaged, or not a regular file."""
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            found = load_file(path)
            sides = found["fitted"], found["held_out"]
            if any(side.dtype != np.uint64 or side.ndim != 1 for side in sides):
                raise ValueError("it has other arrays than keys of images")
            return cls(*sides)
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}). Restore a copy, remove it, or fit again") from None

    def sides(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Return `NEW`, `FITTED` or `HELD_OUT` for each image, from its `image_keys`."""
        sides = np.full(len(keys), NEW, np.int64)
        for side, known in ((HELD_OUT, self.held_out), (FITTED, self.fitted)):
            sides[(np.isin(keys, known) & (keys != 0)).any(1)] = side
        return sides

    def hold_out(
        self,
        keys: Keys,
        fraction: float,
        split: Callable[[Positions, float], tuple[Positions, Positions]],
        groups: Positions | None = None,
    ) -> tuple[Positions, Positions]:
        """Return training and validation positions: images keep their side, and new ones are divided by `split`.

        A new image is on the side of the earlier images of its group, the training set if these are on both. Of the
        others at least this fraction is held out, and more if the images held out before are a smaller fraction of all.
        """
        sides = self.sides(keys)
        if groups is not None:
            for side in (FITTED, HELD_OUT):
                sides[(sides == NEW) & np.isin(groups, groups[sides == side])] = side
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


def matching_rows(keys: Keys, among: Keys) -> npt.NDArray[np.int64]:
    """Return for each image the row of the same image in `among`, by path or else by pixels; -1 where there is none.

    Both are `image_keys`, of shape (num_images, 2).
    """
    found = np.full(len(keys), -1, np.int64)
    for column in (1, 0):
        known, rows = np.unique(among[:, column], return_index=True)
        for row in np.flatnonzero((found < 0) & (keys[:, column] != 0) & np.isin(keys[:, column], known)):
            found[row] = rows[np.searchsorted(known, keys[row, column])]
    return found
