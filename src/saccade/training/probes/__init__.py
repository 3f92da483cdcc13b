"""Linear probes: a classifier layer fitted to frozen features."""
