"""One fit: its options, run folder, data preparation, search and result."""
