"""Batches of tensors from decoded images, prefetched by threads; and images as a torch dataset."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
import torch
from PIL import Image
from torch.utils.data import Dataset

from saccade.data.augmentation import TrainingTransform, Transform, as_tensor, normalise
from saccade.data.decoding import decode_image
from saccade.data.scanning import measure_pixel_range
from saccade.data.splitting import stratified_order

AHEAD = 2  # number of batches to prefetch
MOST_THREADS = 8  # most threads for prefetching if the device is not the CPU, which shares its cores with the network
Load = Callable[[int, int], torch.Tensor]  # loads the image of a row, given its number in the pass
Part = tuple[np.ndarray, np.ndarray]  # rows of a batch, and their numbers in the pass


class Images(Protocol):
    """Decoded images by number: an `ImageStore`, or a list of arrays."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image `index`, uint8 of shape (height, width, channels); where `decodes` is true, decode it now."""


class Batches:
    """Batches of images, normalised for one network; no image is dropped.

    Batch sizes are equal up to one image, since a last batch of one image would break batch norm. `num_parts` is the
    number of passes over all images, 1 without `most_in_pass`; `waited_s` the seconds of waiting in the last pass.
    """

    def __init__(
        self,
        images: Images,
        indices: np.ndarray,  # numbers of the images to use, shape (num_images,)
        targets: np.ndarray,  # in the order of `indices`, shape (num_images, ...)
        # Makes all images the same size. A `TrainingTransform` is for random passes, and runs in threads; others may
        # draw from global generators, and run between the steps of a random pass.
        transform: Transform | TrainingTransform,
        batch_size: int,  # maximum number of images in a batch
        mean: tuple[float, ...],  # of values in [0, 1], per channel
        std: tuple[float, ...],
        device: torch.device | None = None,
        weights: np.ndarray | None = None,  # shape (num_images,); with weights, batches are ``(x, y, weights)``
        draw: np.ndarray | None = None,  # probability of each image, with replacement; None takes each image once
        num_threads: int | None = None,  # for prefetching; the batches do not depend on it
        most_in_pass: int | None = None,  # images in a random pass; the following passes contain the other images
        strata: np.ndarray | None = None,  # by which such passes are stratified: see `stratified_order`
    ) -> None:
        self.images, self.indices, self.transform = images, indices, transform
        self.targets = torch.from_numpy(np.asarray(targets))
        self.weights = None if weights is None else torch.from_numpy(weights)
        self.draw = None if draw is None else torch.from_numpy(draw)
        self.batch_size, self.mean, self.std = batch_size, mean, std
        self._strata = np.zeros(len(indices), np.int64) if strata is None else strata
        self.device = device or torch.device("cpu")
        share = torch.get_num_threads()  # cores of this trial
        suitable = 1 if self.device.type == "cpu" else min(MOST_THREADS, share)
        self.num_threads = num_threads or (max(2, share) if getattr(images, "decodes", False) else suitable)
        self.num_parts = -(-len(indices) // (most_in_pass or len(indices))) if len(indices) else 1
        self.waited_s = 0.0

    def __len__(self) -> int:
        return -(-self.num_in_pass // self.batch_size)

    @property
    def num_images(self) -> int:
        """Number of all images."""
        return len(self.indices)

    @property
    def num_in_pass(self) -> int:
        """Number of images in a random pass; some passes have one less."""
        return -(-len(self.indices) // self.num_parts)

    def shuffled(
        self, batches: Sequence[np.ndarray] | None = None, places: Callable[[int], np.ndarray] = np.arange
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the batches of `shuffled_rows`, or given ones; random images depend on the global generator of torch.

        Of a batch of n images only those at ``places(n)`` are loaded; they are the same as in the whole batch, unless
        a custom transform draws random numbers.
        """
        batches = self.shuffled_rows() if batches is None else batches
        seed = int(torch.randint(2**62, ())) if isinstance(self.transform, TrainingTransform) else 0
        firsts = np.cumsum([0, *map(len, batches)])
        taken = [places(len(rows)) for rows in batches]
        parts = [(rows[at], first + at) for rows, first, at in zip(batches, firsts, taken, strict=False)]
        if not isinstance(self.transform, TrainingTransform):  # each batch is prepared on demand
            return self._timed(self._finish(rows, torch.stack([self._fixed(row) for row in rows])) for rows, _ in parts)
        return self._timed(self._ahead(parts, functools.partial(self._varied, seed)))

    def shuffled_rows(self, number: int = 0) -> list[np.ndarray]:
        """Return the rows of each batch of a pass, in a random order.

        The order depends on the global generator of torch, and on the pass number.
        """
        if self.draw is not None:
            drawn = torch.multinomial(self.draw, self.num_in_pass, replacement=True).numpy()
        elif self.num_parts == 1:
            drawn = torch.randperm(len(self.indices)).numpy()
        else:  # with a seed per turn, so that successive passes contain different images
            turn, part = divmod(number, self.num_parts)
            rng = np.random.default_rng(turn)
            drawn = rng.permutation(np.array_split(stratified_order(self._strata, rng), self.num_parts)[part])
        return np.array_split(drawn, len(self))

    def in_order(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield batches in order."""
        num_batches = max(1, -(-self.num_images // self.batch_size))
        parts = np.array_split(np.arange(self.num_images), num_batches)
        return self._timed(self._ahead([(rows, rows) for rows in parts], lambda row, _: self._fixed(row)))

    def known_of(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Return the targets of these rows, and the weights if there are any."""
        known = (self.targets,) if self.weights is None else (self.targets, self.weights)
        return [values[torch.from_numpy(rows)].to(self.device) for values in known]

    def unvaried(self) -> Batches:
        """Return batches whose pass in order applies a `TrainingTransform` without randomness."""
        vary, rng = self.transform, np.random.default_rng(0)
        assert isinstance(vary, TrainingTransform)

        def fixed(x_CHW: torch.Tensor) -> torch.Tensor:
            return vary(x_CHW.permute(1, 2, 0).numpy(), rng)

        targets = self.targets.numpy()
        return Batches(self.images, self.indices, targets, fixed, self.batch_size, self.mean, self.std, self.device)

    def _varied(self, seed: int, row: int, number: int) -> torch.Tensor:
        """Return an augmented image; it depends on the seed of the pass and the number, not on the thread."""
        assert isinstance(self.transform, TrainingTransform)
        rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        return self.transform(self.images[int(self.indices[row])], rng)

    def _fixed(self, row: int) -> torch.Tensor:
        assert not isinstance(self.transform, TrainingTransform)
        return self.transform(as_tensor(self.images[int(self.indices[row])]))

    def _ahead(self, parts: Sequence[Part], load: Load) -> Generator[tuple[torch.Tensor, ...]]:
        """Prefetch batches by threads."""
        pool = ThreadPoolExecutor(self.num_threads, "saccade-batches", initializer=be_one_thread)
        coming = (_Pending(part, load, pool, self.num_threads, self.device.type == "cuda") for part in parts)
        try:
            waiting = deque(itertools.islice(coming, AHEAD))
            while waiting:
                batch = waiting.popleft()
                ready = self._finish(batch.rows, batch.images())
                waiting.extend(itertools.islice(coming, 1))  # after the step above, which needs the cores
                yield ready
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, batches: Generator[tuple[torch.Tensor, ...]]) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield batches, and count the seconds until each is ready."""
        self.waited_s = 0.0
        with contextlib.closing(batches):
            while True:
                start_s = time.perf_counter()
                batch = next(batches, None)
                self.waited_s += time.perf_counter() - start_s
                if batch is None:
                    return
                yield batch

    def _finish(self, rows: np.ndarray, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Asynchronous only from pinned memory: pageable memory may be freed or reused before it is copied.
        x_BCHW = x_BCHW.to(self.device, non_blocking=x_BCHW.is_pinned())
        return normalise(x_BCHW, self.mean, self.std), *self.known_of(rows)


class _Pending:
    """A batch that threads are filling."""

    def __init__(self, part: Part, load: Load, pool: ThreadPoolExecutor, num_parts: int, is_pinned: bool) -> None:
        self.rows, self._numbers = part
        self._load, self._is_pinned = load, is_pinned
        self._lock = threading.Lock()
        self._x_BHWC: torch.Tensor | None = None
        parts = np.array_split(np.arange(len(self.rows)), min(num_parts, max(1, len(self.rows))))
        self._parts: list[Future[None]] = [pool.submit(self._fill, part) for part in parts]

    def images(self) -> torch.Tensor:
        """Wait for all images and return them, of shape (batch, channels, height, width)."""
        for part in self._parts:
            part.result()
        assert self._x_BHWC is not None
        return self._x_BHWC.permute(0, 3, 1, 2)

    def _fill(self, part: np.ndarray) -> None:
        for place in part:
            image_HWC = self._load(int(self.rows[place]), int(self._numbers[place])).permute(1, 2, 0)
            with self._lock:
                if self._x_BHWC is None:
                    shape = (len(self.rows), *image_HWC.shape)
                    self._x_BHWC = torch.empty(shape, dtype=image_HWC.dtype, pin_memory=self._is_pinned)
            self._x_BHWC.numpy()[place] = image_HWC.numpy()


_thread_pools = functools.cache(threadpoolctl.ThreadpoolController)


def be_one_thread() -> None:
    """Keep torch from starting threads in this one, which would compete with those of the network for cores."""
    torch.get_num_threads()  # torch sets the number when it is first used in a thread
    _thread_pools().limit(limits=1, user_api="openmp")


class TorchImages(Dataset[Any]):
    """A map-style dataset that decodes an image each time it is read. It can be pickled if `transform` can.

    `images` are paths, bytes, Pillow images or arrays; `labels` has a number for each, or is None. `transform` is
    called with a Pillow image in mode RGB; None returns a uint8 tensor of shape (3, height, width).

    Examples
    --------
    >>> dataset = TorchImages([Image.new("RGB", (4, 2))], labels=[7])
    >>> x_CHW, label = dataset[0]
    >>> tuple(x_CHW.shape), label
    ((3, 2, 4), 7)
    """

    def __init__(
        self,
        images: Sequence[Any],
        labels: Sequence[int | float] | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform
        self._pixel_range = measure_pixel_range(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        """Return (image, label), or the image alone if there are no labels."""
        image = decode_image(self.images[index], pixel_range=self._pixel_range).image
        if self.transform is not None:
            x = self.transform(image)
        else:
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return x if self.labels is None else (x, self.labels[index])
