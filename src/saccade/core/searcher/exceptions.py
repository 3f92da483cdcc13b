"""The path ``autogluon.core.searcher.exceptions``; see `saccade.errors`."""

from saccade.errors import ExhaustedSearchSpaceError

__all__ = ["ExhaustedSearchSpaceError"]
