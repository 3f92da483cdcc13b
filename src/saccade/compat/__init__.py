"""Classes that only AutoGluon's API has."""
