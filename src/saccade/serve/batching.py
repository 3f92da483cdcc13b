"""Dynamic batching: the images of concurrent requests are decoded in threads and computed together in one."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class QueueFullError(Exception):
    """There are as many waiting images as the queue may have."""


@dataclass(eq=False)
class _Image:
    """An image of a request, and the place of its result."""

    data: Any  # its file, and once it is decoded what `compute` takes
    future: asyncio.Future[list[Any]]  # of the request; when the answer is no longer needed, it is done
    results: list[Any]  # of the request, filled by position
    position: int
    ready_s: float = 0.0  # when it was decoded


class Batcher:
    """Computes the images of concurrent requests in batches.

    `num_threads` threads decode images. Another one calls `compute` with up to `max_batch` of them. It waits for more
    images only while some are being decoded, and for at most `max_wait_s` since the first one was. `decode` and
    `compute` raise an error or return a result: `compute` one for each image. `initialize` is called first in each
    thread that decodes, and `on_batch` with the size of each batch. At most `max_images` wait at a time.

    All methods are called in the event loop that runs when the object is made.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        compute: Callable[[list[Any]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait_s: float,
        max_images: int,
        num_threads: int,
        initialize: Callable[[], None] = lambda: None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._decode, self._compute, self._initialize, self._on_batch = decode, compute, initialize, on_batch
        self._max_batch, self._max_wait_s, self._max_images = max_batch, max_wait_s, max_images
        self.num_waiting = 0  # images that were accepted and have no result yet
        self._loop = asyncio.get_running_loop()
        self._undecoded: queue.SimpleQueue[_Image | None] = queue.SimpleQueue()
        self._ready: deque[_Image] = deque()
        self._num_undecoded = 0
        self._changed = threading.Condition()  # of the two above
        self._is_closed = False
        # Daemons: a damaged file that takes a decoder for ever must not keep the process from ending.
        self._threads = [
            threading.Thread(target=target, name=f"saccade-{target.__name__.strip('_')}", daemon=True)
            for target in (self._compute_all, *[self._decode_all] * num_threads)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, images: Sequence[bytes], timeout_s: float) -> list[Any]:
        """Return the result of each image, or the exception that `decode` or `compute` raised for it.

        Raises a QueueFullError if the queue is full, and an `asyncio.TimeoutError`.
        """
        if self.num_waiting + len(images) > self._max_images:
            raise QueueFullError
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        results = [None] * len(images)
        self.num_waiting += len(images)
        with self._changed:
            self._num_undecoded += len(images)
        for position, data in enumerate(images):
            self._undecoded.put(_Image(data, future, results, position))
        return await asyncio.wait_for(future, timeout_s)

    def close(self) -> None:
        """End the threads, after the waiting images are computed; an image that takes very long is abandoned."""
        self._is_closed = True
        with self._changed:
            self._changed.notify_all()
        for _ in self._threads[1:]:
            self._undecoded.put(None)
        for thread in self._threads:
            thread.join(timeout=1)

    def _decode_all(self) -> None:
        self._initialize()
        while (image := self._undecoded.get()) is not None:
            with self._changed:  # decoded images take memory
                self._changed.wait_for(lambda: len(self._ready) < 2 * self._max_batch)
            error: Exception | None = None
            if not image.future.done():
                try:
                    image.data = self._decode(image.data)
                except Exception as found:  # the answer to the request has it
                    error = found
            is_dropped = error is not None or image.future.done()
            with self._changed:
                self._num_undecoded -= 1
                if not is_dropped:
                    image.ready_s = time.monotonic()
                    self._ready.append(image)
                if len(self._ready) in (1, self._max_batch) or not self._num_undecoded:
                    self._changed.notify_all()
            if is_dropped:
                self._deliver([image], [error])

    def _compute_all(self) -> None:
        while batch := self._next_batch():
            self._on_batch(len(batch))
            try:
                results = self._compute([image.data for image in batch])
            except Exception as error:
                results = [error] * len(batch)
            self._deliver(batch, results)

    def _next_batch(self) -> list[_Image]:
        with self._changed:
            while not self._ready:
                if self._is_closed and not self._num_undecoded:
                    return []
                self._changed.wait()
            deadline_s = self._ready[0].ready_s + self._max_wait_s
            while len(self._ready) < self._max_batch and self._num_undecoded:
                if (left_s := deadline_s - time.monotonic()) <= 0:
                    break
                self._changed.wait(left_s)
            self._changed.notify_all()  # there is room for decoded images
            num = len(self._ready)
            # Few sizes, powers of two: libraries prepare each size once, which takes time and memory.
            size = self._max_batch if num >= self._max_batch else 1 << (num.bit_length() - 1)
            return [self._ready.popleft() for _ in range(size)]

    def _deliver(self, batch: Sequence[_Image], results: Sequence[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._finish, batch, results)

    def _finish(self, batch: Sequence[_Image], results: Sequence[Any]) -> None:
        """Store results, and complete the requests of which no image is left; called in the event loop."""
        for image, result in zip(batch, results, strict=True):
            self.num_waiting -= 1
            image.results[image.position] = result
            image.data = None
            if not image.future.done() and all(each is not None for each in image.results):
                image.future.set_result(image.results)
