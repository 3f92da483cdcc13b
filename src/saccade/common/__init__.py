"""The paths of ``autogluon.common`` that old scripts import."""

from saccade.common import space
from saccade.errors import missing_attributes

__all__ = ["space"]

__getattr__ = missing_attributes(__name__, __all__)
