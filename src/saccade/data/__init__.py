"""Images and labels: data sets, decoding, checks, splits, augmentation and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.errors import missing_attributes

if TYPE_CHECKING:
    from saccade.data.dataset import ImageDataset

__all__ = ["ImageDataset"]

# A server of an exported file decodes images where pandas is not installed.
__getattr__ = missing_attributes(__name__, __all__, {"ImageDataset": "saccade.data.dataset"})
