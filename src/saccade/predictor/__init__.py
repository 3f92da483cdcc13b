"""`ImagePredictor`, and scikit-learn estimators on top of it."""

from __future__ import annotations

from saccade.predictor.predictor import ImagePredictor

__all__ = ["ImagePredictor"]
