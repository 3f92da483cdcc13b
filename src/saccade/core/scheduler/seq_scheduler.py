"""The path ``autogluon.core.scheduler.seq_scheduler``; see `saccade.scheduler`."""

from saccade.compat.local_sequential import LocalSequentialScheduler

__all__ = ["LocalSequentialScheduler"]
