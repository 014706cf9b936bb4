"""A made-up shop with planted bad rows: each kind ends where the contract says, and no clean row with it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime

import pytest
import typer
from typer.testing import CliRunner

from components.core.artifact import Artifact
from components.core.clock import parse_time
from components.core.settings import load_settings
from components.core.step import execute
from components.core.store import Store

REASONS = {
    "null_item": "no item_id",
    "null_event_type": "no event_type",
    "null_timestamp": "no timestamp",
    "null_identity": "neither user_id nor session_id",
    "stale": "timestamp lies far from the rest of the log",
    "unknown_event_type": "event_type is not a known kind",
    "negative_price": "price is 0 or less",
    "negative_quantity": "quantity is 0 or less",
    "outlier_price": "price is over 100,000",
    "outlier_quantity": "quantity is over 1,000",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from components.simulate.command import command

    app = typer.Typer()
    app.command()(command)
    folder = tmp_path_factory.mktemp("planted")
    kinds = [*REASONS, "duplicate", "unknown_item", "future"]
    planted = [option for kind in kinds for option in ("--defect", f"{kind}=0.01")]
    arguments = ["--users", "200", "--items", "120", "--days", "14", "--out", str(folder / "world"), *planted]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def clean(world):
    from components.ingest.step import STEP as INGEST
    from components.validate.step import STEP as VALIDATE

    source = {
        "profile": "contract",
        "events": str(world / "world" / "events" / "*.parquet"),
        "catalog": str(world / "world" / "catalog.parquet"),
    }
    settings = load_settings(home=world / "home", source=source)
    as_of: datetime = parse_time(key(world)["as_of"])
    events = execute(INGEST, settings=settings, inputs={}, run_id="test", as_of=as_of).ref
    ref = execute(VALIDATE, settings=settings, inputs={"events": events}, run_id="test").ref
    store = Store(settings.artifact_root)
    return Artifact.open(store, events.uri), Artifact.open(store, ref.uri)


def key(world):
    return json.loads((world / "world" / "key.json").read_text())


def test_every_planted_row_is_found_and_no_clean_row_is_lost(world, clean):
    events, judged = clean
    planted = key(world)["planted_rows"]
    found: Counter[str] = Counter(events.table("rejects.parquet")["reason"].to_pylist())
    found.update(judged.table("quarantine.parquet")["reason"].to_pylist())
    assert found == {reason: planted[kind] for kind, reason in REASONS.items()}
    rows = judged.manifest.statistics["rows"]
    assert rows["duplicates"] == planted["duplicate"]
    assert rows["kept"] == key(world)["clean_rows"] + planted["unknown_item"]
    assert events.manifest.statistics["left_out"]["after_as_of"] == planted["future"]
