"""Histories and statistics of users, as the features artifact knew them at a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from components.core.artifact import Artifact
from components.core.schemas import USER_HISTORY, USER_STATISTICS
from components.core.settings import load_settings
from components.core.step import Step, StepContext, StepReport, execute
from components.core.store import Store
from components.inputs.users import has_snapshot, read_histories, read_statistics

EARLY, LATE = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)
HISTORIES: list[dict[str, Any]] = [
    {"user_id": "u1", "event_timestamp": EARLY, "history_items": ["a"], "history_weights": [1.0]},
    {"user_id": "u1", "event_timestamp": LATE, "history_items": ["c", "gone", "a"], "history_weights": [0.2, 9.0, 2.0]},
    {"user_id": "u3", "event_timestamp": LATE, "history_items": [], "history_weights": []},
    {"user_id": "u2", "event_timestamp": LATE, "history_items": ["b"], "history_weights": [1.0]},
]
STATISTICS: list[dict[str, Any]] = [
    {"user_id": "u1", "event_timestamp": EARLY, "recency_days": 9.0, "frequency": 1},
    {"user_id": "u1", "event_timestamp": LATE, "recency_days": 1.5, "frequency": 4},
    {"user_id": "u2", "event_timestamp": LATE, "recency_days": None, "frequency": 0},
]
ITEM_IDS = pa.array(["a", "b", "c"])


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    def run(context: StepContext) -> StepReport:
        def aged(row: dict[str, Any]) -> dict[str, Any]:
            ages = [float(place) for place in range(len(row["history_items"]))]
            return {"created_timestamp": LATE, "history_ages_days": ages, **row}

        histories = [aged(row) for row in HISTORIES]
        statistics = [{"created_timestamp": LATE, **row} for row in STATISTICS]
        context.output.write_table("user_history.parquet", pa.Table.from_pylist(histories, schema=USER_HISTORY))
        context.output.write_table("user_statistics.parquet", pa.Table.from_pylist(statistics, schema=USER_STATISTICS))
        return StepReport(summary="features", rows=4)

    settings = load_settings(home=tmp_path_factory.mktemp("features"))
    step = Step(name="features", kind="features", inputs=(), sections=(), rooms=("components.core.errors",), run=run)
    ref = execute(step, settings=settings, inputs={}, run_id="test", as_of=LATE).ref
    return Artifact.open(Store(settings.artifact_root), ref.uri)


def test_histories_come_in_the_order_asked_for_as_places_in_the_table(features: Artifact) -> None:
    users = pa.array(["u2", "u1", "nobody", "u3"])
    histories = read_histories(features, LATE, user_ids=users, item_ids=ITEM_IDS)
    assert histories.lengths.tolist() == [1, 2, 0, 0]
    assert histories.items.tolist() == [1, 2, 0]  # 'gone' is in no table
    assert histories.weights.tolist() == pytest.approx([1, 0.2, 2])
    assert histories.ages_days.tolist() == [0, 0, 2]


def test_a_moment_sees_its_own_snapshot_alone(features: Artifact) -> None:
    histories = read_histories(features, EARLY, user_ids=pa.array(["u1", "u2"]), item_ids=ITEM_IDS)
    assert (histories.lengths.tolist(), histories.items.tolist()) == ([1, 0], [0])
    assert has_snapshot(features, EARLY)
    assert not has_snapshot(features, EARLY + timedelta(days=1))
    nothing = read_histories(features, EARLY + timedelta(days=1), user_ids=pa.array(["u1"]), item_ids=ITEM_IDS)
    assert (len(nothing), len(nothing.items)) == (1, 0)


def test_what_is_not_known_of_a_user_is_nan(features: Artifact) -> None:
    users = pa.array(["u2", "nobody", "u1"])
    found = read_statistics(features, LATE, user_ids=users, names=("frequency", "recency_days"))
    torch.testing.assert_close(found, torch.tensor([[0, torch.nan], [torch.nan, torch.nan], [4, 1.5]]), equal_nan=True)
    assert found.dtype == torch.float32
    assert read_statistics(features, LATE, user_ids=users, names=()).shape == (3, 0)


def test_torch_may_write_to_what_it_gets(features: Artifact, recwarn: pytest.WarningsRecorder) -> None:
    histories = read_histories(features, LATE, user_ids=pa.array(["u1"]), item_ids=ITEM_IDS)
    histories.weights.add_(1)
    assert read_histories(features, LATE, user_ids=pa.array(["u1"]), item_ids=ITEM_IDS).weights[1] == 2
    assert [str(warning.message) for warning in recwarn if "writable" in str(warning.message)] == []


def test_damaged_features_are_not_read(features: Artifact, tmp_path: Path) -> None:
    path = Path(features.manifest.uri) / "user_history.parquet"
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-1] + b"!")
        with pytest.raises(Exception, match="is not what was written"):
            read_histories(features, LATE, user_ids=pa.array(["u1"]), item_ids=ITEM_IDS)
    finally:
        path.write_bytes(data)
