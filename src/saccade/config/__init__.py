"""A whole fit as a TOML file, and the language of its values, which the command line speaks too."""

from saccade.config.fit_config import FIT_TOML, FitConfig

__all__ = ["FIT_TOML", "FitConfig"]
