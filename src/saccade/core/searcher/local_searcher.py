"""The path ``autogluon.core.searcher.local_searcher``; see `saccade.searcher`."""

from saccade.compat.local_searchers import LocalSearcher

__all__ = ["LocalSearcher"]
