"""No input of a window has seen what the window, or anything after it, holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hand_made_inputs import inputs_of_training
from torch import Tensor

from components.core.artifact import Artifact
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit, Window
from components.core.step import StepContext
from components.core.store import Store
from components.train.windows import TrainingWindow
from components.train.world import cut_window, read_world

AS_OF = datetime(2024, 3, 29, tzinfo=UTC)
USERS, ITEMS = [f"u{n:02d}" for n in range(20)], [f"i{n:02d}" for n in range(25)]
CATALOG = [{"item_id": item, "category": "abc"[n % 3]} for n, item in enumerate(ITEMS)]
# All items are bought before the first window, so that every change leaves the table of items as it is.
LAST_STOCK = timedelta(days=40)


def settings_in(home: Path) -> Settings:
    return load_settings(
        home=home, split={"window_days": 7, "training_windows": 2}, graph={"min_item_users": 1, "price_bands": 2}
    )


SPLIT = TimeSplit.of(AS_OF, settings_in(Path("/nowhere")).split)
WINDOWS = [*SPLIT.training, SPLIT.validation]


def random_log() -> list[dict[str, Any]]:
    draw = random.Random(3)
    stock = [
        {"user_id": draw.choice(USERS), "item_id": item, "timestamp": AS_OF - LAST_STOCK - timedelta(days=n)}
        for n, item in enumerate(ITEMS)
    ]
    sessions = []
    for number in range(300):
        user, start = draw.choice(USERS), AS_OF - timedelta(days=draw.uniform(0, 60))
        for item in draw.sample(ITEMS, draw.randint(1, 4)):
            moment = start + timedelta(hours=draw.uniform(0, 9))
            row = {"user_id": user, "session_id": f"s{number}", "item_id": item, "timestamp": moment}
            sessions.append({**row, "price": draw.choice([1.0, 2.0, 5.0])})
    return [*stock, *(row for row in sessions if row["timestamp"] < AS_OF)]


def changed_from(moment: datetime, log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """From `moment` on, the same people take other things, at other prices, as other kinds of events in between."""
    draw = random.Random(4)
    changed = []
    for row in log:
        if row["timestamp"] >= moment:
            row = {**row, "item_id": draw.choice(ITEMS), "price": draw.uniform(10, 99), "quantity": 7.0}
            changed.append({**row, "event_type": "view", "item_id": draw.choice(ITEMS)})
        changed.append(row)
    return changed


def windows_of(home: Path, log: Sequence[dict[str, Any]]) -> list[TrainingWindow]:
    """As the train step cuts them."""
    settings = settings_in(home)
    refs = inputs_of_training(settings, log, CATALOG, AS_OF)
    store = Store(settings.artifact_root)
    inputs = {kind: Artifact.open(store, ref.uri) for kind, ref in refs.items()}
    context = cast(StepContext, SimpleNamespace(settings=settings, inputs=inputs))
    world = read_world(context, inputs["graph"].table("items.parquet"), SPLIT)
    assert len(world.warm) == len(ITEMS)
    return [cut_window(world, window) for window in WINDOWS]


def inputs_of(window: TrainingWindow) -> dict[str, Tensor]:
    """Every number that a window's predictions are made from."""
    histories, rows = window.histories, window.counted.filter_rows
    numbers = {
        "items": histories.items,
        "history lengths": histories.lengths,
        "weights": histories.weights,
        "ages": histories.ages_days,
        "statistics": window.statistics_BF,
        "degrees": window.item_degree_I,
        "has id": window.has_id_I,
        "candidates": window.candidates_C,
        "filter": rows.values,
        "filter's neighbours": rows.indices,
        "users ever": window.counted.popularity.ever_I,
        "users of late": window.counted.popularity.recent_I,
    }
    for name, matrix in window.graph.items():
        numbers |= {f"{name} {part}": getattr(matrix, part) for part in ("indptr", "indices", "values")}
    for name, term in window.counted.compute(histories).items():
        numbers[f"term {name}"] = term
    numbers["attribute codes"] = window.counted.attributes.codes_IA
    return numbers


@pytest.fixture(scope="module")
def as_it_was(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingWindow]:
    return windows_of(tmp_path_factory.mktemp("as-it-was"), random_log())


def test_windows_hold_what_was_taken_in_them(as_it_was: list[TrainingWindow]) -> None:
    log = random_log()
    for span, window in zip(WINDOWS, as_it_was, strict=True):
        taken = {(row["user_id"], row["item_id"]) for row in log if span.start <= row["timestamp"] < span.end}
        assert window.targets.lengths.sum() == len(taken)
        assert len(window) == len({user for user, _ in taken})
        had = {(row["user_id"], row["item_id"]) for row in log if row["timestamp"] < span.start}
        assert window.new_targets.lengths.sum() == len(taken - had)
        assert len(taken - had) > 5


@pytest.mark.parametrize("number", range(len(WINDOWS)), ids=["first training", "second training", "validation"])
def test_what_is_in_a_window_or_after_it_changes_none_of_its_inputs(
    number: int, as_it_was: list[TrainingWindow], tmp_path: Path
) -> None:
    window: Window = WINDOWS[number]
    changed = windows_of(tmp_path, changed_from(window.start, random_log()))
    before, after = inputs_of(as_it_was[number]), inputs_of(changed[number])
    assert before.keys() == after.keys()
    different = [name for name in before if not torch.equal(before[name].nan_to_num(-9), after[name].nan_to_num(-9))]
    assert different == []
    # The change is one: the targets are others, and so is what a later window knows.
    assert not torch.equal(as_it_was[number].targets.items, changed[number].targets.items)
    if number + 1 < len(WINDOWS):
        assert not torch.equal(inputs_of(as_it_was[number + 1])["items"], inputs_of(changed[number + 1])["items"])
