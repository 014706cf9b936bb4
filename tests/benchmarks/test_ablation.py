"""The ablation: what it compares, and what it says of figures that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation.__main__ import convolution_line, summarise
from benchmarks.ablation.arms import ARMS, REFERENCE, WITHOUT, Outcome, Quality, as_table, to_json
from benchmarks.ablation.published import run_arms
from components.core.sections import TrainSettings
from components.model.encoders import ENCODERS


def outcome(name: str, recall: list[float]) -> Outcome:
    quality = Quality(recall_U=np.array(recall), ndcg_U=np.array(recall) / 2)
    return Outcome(name=name, validation=0.5, test=quality, cpu_seconds=1.0)


def test_every_encoder_is_an_arm_and_the_reference_is_the_recipe_as_it_is() -> None:
    base = TrainSettings()
    tried = {arm.name: arm.candidates(base) for arm in ARMS}
    assert {one.encoder for settings in tried.values() for one in settings} == set(ENCODERS)
    assert tried[REFERENCE] == [base]
    assert tried[WITHOUT] == [base.model_copy(update={"num_layers": 0})]
    rates = [one.learning_rate for one in tried["weighted"]]
    assert rates == pytest.approx([0.001, 0.003, 0.009])
    # Users in the convolution need them in the graph.
    assert [arm.with_users for arm in ARMS if arm.name == "user_item"] == [True]


def test_gaps_are_paired_with_the_reference_and_the_convolution_is_what_it_adds() -> None:
    report = summarise(
        "toy",
        [
            outcome(REFERENCE, [0.2, 0.4, 0.6, 0.8]),
            outcome("without filter", [0.2, 0.4, 0.6, 0.8]),
            outcome(WITHOUT, [0.1, 0.3, 0.5, 0.7]),
        ],
    )
    assert [row["name"] for row in report["arms"]] == [REFERENCE, WITHOUT]
    assert [row["name"] for row in report["terms"]] == ["without filter"]
    assert report["terms"][0]["recall_minus_reference"] == [0, 0, 0]
    assert report["arms"][1]["recall_minus_reference"] == [-0.1, -0.1, -0.1]  # the same for every user: no doubt
    assert report["arms"][1]["ndcg_minus_reference"] == [-0.05, -0.05, -0.05]
    assert report["convolution_adds"]["recall"] == {"mean": 0.1, "interval": [0.1, 0.1]}
    assert "recall +0.1000 [+0.1000, +0.1000]" in convolution_line(report)
    assert "4 users" in convolution_line(report)


def test_a_row_that_the_validation_slice_did_not_choose_shows_no_validation_figure() -> None:
    reference, fitted = outcome(REFERENCE, [0.2, 0.4]), replace(outcome("without filter", [0.1, 0.4]), validation=None)
    rows = to_json([reference, fitted], reference)
    assert [row["validation"] for row in rows] == [0.5, None]
    assert list(as_table(rows, title="toy").columns[1].cells) == ["0.5000", ""]


def test_arms_run_on_a_split(tmp_path: Path) -> None:
    """Two crowds of users, each with items of its own: whoever shows one half of them is told the other."""
    draw = np.random.default_rng(0)
    train, test = [], []
    for user in range(60):
        items = draw.permutation(20) + 20 * (user % 2)
        train.append(f"{user} {' '.join(map(str, items[:12]))}")
        test.append(f"{user} {' '.join(map(str, items[12:]))}")
    (tmp_path / "train.txt").write_text("\n".join(train))
    (tmp_path / "test.txt").write_text("\n".join(test))
    found = {one.name: one for one in run_arms(tmp_path, names=frozenset({REFERENCE, "user_item"}))}
    assert list(found) == [REFERENCE, "without similarity", "without filter", "without popularity", "user_item"]
    for one in found.values():
        assert one.test.recall_U.tolist() == [1] * 60, one.name  # eight unknown items of the crowd, in a list of 20
    assert set(found["without filter"].settings["weights"]) == {"similarity", "popularity"}
