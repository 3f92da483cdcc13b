"""The path ``autogluon.core.scheduler.seq_scheduler``; see `saccade.scheduler`."""

from saccade.scheduler import LocalSequentialScheduler

__all__ = ["LocalSequentialScheduler"]
