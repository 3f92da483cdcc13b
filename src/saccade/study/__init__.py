"""The study: trials, jobs, their life, and the journal from which they are restored."""
