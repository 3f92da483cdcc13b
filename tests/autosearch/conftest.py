"""Fixtures of the models' tests that these tests use as well."""

from models.conftest import write_weights

__all__ = ["write_weights"]
