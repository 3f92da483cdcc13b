"""The study: trials, their jobs, and the event log from which they are restored."""
