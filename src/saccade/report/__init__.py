"""Reports of a run for a terminal or a notebook: tables and figures."""
