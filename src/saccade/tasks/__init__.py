"""Problem types: labels, targets, losses, decisions and metrics."""
