"""Reports of a run: the HTML report, tables for a terminal, and the model card."""
