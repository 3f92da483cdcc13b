"""Measurements behind the claims of the project; each runs as ``python -m benchmarks.NAME``."""
