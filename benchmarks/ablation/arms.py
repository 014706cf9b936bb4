"""What is compared with what: the reference is the recipe as it is, every other arm differs in what its name says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from components.core.sections import TrainSettings
from components.measures.bootstrap import Interval, paired_bootstrap

REFERENCE, WITHOUT = "light", "no convolution"
# Encoders with weights of their own may want another step: chosen on the validation slice.
LEARNING_RATE_FACTORS = (1 / 3, 1.0, 3.0)
RESAMPLES, CONFIDENCE, SEED = 2000, 0.95, 0


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train, told by the settings in which it differs from the reference."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    with_users: bool = False
    """Also the relation `user_item`."""
    is_tuned: bool = False
    """Tries LEARNING_RATE_FACTORS."""

    def candidates(self, base: TrainSettings) -> list[TrainSettings]:
        factors = LEARNING_RATE_FACTORS if self.is_tuned else (1.0,)
        rates = [{"learning_rate": base.learning_rate * factor} for factor in factors]
        return [TrainSettings(**(base.model_dump() | dict(self.changes) | rate)) for rate in rates]


ARMS = (
    Arm(name=REFERENCE),
    Arm(name=WITHOUT, changes={"num_layers": 0}),
    Arm(name="light, 2 layers", changes={"num_layers": 2}),
    Arm(name="light, maximum of layers", changes={"layer_pooling": "max"}),
    Arm(name="light, learnt average of layers", changes={"layer_pooling": "learnt"}),
    Arm(name="light, layer normalisation", changes={"normalisation": "layer"}),
    Arm(name="light, unit length", changes={"normalisation": "l2"}),
    Arm(name="light, dropout 0.1", changes={"encoder_dropout": 0.1}),
    Arm(name="weighted", changes={"encoder": "weighted"}, is_tuned=True),
    Arm(name="relational", changes={"encoder": "relational"}, is_tuned=True),
    Arm(name="attention", changes={"encoder": "attention"}, is_tuned=True),
    Arm(name="light, users among the relations", with_users=True),
    Arm(name="user_item", changes={"encoder": "user_item"}, with_users=True, is_tuned=True),
    Arm(name="attention over histories", changes={"user_pooling": "attention"}),
)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Recall and NDCG at 20 of U users, in an order that all arms share."""

    recall_U: npt.NDArray[np.float64]
    ndcg_U: npt.NDArray[np.float64]

    def against(self, other: Quality) -> dict[str, Interval]:
        """This one minus the other, user by user."""
        pairs = np.stack([self.recall_U - other.recall_U, self.ndcg_U - other.ndcg_U], axis=1)
        recall, ndcg = paired_bootstrap(pairs, resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)
        return {"recall": recall, "ndcg": ndcg}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an arm, or the score without a term, came out."""

    name: str
    validation: float | None
    """Recall + NDCG on the validation slice; None where the slice chose nothing, but was fitted to."""
    test: Quality
    cpu_seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def to_json(outcomes: Sequence[Outcome], reference: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "validation": None if one.validation is None else round(one.validation, 5),
            "recall": round(float(one.test.recall_U.mean()), 5),
            "ndcg": round(float(one.test.ndcg_U.mean()), 5),
            "cpu_seconds": round(one.cpu_seconds, 1),
            "settings": dict(one.settings),
            **{
                f"{metric}_minus_reference": [round(value, 5) for value in (gap.mean, gap.lower, gap.upper)]
                for metric, gap in one.test.against(reference.test).items()
            },
        }
        for one in outcomes
    ]


def as_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Rows of `to_json`."""
    table = Table("", "validation", "Recall@20", "minus reference", "NDCG@20", "minus reference", "CPU-s", title=title)
    for row in rows:
        gaps = [row[f"{metric}_minus_reference"] for metric in ("recall", "ndcg")]
        recall_gap, ndcg_gap = (
            f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" if low or high else "" for mean, low, high in gaps
        )
        table.add_row(
            row["name"],
            "" if row["validation"] is None else f"{row['validation']:.4f}",
            f"{row['recall']:.4f}",
            recall_gap,
            f"{row['ndcg']:.4f}",
            ndcg_gap,
            f"{row['cpu_seconds']:.0f}",
        )
    return table
