"""From a log with a column `rating` to a bundle that has learnt from it; from one without, a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clean_log import event_table
from hand_made_inputs import inputs_of_training
from safetensors.numpy import load_file
from trained_shop import TrainedShop, train_shop

from components.core.errors import SettingsError
from components.core.settings import load_settings
from components.core.split import TimeSplit
from components.core.step import execute
from components.inputs.events import read_events
from components.train.step import STEP

AS_OF = datetime(2024, 3, 29, tzinfo=UTC)


@pytest.fixture(scope="module")
def rated_shop(tmp_path_factory: pytest.TempPathFactory) -> TrainedShop:
    return train_shop(tmp_path_factory.mktemp("rated"), world={"rating_share": 0.5, "days": 45}, train={"loss": "mse"})


@pytest.mark.slow
def test_a_simulated_log_with_ratings_becomes_a_bundle_by_squared_error(rated_shop: TrainedShop) -> None:
    clean, bundle = rated_shop.artifact("clean"), rated_shop.artifact("bundle")
    ratings = np.concatenate([pq.read_table(path)["rating"].drop_null().to_numpy() for path in clean.partition_paths()])
    assert set(ratings.tolist()) == {1, 2, 3, 4, 5}
    training = bundle.path("training.json").read_text()
    assert '"loss": "mse"' in training
    vectors = load_file(bundle.path("vectors.safetensors"))
    assert np.isfinite(vectors["target"]).all()
    assert not np.allclose(vectors["target"], 0)


@pytest.mark.slow
def test_other_ratings_of_the_same_events_teach_otherwise(rated_shop: TrainedShop, tmp_path: Path) -> None:
    """The scale is part of what a rating says: five of ten is not five of five."""
    settings = rated_shop.settings.model_copy(
        update={"validation": rated_shop.settings.validation.model_copy(update={"max_rating": 10.0})}
    )
    inputs = {kind: rated_shop.refs[kind] for kind in STEP.inputs}
    other = execute(STEP, settings=settings, inputs=inputs, run_id="ten").ref
    assert other.sha256 != rated_shop.refs["bundle"].sha256


def test_ratings_of_a_window_are_the_last_of_each_user_and_item(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, split={"window_days": 7, "training_windows": 1})
    at = TimeSplit.of(AS_OF, settings.split).validation.start
    rows = [
        {"user_id": "u1", "item_id": "a", "timestamp": at + timedelta(hours=1), "rating": 2.0},
        {"user_id": "u1", "item_id": "a", "timestamp": at + timedelta(hours=2), "rating": 0.0},
        {"user_id": "u1", "item_id": "b", "timestamp": at + timedelta(hours=2), "rating": None},
        {"user_id": "u2", "item_id": "b", "timestamp": at + timedelta(hours=3), "rating": 5.0},
        {"user_id": "u2", "item_id": "a", "timestamp": at - timedelta(hours=1), "rating": 1.0},
    ]
    pq.write_table(event_table(rows), tmp_path / "day.parquet")
    log = read_events([tmp_path / "day.parquet"], item_ids=pa.array(["a", "b"]), track=iter, with_ratings=True)
    user, item, rating = log.ratings_in(TimeSplit.of(AS_OF, settings.split).validation)
    found = [(log.user_ids[int(u)].as_py(), "ab"[i], r) for u, i, r in zip(user, item, rating, strict=True)]
    assert found == [("u1", "a", 0.0), ("u2", "b", 5.0)]


def test_a_log_without_ratings_is_refused_in_one_sentence(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, split={"window_days": 7, "training_windows": 1}, train={"loss": "mse"})
    rows = [
        {
            "user_id": f"u{user}",
            "session_id": f"s{user}-{day}",
            "item_id": f"i{(user * user + day) % 40 + more}",
            "timestamp": AS_OF - timedelta(days=day),
        }
        for user in range(8)
        for day in range(1, 40)
        for more in (0, 1)
    ]
    refs = inputs_of_training(settings, rows, [], AS_OF)
    with pytest.raises(SettingsError) as caught:
        execute(STEP, settings=settings, inputs=refs, run_id="test")
    assert str(caught.value) == (
        "train.loss is 'mse', which learns from explicit ratings, and a window of the log holds none. Give the log a "
        "column 'rating' (docs/data-contract.md), or set train.loss to 'auto'."
    )
