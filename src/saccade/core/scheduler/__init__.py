"""The path ``autogluon.core.scheduler``; see `saccade.scheduler`."""

from saccade.core.scheduler.seq_scheduler import LocalSequentialScheduler

__all__ = ["LocalSequentialScheduler"]
