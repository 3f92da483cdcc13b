"""Batches of tensors from decoded images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from saccade.data.augmentation import Transform, as_tensor, normalise


class Images(Protocol):
    """Decoded images by number: an `ImageStore`, or a list of arrays."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image `index`, uint8 of shape (height, width, channels)."""


class Batches:
    """Batches over some of the images, normalised for one network.

    Sizes are evened out, so that no batch is much smaller than the others: a last batch of one image would break
    batch normalisation. No image is ever dropped.

    Parameters
    ----------
    images : Images
        Where images come from.
    indices : array of int, shape (num_images,)
        Which of them.
    targets : array, shape (num_images, ...)
        What to learn, in the order of `indices`.
    transform : Transform
        Makes all images the same size.
    batch_size : int
        At most so many images in a batch.
    mean, std : tuple of float
        The network's normalisation, for values in [0, 1].
    device : torch.device
        Where the batches are wanted.
    weights : array or None, shape (num_images,)
        How much each image counts; with them, batches are ``(x, y, weights)``.
    draw : array or None, shape (num_images,)
        With what probability to draw each image, again and again, in a random pass; None takes each once.

    Examples
    --------
    >>> photos = [np.zeros((40, 30, 3), np.uint8)] * 5
    >>> crop = lambda x_CHW: x_CHW[:, :16, :16]
    >>> batches = Batches(photos, np.arange(5), np.zeros(5), crop, 4, (0.5,) * 3, (0.5,) * 3)
    >>> [tuple(x.shape) for x, y in batches.in_order()]
    [(3, 3, 16, 16), (2, 3, 16, 16)]
    """

    def __init__(
        self,
        images: Images,
        indices: np.ndarray,
        targets: np.ndarray,
        transform: Transform,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | None = None,
        weights: np.ndarray | None = None,
        draw: np.ndarray | None = None,
    ) -> None:
        self.images, self.indices, self.transform = images, indices, transform
        self.targets = torch.from_numpy(np.asarray(targets))
        self.weights = None if weights is None else torch.from_numpy(weights)
        self.draw = None if draw is None else torch.from_numpy(draw)
        self.batch_size, self.mean, self.std = batch_size, mean, std
        self.device = device or torch.device("cpu")

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    @property
    def num_images(self) -> int:
        """Images in one pass."""
        return len(self.indices)

    def shuffled(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """One pass in a random order of torch's global generator, which the transform draws from as well."""
        num = len(self.indices)
        order = torch.randperm(num) if self.draw is None else torch.multinomial(self.draw, num, replacement=True)
        for rows in np.array_split(order.numpy(), len(self)):
            yield self._finish(rows, [self._load(row) for row in rows])

    def in_order(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """One pass in order; the next batch is prepared by a thread while the caller uses this one."""
        parts = np.array_split(np.arange(len(self.indices)), max(1, len(self)))
        with ThreadPoolExecutor(2) as pool:

            def prepare(rows: np.ndarray) -> list[Future[torch.Tensor]]:
                return [pool.submit(self._load, row) for row in rows]

            waiting = prepare(parts[0])
            for rows, following in zip(parts, [*parts[1:], parts[0][:0]], strict=True):
                ready, waiting = [future.result() for future in waiting], prepare(following)
                yield self._finish(rows, ready)

    def _load(self, row: int) -> torch.Tensor:
        return self.transform(as_tensor(self.images[int(self.indices[row])]))

    def _finish(self, rows: np.ndarray, images_CHW: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x_BCHW = torch.stack(list(images_CHW)).to(self.device, non_blocking=True)
        known = (self.targets,) if self.weights is None else (self.targets, self.weights)
        of_rows = [values[torch.from_numpy(rows)].to(self.device, non_blocking=True) for values in known]
        return normalise(x_BCHW, self.mean, self.std), *of_rows
