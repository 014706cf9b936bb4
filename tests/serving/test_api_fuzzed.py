"""Schemathesis over the API's own description: hundreds of requests, valid and not, and never a 5xx.

The real app on a small real bundle, asked in process with a key that may do everything.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from components.core.settings import load_settings
from serving.app import create_app
from serving.state import ServiceState
from tests.serving.event_worker import Reader

pytestmark = pytest.mark.slow

KEY = "may-do-everything"
CASES_A_ROUTE = 45


@pytest.fixture(scope="module")
def app(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    digest = f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
    serve = {
        "bundle": str(bundle_folder),
        "admin": True,
        "api_keys": [{"digest": digest, "roles": ["recommend", "feedback", "admin"], "name": "fuzz"}],
        "served_log_share": 1.0,
        "exploration": 0.3,
    }
    settings = load_settings(home=tmp_path_factory.mktemp("fuzzed"), serve=serve)
    state = ServiceState(settings)
    state.refresh()
    return create_app(settings, state=state, reader=Reader())  # type: ignore[arg-type]


def test_no_request_that_the_description_allows_or_forbids_is_answered_by_a_5xx(app: Any) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked: Counter[str] = Counter()
    answered: Counter[int] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation, mode in itertools.product(operations, GenerationMode):
        has_input = operation.body or operation.query or operation.path_parameters
        if mode is GenerationMode.NEGATIVE and not has_input:
            continue

        @hypothesis.settings(
            max_examples=CASES_A_ROUTE,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            response = case.call(headers={"Authorization": f"Bearer {KEY}"})
            case.validate_response(
                response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
            )
            asked[case.operation.label] += 1
            answered[response.status_code] += 1

        ask()
    assert sum(asked.values()) >= 500, asked
    assert len(asked) == len(operations)
    assert min(answered[200], answered[422]) > 50, answered
    assert max(answered) < 500
