"""The path ``autogluon.vision`` that old scripts import."""

from saccade.data.dataset import ImageDataset
from saccade.predictor import ImagePredictor

__all__ = ["ImageDataset", "ImagePredictor"]
