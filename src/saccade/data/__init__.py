"""Images and their labels: where they come from, how they are read, and how they become batches."""

from __future__ import annotations

from saccade.data.dataset import ImageDataset

__all__ = ["ImageDataset"]
