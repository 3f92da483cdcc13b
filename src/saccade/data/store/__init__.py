"""Decoded images: in memory-mapped files, on demand, and the cache of them."""
