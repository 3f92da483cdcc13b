"""The path ``autogluon.vision`` that old scripts import."""

from saccade.data.dataset import ImageDataset
from saccade.errors import missing_attributes
from saccade.predictor import ImagePredictor

__all__ = ["ImageDataset", "ImagePredictor"]

__getattr__ = missing_attributes(__name__, __all__)
