"""The path ``autogluon.core.searcher``; see `saccade.searcher`."""

from saccade.compat.local_searchers import LocalGridSearcher, LocalRandomSearcher, LocalSearcher

__all__ = ["LocalGridSearcher", "LocalRandomSearcher", "LocalSearcher"]
