"""The files of a store of decoded images, as they are written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource, decode_image
from saccade.data.scanning import ImageFacts, Progress, ScanRecorder, SecondsLeft, map_in_threads
from saccade.data.store.stored_form import pixels_of, shrunk
from saccade.errors import DataError, ImageReadError

FORMAT_VERSION = 4
_FIRST_FORECAST = 64  # images after which it is first foretold how large a store will be

PIXELS_FILE = "pixels.bin"  # the images one after the other, each (height, width, channels) uint8
INDEX_FILE = "index.npz"  # where each lies, and what is known of it
SUMMARY_FILE = "store.json"

HasRoom = Callable[[int, int], bool]
"""Asked while a store is built: whether there is room for so many bytes in all, of which so many are written."""


class NoRoomError(DataError):
    """There is no room for a store.

    Attributes
    ----------
    recorder : ScanRecorder
        What is known of the images that were decoded.
    """

    def __init__(self, message: str, recorder: ScanRecorder) -> None:
        super().__init__(message)
        self.recorder = recorder


@dataclass(frozen=True, eq=False)
class Index:
    """Where the pixels of each image lie; `offsets` is -1 for an image that is not there."""

    offsets: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]

    @classmethod
    def empty(cls, num_images: int) -> Index:
        """Return the index of a store without pixels."""
        zeros = np.zeros(num_images, dtype=np.int32)
        return cls(np.full(num_images, -1, dtype=np.int64), zeros, zeros.copy())


class StoreWriter:
    """Writes the files of one store into a folder that nobody reads yet."""

    def __init__(self, folder: Path, images: Sequence[ImageSource], shorter_side: int | None, channels: int) -> None:
        self._folder = folder
        self._images = images
        self._shorter_side = shorter_side
        self._channels = channels
        self._recorder = ScanRecorder(len(images), shorter_side)
        self._index = Index.empty(len(images))
        self._num_wanted = len(images)
        self._num_bytes = 0
        self._num_done = 0

    def write_pixels(
        self,
        order: Sequence[int],
        num_threads: int | None,
        deadline: SecondsLeft | None,
        on_progress: Progress | None,
        has_room: HasRoom | None,
    ) -> None:
        """Decode in threads, and append what comes out."""
        next_forecast = _FIRST_FORECAST
        self._num_wanted = len(order)
        with (
            (self._folder / PIXELS_FILE).open("wb") as file,
            contextlib.closing(map_in_threads(self._decode, order, num_threads, deadline)) as outcomes,
        ):
            for position, outcome in outcomes:
                if isinstance(outcome, ImageReadError):
                    self._recorder.record(position, outcome)
                else:
                    self._append(file, position, *outcome)
                self._num_done += 1
                if on_progress is not None:
                    on_progress(self._num_done, self._num_wanted)
                if has_room is not None and self._num_done in (next_forecast, self._num_wanted):
                    next_forecast *= 2
                    if not has_room(self._foretold_bytes(), self._num_bytes):
                        raise self.no_room(self._folder)

    def _foretold_bytes(self) -> int:
        return round(self._num_bytes / max(1, self._num_done) * self._num_wanted)

    def _decode(self, position: int) -> tuple[ImageFacts, npt.NDArray[np.uint8]] | ImageReadError:
        try:
            decoded = decode_image(self._images[position], min_shorter_side=self._shorter_side, channels=self._channels)
        except ImageReadError as error:
            return error
        pixels = pixels_of(decoded.image)
        return ImageFacts.of(pixels, decoded.full_size), shrunk(decoded, self._shorter_side, pixels)

    def _append(self, file: BinaryIO, position: int, facts: ImageFacts, pixels: npt.NDArray[np.uint8]) -> None:
        file.write(np.ascontiguousarray(pixels).data)
        self._recorder.record(position, facts)
        self._index.offsets[position] = self._num_bytes
        self._index.heights[position], self._index.widths[position] = pixels.shape[:2]
        self._num_bytes += pixels.nbytes

    def write_index(self) -> None:
        """Write all that is not pixels."""
        scan = self._recorder.finish()
        digests = bytes.fromhex("".join(digest or "0" * 32 for digest in scan.digests))
        np.savez(
            self._folder / INDEX_FILE,
            offsets=self._index.offsets,
            heights=self._index.heights,
            widths=self._index.widths,
            full_sizes=scan.sizes,
            is_constant=scan.is_constant,
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(len(scan), 16),
            skipped=np.array(scan.skipped, dtype=np.int64),
        )
        summary = {
            "format": FORMAT_VERSION,
            "num_images": len(scan),
            "num_bytes": self._num_bytes,
            "shorter_side": self._shorter_side,
            "channels": self._channels,
            "errors": {str(position): reason for position, reason in scan.errors.items()},
        }
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        (self._folder / SUMMARY_FILE).write_text(text, encoding="utf-8")

    def no_room(self, folder: Path) -> NoRoomError:
        """Say how much was written, and how much would be needed."""
        message = (
            f"No space left for the decoded images in {folder.parent}: {self._num_done} of {self._num_wanted} images "
            f"took {self._num_bytes / 1e9:.2f} GB, so about {self._foretold_bytes() / 1e9:.2f} GB are needed. "
            "Free some space, choose another folder or a smaller image size."
        )
        return NoRoomError(message, self._recorder)
