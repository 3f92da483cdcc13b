"""Files at URLs, which fsspec reads and writes."""
