"""A merchandiser's rules and a graph over users on their way into a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from six_items import attributes, committed_bundle, item_graph, recommender, scorer

from components.core.artifact import ArtifactWriter
from components.model.bundle import Bundle, write_encoder
from components.model.item_graph import NodeRelation, matrices, to_heterograph, to_torch
from components.model.rules import RULES


def test_a_bundle_knows_what_must_not_stand_together(tmp_path: Path) -> None:
    rows = [
        {"item_id": "item-4", "other_item_id": "item-1", "rule": "never_together"},
        {"item_id": "item-2", "other_item_id": "item-3", "rule": "always_with"},
        {"item_id": "item-2", "other_item_id": "gone", "rule": "never_together"},
    ]

    def with_rules(output: ArtifactWriter) -> None:
        output.write_table("rules.parquet", pa.Table.from_pylist(rows, RULES))

    bundle = Bundle.load(committed_bundle(tmp_path, scorer(), after=with_rules))
    assert bundle.rules.excluded_by == {1: {4}, 4: {1}}


def test_a_bundle_without_rules_bars_nothing(tmp_path: Path) -> None:
    assert not Bundle.load(committed_bundle(tmp_path, scorer())).rules


def test_no_user_gets_into_a_bundle(tmp_path: Path) -> None:
    """The graph's users shape the item vectors; neither their ids nor their edges go along."""
    ones = np.ones((2, 6), dtype=np.float32)
    relation = NodeRelation(
        kind="user",
        names=["user-of-flesh", "user-of-blood"],
        gather=sp.csr_matrix(ones / 6),
        spread=sp.csr_matrix(ones.T / 2),
    )
    graph = {**item_graph(), **to_torch(matrices(to_heterograph({"user_item": relation})))}
    written: list[str] = []

    def with_encoder(output: ArtifactWriter) -> None:
        write_encoder(output, model=recommender(), attributes=attributes(), graph=graph)

    folder = committed_bundle(tmp_path, scorer(), after=with_encoder)
    for path in folder.iterdir():
        is_table = path.suffix == ".parquet"
        assert "user-of-" not in (str(pq.read_table(path).to_pylist()) if is_table else path.read_text("latin-1"))
        written.append(path.name)
    assert "neighbours.parquet" in written
    shown = pq.read_table(folder / "neighbours.parquet")["relation"].unique().to_pylist()
    assert sorted(shown) == sorted(item_graph())
