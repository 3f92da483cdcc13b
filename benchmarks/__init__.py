"""Measurements that the project's claims rest on; each is run as ``python -m benchmarks.NAME``."""
