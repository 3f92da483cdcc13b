"""Images and labels: data sets, decoding, checks, splits, augmentation and batches."""

from __future__ import annotations

from saccade.data.dataset import ImageDataset

__all__ = ["ImageDataset"]
