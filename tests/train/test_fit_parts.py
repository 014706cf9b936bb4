"""Parts of the recipe: start vectors, quality on a window, repeats, and which attributes are read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from toy_windows import NUM_ITEMS, attributes, recommender, window

from components.model.score import Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling
from components.train.fit import ranking_quality, svd_vectors, weigh_repeats
from components.train.snapshot import read_attributes


def test_start_vectors_rebuild_the_normalised_matrix() -> None:
    generator = np.random.default_rng(0)
    strengths = sp.csr_matrix((generator.random((30, 6)) * (generator.random((30, 6)) < 0.5)).astype(np.float32))
    vectors = svd_vectors(strengths, dim=5, seed=0)
    assert vectors is not None
    assert vectors.shape == (6, 5)
    dense = strengths.toarray()
    scaled = dense / np.sqrt(np.maximum(dense.sum(1, keepdims=True), 1e-9) * dense.sum(0, keepdims=True))
    values = np.linalg.svd(scaled, compute_uv=False)
    assert (vectors.norm(dim=0) ** 2).tolist() == pytest.approx(values[:5].tolist(), rel=1e-3)
    assert torch.equal(vectors, svd_vectors(strengths, dim=5, seed=0))


@pytest.mark.parametrize("shape", [(5, 1), (1, 5)])
def test_a_matrix_too_small_for_a_start_gives_none(shape: tuple[int, int]) -> None:
    assert svd_vectors(sp.csr_matrix(np.ones(shape)), dim=4, seed=0) is None
    assert svd_vectors(sp.csr_matrix((5, 5)), dim=4, seed=0) is None


def test_quality_is_recall_and_ndcg_on_what_is_new_to_users_with_a_target() -> None:
    """User 0 has the best item already and finds the second best; user 1 takes nothing new."""
    shop = window([[3], [3]], [[2], [3]])
    scores = torch.arange(NUM_ITEMS).float().flip(0)[None, :] - torch.tensor([0.0, 0, 20, 0, *[0] * 8])
    recall, ndcg = ranking_quality(shop, lambda rows: scores.expand(len(rows), -1))
    assert recall == 1  # a list of 20 holds all twelve
    assert ndcg == pytest.approx(1 / np.log2(12))  # eleven are left, and item 2 is the last of them
    assert scores[0, 3] == 8
    nothing = ranking_quality(window([[3]], [[3]]), lambda rows: scores.expand(len(rows), -1))
    assert all(np.isnan(value) for value in nothing)


@pytest.mark.parametrize(("taken", "scale"), [("own", 0.05), ("popular", 0.4)])
def test_repeats_are_weighed_by_what_the_users_then_took(taken: str, scale: float) -> None:
    """A repeat adds 3.04, popularity up to 15.2 times the scale: from 0.4 on the popular item comes first."""
    own = [[0], [1]] * 30
    targets = own if taken == "own" else [[NUM_ITEMS - 1]] * 60
    shop = window(own, targets, users=[float(4**item) for item in range(NUM_ITEMS)])
    model = recommender()
    scorer = Scorer(
        history_ID=torch.zeros(NUM_ITEMS, 8),
        target_ID=torch.zeros(NUM_ITEMS, 8),
        user_vector=model.user_vector,
        scaling=StatisticsScaling(("recency_days",), (0.0,), (1.0,)),
        temperature=0.1,
        counted=shop.counted,
        weights=ScoreWeights(terms={"popularity": 1.0}),
    )
    chosen = weigh_repeats(shop, scorer, shop.statistics_BF, seed=0)
    assert chosen.repeat == 1
    assert chosen.terms == {"popularity": 1.0}
    assert chosen.repeat_scale == scale


def items(**columns: list[str | None]) -> pa.Table:
    texts = {
        name if name == "price_band" else f"attribute:{name}": pa.array(values, pa.string())
        for name, values in columns.items()
    }
    return pa.table({"item_id": [f"i{n}" for n in range(len(next(iter(columns.values()))))], **texts})


def test_attributes_that_name_items_apart_or_are_mostly_missing_are_left_out() -> None:
    table = items(
        category=["tea", "milk"] * 15,
        price_band=["band 0", "band 1", None] * 10,
        barcode=[f"b{n}" for n in range(30)],
        country=["here"] * 30,
        rare=["x", "y", *[None] * 28],
        colour=["red", "blue", *["red"] * 10, *[None] * 18],
    )
    read = read_attributes(table)
    assert read.names == ("category", "colour", "price_band")
    # A taste is counted for what most items have.
    assert read.affinity_names == ("category", "price_band")


def test_rows_of_a_part_keep_the_codes_of_the_whole() -> None:
    table = items(category=["tea", "milk", "bread"] * 5)
    part = read_attributes(table, rows=np.array([0, 3, 14]))
    assert part.codes("category").tolist() == [3, 3, 1]
    assert part.sizes == read_attributes(table).sizes == (4,)


def test_many_attributes_give_no_more_than_six_tastes() -> None:
    table = items(**{f"a{n}": ["x", "y", "z"] * 4 for n in range(9)})
    read = read_attributes(table)
    assert len(read.names) == 9
    assert read.affinity_names == tuple(f"a{n}" for n in range(6))


def test_the_toy_shop_is_what_the_tests_take_it_for() -> None:
    assert attributes().sizes == (4,)
