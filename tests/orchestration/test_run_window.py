from __future__ import annotations

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from components.core.settings import load_settings
from components.orchestration.run_window import DAY_PATTERN, TIME_PATTERN, run_as_of

LOGICAL = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 5, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("run_type", "as_of", "logical_date", "expected"),
    [
        ("scheduled", "log", LOGICAL, None),
        ("manual", "log", None, None),
        ("scheduled", "schedule", LOGICAL, LOGICAL),
        ("manual", "schedule", None, AFTER),
        ("asset_triggered", "schedule", None, AFTER),
        ("backfill", "log", LOGICAL, LOGICAL),
    ],
)
def test_the_moment_of_a_run_by_its_type(
    run_type: str, as_of: str, logical_date: datetime | None, expected: datetime | None
) -> None:
    dag_run = SimpleNamespace(run_type=run_type, logical_date=logical_date, run_after=AFTER)
    assert run_as_of(dag_run, load_settings(orchestration={"as_of": as_of})) == expected


@pytest.mark.parametrize("text", ["2024-05-01", "2024-05-01T10:00", "2024-05-01 10:00:30.5+02:00", "2024-05-01T10:00Z"])
def test_times_that_the_schema_takes(text: str) -> None:
    assert re.search(TIME_PATTERN, text)


@pytest.mark.parametrize("text", ["yesterday", "2024-5-1", "2024-05-01T", "", "2024-05-01; drop table"])
def test_times_that_the_schema_refuses(text: str) -> None:
    assert not re.search(TIME_PATTERN, text)
    assert not re.search(DAY_PATTERN, text)
