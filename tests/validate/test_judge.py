"""Great Expectations as we drive it says what it says when driven plainly; what it cannot evaluate is a failure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from components.core.schemas import EVENTS
from components.core.sections import ValidateSettings
from components.validate.checks import Range, day_checks
from components.validate.day import DERIVED
from components.validate.judge import Judge, check_agreement
from components.validate.results import table_results
from components.validate.rules import Mask, Present, Unique, Within, event_rules


@pytest.fixture(scope="module")
def judge():
    return Judge()


@pytest.fixture
def frame():
    """Eight rows, most of them bad in one way."""
    return pd.DataFrame(
        {
            "event_id": ["a", "b", "b", "b", None, "f", "g", "h"],
            "user_id": ["u"] * 8,
            "item_id": ["i", None, "i", "i", "i", "i", "i", "i"],
            "event_type": ["purchase", "purchase", "teleport", None, "view", "cart", "view", "view"],
            "timestamp": pd.to_datetime(["2024-05-01T10:00:00Z"] * 7 + [None]),
            "session_id": ["s"] * 8,
            "quantity": [1.0, 0.0, -1.0, 1000.0, 1001.0, np.nan, 1.0, 1.0],
            "price": [1.0, np.nan, 0.0, 1.0, 1.0, 100_001.0, 1.0, 1.0],
            "has_user_or_session": [True] * 7 + [False],
            "hour_of_day": [0.0, 23.9, 24.0, -0.1, 1.0, 1.0, 1.0, np.nan],
            "is_in_stretch": [True] * 8,
            "is_product": [True, False] + [True] * 6,
            "is_unknown_item": [0.0] * 8,
            "is_quarantined": [0.0] * 8,
        }
    )


@pytest.fixture
def expectations():
    settings = ValidateSettings()
    checks = day_checks(settings, columns=(*EVENTS.names, *DERIVED), has_catalog=True)
    return [*event_rules(settings), *checks]


def test_analytics_are_off_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "true")
    Judge()
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_our_faster_expectations_find_what_the_plain_ones_find(judge, frame, expectations):
    import great_expectations as gx
    import great_expectations.expectations as gxe

    plain = gx.ExpectationSuite(name="plain", expectations=[each.expectation(gxe) for each in expectations])
    quick = judge.suite("quick", expectations)
    assert judge.run(quick, frame) == judge.run(plain, frame)
    assert type(plain.expectations[0]) is gxe.ExpectColumnValuesToNotBeNull


def test_every_rule_finds_the_rows_that_great_expectations_counts(judge, frame, expectations):
    rules = event_rules(ValidateSettings())
    outcomes = judge.run(judge.suite("rules", rules), frame)
    check_agreement(rules, frame, outcomes)
    assert {rule.name: outcomes[rule.name].unexpected for rule in rules} == {
        "event_id: Present": 1,
        "item_id: Present": 1,
        "event_type: Present": 1,
        "timestamp: Present": 1,
        "has_user_or_session: OneOf": 1,
        "event_id: Unique": 3,
        "event_type: OneOf": 1,
        "hour_of_day: Within": 2,
        "quantity: Within": 3,
        "price: Within": 2,
        "is_in_stretch: OneOf": 0,
        "is_product: OneOf": 1,
    }


def test_the_first_of_repeated_ids_stays(frame):
    mask = Unique(column="event_id", sentence="").reasons(frame)["event_id is repeated"]
    assert mask.tolist() == [False, False, True, True, False, False, False, False]


def test_a_rule_that_disagrees_with_great_expectations_is_caught(judge, frame):
    @dataclass(frozen=True, kw_only=True)
    class Careless(Present):
        def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
            return {"never": np.zeros(len(frame), bool)}

    rule = Careless(column="item_id", sentence="")
    outcomes = judge.run(judge.suite("careless", [rule]), frame)
    with pytest.raises(AssertionError, match="finds 1 rows, the rule 0"):
        check_agreement([rule], frame, outcomes)


def test_what_cannot_be_evaluated_fails_the_run_whatever_its_severity(judge, frame):
    check = Range(name="lost", sentence="", severity="info", column="no_such_column", high=1)
    outcomes = judge.run(judge.suite("lost", [check]), frame)
    assert outcomes["lost"].error
    (result,) = table_results("log", [check], outcomes, frame)
    assert result.status == "failed"


def test_a_range_may_be_open_below_and_closed_above():
    rule = Within(column="x", low=0, strict_low=True, high=2, sentence="", low_reason="low", high_reason="high")
    found = rule.reasons(pd.DataFrame({"x": [0.0, 0.1, 2.0, 2.1, np.nan]}))
    assert {reason: mask.tolist() for reason, mask in found.items()} == {
        "low": [True, False, False, False, False],
        "high": [False, False, False, True, False],
    }
