"""The path ``autogluon.core.scheduler``; see `saccade.scheduler`."""

from saccade.core.scheduler.seq_scheduler import LocalSequentialScheduler
from saccade.errors import missing_attributes

__all__ = ["LocalSequentialScheduler"]

__getattr__ = missing_attributes(__name__, __all__)
