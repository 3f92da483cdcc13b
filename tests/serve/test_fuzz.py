"""Requests that schemathesis makes of the server's own description: no failure, and only answers that it describes."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest

from contracts.servers import Served

NUM_EXAMPLES = int(os.environ.get("SACCADE_FUZZ_EXAMPLES", "12"))  # of each endpoint; more by hand


@pytest.mark.filterwarnings("default")  # of schemathesis and its libraries
@pytest.mark.parametrize("path", ["/predict", "/embed", "/explain", "/model", "/health", "/ready", "/metrics"])
def test_every_answer_is_one_that_the_description_has(path: str, served: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    checks = schemathesis.checks
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operation = next(iter(schema[path].values()))
    usual = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=NUM_EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    def answer(case: Any) -> None:
        assert case.call_and_validate(checks=usual).status_code != 500

    answer()
    assert served.client.get("/health").status_code == 200
