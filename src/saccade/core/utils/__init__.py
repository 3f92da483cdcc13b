"""The path ``autogluon.core.utils``."""

from saccade.core.utils.files import download, unzip
from saccade.errors import missing_attributes

__all__ = ["download", "unzip"]

__getattr__ = missing_attributes(__name__, __all__)
