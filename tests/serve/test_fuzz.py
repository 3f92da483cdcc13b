"""Requests that schemathesis makes of the server's own description: no failure, and only answers that it describes."""

from __future__ import annotations

import os
from typing import Any

import httpx2
import hypothesis
import pytest

from contracts.servers import Served

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
NUM_EXAMPLES = int(os.environ.get("SACCADE_FUZZ_EXAMPLES", "12"))  # of each endpoint; more by hand


@pytest.fixture(scope="module")
def description(served: Served) -> Any:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("description")


@pytest.mark.filterwarnings("default")  # of schemathesis and its libraries
@schema.parametrize()
@hypothesis.settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_answer_is_one_that_the_description_has(case: Any, served: Served) -> None:
    from schemathesis import checks

    response = case.call_and_validate(
        checks=[checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
    )
    assert response.status_code != 500
    assert httpx2.get(f"{served.url}/health", trust_env=False).status_code == 200
