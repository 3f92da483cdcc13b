"""What recorded runs teach of new ones: the learned portfolio, and forecasts that learn from the running search."""

from __future__ import annotations

from saccade.portfolio.features import DatasetDescription, Description, NetworkDescription
from saccade.portfolio.forecast import AFTER_PROBES, EARLIEST, Forecast, Forecaster
from saccade.portfolio.portfolio import EPOCHS, SHIPPED, Portfolio

__all__ = [
    "AFTER_PROBES",
    "EARLIEST",
    "EPOCHS",
    "SHIPPED",
    "DatasetDescription",
    "Description",
    "Forecast",
    "Forecaster",
    "NetworkDescription",
    "Portfolio",
]
