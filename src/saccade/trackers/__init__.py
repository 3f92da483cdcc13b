"""Trackers that record a run in other libraries: each needs the extra of its name."""
