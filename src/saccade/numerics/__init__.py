"""Device, precision, memory format and compilation of a network."""
