"""The network catalogue, where weights come from, frozen features and probes."""
