"""A hub on loopback."""

from loopback_hub import hub, no_hub  # noqa: F401  (fixtures)
