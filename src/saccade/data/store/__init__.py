"""Decoded images: memory-mapped stores, their cache, and decoding at access."""
