"""What cannot be learnt from is said in one sentence, before any training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made_inputs import inputs_of_training

from components.core.errors import ContractError, SettingsError
from components.core.settings import load_settings
from components.core.step import execute
from components.train.step import STEP

AS_OF = datetime(2024, 3, 29, tzinfo=UTC)


def same_again() -> list[dict[str, Any]]:
    """Eight people take the same two things each day."""
    return [
        {
            "user_id": f"u{user}",
            "session_id": f"s{user}-{day}",
            "item_id": item,
            "timestamp": AS_OF - timedelta(days=day),
        }
        for user in range(8)
        for day in range(1, 40)
        for item in ("tea", "milk")
    ]


def test_a_log_that_holds_nothing_new_to_anybody_is_refused(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, split={"window_days": 7, "training_windows": 1})
    refs = inputs_of_training(settings, same_again(), [], AS_OF)
    with pytest.raises(ContractError) as caught:
        execute(STEP, settings=settings, inputs=refs, run_id="test")
    assert str(caught.value) == (
        "Nobody took an item that was new to them between 2024-03-08 and 2024-03-15, so there is nothing to learn "
        "from. Give a longer log, or set split.window_days or split.training_windows to fit it."
    )


def test_cuda_where_there_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    split, train = {"window_days": 7, "training_windows": 1}, {"device": "cuda"}
    settings = load_settings(home=tmp_path, split=split, train=train)
    refs = inputs_of_training(settings, same_again(), [], AS_OF)
    with pytest.raises(SettingsError, match=r"^train\.device is 'cuda', and no CUDA device is here\."):
        execute(STEP, settings=settings, inputs=refs, run_id="test")
