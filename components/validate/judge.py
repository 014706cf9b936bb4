"""Great Expectations, made small: one ephemeral context, one suite object a table, one result a check.

Its cost is its own bookkeeping, some 3 CPU-milliseconds a check and table; the rows hardly count.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from components.validate.checks import Check
from components.validate.rules import Rule


@dataclass(frozen=True)
class Outcome:
    """How one expectation went on one table."""

    success: bool
    unexpected: int | None = None
    """Rows that break it; None for a check of the table as a whole."""
    observed: float | None = None
    error: str | None = None
    """Great Expectations could not evaluate it: counts as a critical failure."""


class Judge:
    """`judge.suite(...)` once a table, `judge.run(suite, frame)` once a batch."""

    def __init__(self) -> None:
        # Great Expectations reads this when it is imported; without it, it reports its use to its makers.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations, which a user of ours can do nothing about
            import great_expectations as gx
            import great_expectations.expectations as gxe
        self._gx, self._expectations = gx, _Remembering(gxe)
        # It reports each temporary name it thinks of; in a task's log that is noise.
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}  # type: ignore[assignment]  # a dict is what it documents
        asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
        self._batches = asset.add_batch_definition_whole_dataframe("whole")

    def suite(self, name: str, rules: Sequence[Rule | Check]) -> Any:
        return self._gx.ExpectationSuite(
            name=name, expectations=[rule.expectation(self._expectations) for rule in rules]
        )

    def run(self, suite: Any, frame: pd.DataFrame) -> dict[str, Outcome]:
        """Outcome of every rule and check of the suite on `frame`, by name."""
        outcomes = self.outcomes(self.result(suite, frame))
        assert set(outcomes) == {expectation.meta["check"] for expectation in suite.expectations}
        return outcomes

    def result(self, suite: Any, frame: pd.DataFrame) -> Any:
        """Great Expectations' own result object, for its Data Docs."""
        batch = self._batches.get_batch({"dataframe": frame})
        return batch.validate(suite, result_format="BASIC")

    @staticmethod
    def outcomes(result: Any) -> dict[str, Outcome]:
        return {single.expectation_config.meta["check"]: _outcome(single) for single in result.results}

    def data_docs_page(self, result: Any) -> str:
        """HTML of Great Expectations' own; loads its style from the internet when looked at."""
        from great_expectations.render import renderer, view

        page: Any = view.DefaultJinjaPageView()  # type: ignore[attr-defined]  # it lists no exports
        return str(page.render(renderer.ValidationResultsPageRenderer().render(result)))  # type: ignore[attr-defined]


class _Remembering:
    """`great_expectations.expectations`, each class in a form that builds its configuration once.

    A plain expectation rebuilds it some 70 times a validation, which is a third of all the time that a day takes. An
    expectation does not change once it is made, so the first one will do.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _remembering(getattr(self._module, name))


@cache
def _remembering(base: Any) -> Any:
    from great_expectations.compatibility.pydantic import PrivateAttr

    def configuration(self: Any) -> Any:
        if self._first is None:
            self._first = base.configuration.fget(self)
        return self._first

    body = {"_first": PrivateAttr(None), "configuration": property(configuration), "__module__": __name__}
    # Great Expectations knows expectations by name: a name of its own leaves the original as it is.
    return type(base)(f"{base.__name__}Once", (base,), body)


def check_agreement(rules: Sequence[Rule], frame: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> None:
    """The rows that we quarantine are those that Great Expectations counted; anything else is a defect of ours."""
    for rule in rules:
        outcome = outcomes[rule.name]
        if outcome.error is None and outcome.unexpected != rule.unexpected(frame):
            raise AssertionError(
                f"{rule.name}: Great Expectations finds {outcome.unexpected} rows, the rule {rule.unexpected(frame)}"
            )


def _outcome(single: Any) -> Outcome:
    error = _error(single.exception_info or {})
    if error is not None:
        return Outcome(success=False, error=error)
    observed = single.result.get("observed_value")
    unexpected = single.result.get("unexpected_count")
    return Outcome(
        success=bool(single.success),
        unexpected=None if unexpected is None else int(unexpected),
        observed=float(observed) if isinstance(observed, (int, float)) else None,
    )


def _error(info: Mapping[str, Any]) -> str | None:
    """Exceptions come either plain or by metric."""
    for part in [info, *(value for value in info.values() if isinstance(value, Mapping))]:
        if part.get("raised_exception"):
            return str(part.get("exception_message") or "unknown error")
    return None
