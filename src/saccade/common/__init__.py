"""The paths of ``autogluon.common`` that old scripts import."""

from saccade.common import space

__all__ = ["space"]
