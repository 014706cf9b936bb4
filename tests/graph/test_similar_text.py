"""Items whose words read alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize
from small_log import bought, entries, log, row_sums

from components.core.sections import GraphSettings
from components.core.store import Store
from components.graph import kept_texts, similar_texts
from components.graph.kept_texts import TABLE, kept_cosines
from components.graph.relations import build_relation
from components.graph.similar_texts import (
    NUM_DIMENSIONS,
    NUM_FEATURES,
    SEED,
    TextNeighbours,
    embed,
    text_codes,
    text_cosines,
)
from components.graph.world import ItemWorld

TEAS = ["green tea leaves", "green tea bags", "black tea leaves"]
THINGS = ["jersey", "bottle", "jug", "rug"]
TOOLS = ["claw hammer", "sledge hammer", "hammer handle"]


def text_neighbours(texts: pa.StringArray, *, neighbours: int) -> TextNeighbours:
    known, text_I = text_codes(texts)
    return TextNeighbours(text_I, text_cosines(known, neighbours=neighbours))


def titled(**titles: str | None) -> list[dict[str, Any]]:
    return [{"item_id": item, "title": title} for item, title in titles.items()]


def test_texts_are_most_like_those_with_their_words() -> None:
    found = text_neighbours(pa.array([*TEAS, *TOOLS, None]), neighbours=2)
    ordered = sorted([*TEAS, *TOOLS])
    assert found.text_I.tolist() == [*(ordered.index(text) for text in [*TEAS, *TOOLS]), -1]
    dense = found.similarity_TT.toarray()
    assert dense.diagonal().tolist() == pytest.approx([1] * 6)
    teas, tools = found.text_I[:3], found.text_I[3:6]
    assert dense[np.ix_(teas, tools)].max() == 0
    assert (dense > 0).sum(axis=1).max() <= 3
    assert dense[ordered.index("green tea leaves"), ordered.index("green tea bags")] > 0.3


def test_texts_that_share_little_are_no_neighbours_however_few_there_are() -> None:
    found = text_neighbours(pa.array([*TEAS, *TOOLS]), neighbours=5)
    teas, tools = found.text_I[:3], found.text_I[3:]
    assert found.similarity_TT[np.ix_(teas, tools)].nnz == 0


def test_a_misspelt_word_is_still_alike() -> None:
    found = text_neighbours(
        pa.array(["strawberry yoghurt", "strawbery yogurt", "motor oil", "floor wax"]), neighbours=1
    )
    ordered = sorted(["strawberry yoghurt", "strawbery yogurt", "motor oil", "floor wax"])
    pair = [ordered.index("strawberry yoghurt"), ordered.index("strawbery yogurt")]
    assert found.similarity_TT[pair[0], pair[1]] > 0.3


def test_more_texts_than_dimensions_are_reduced_and_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_texts, "NUM_DIMENSIONS", 8)
    texts = [f"{colour} {thing} {n}" for colour in ("red", "blue") for thing in ("jersey", "bottle") for n in range(10)]
    found = text_neighbours(pa.array(texts), neighbours=5)
    again = text_neighbours(pa.array(texts), neighbours=5)
    np.testing.assert_array_equal(found.similarity_TT.toarray(), again.similarity_TT.toarray())
    ordered = sorted(texts)
    rows, cols = found.similarity_TT.nonzero()
    same = [ordered[i].split()[1] == ordered[j].split()[1] for i, j in zip(rows, cols, strict=True)]
    assert len(same) > 100
    assert np.mean(same) > 0.95


def test_vectors_are_those_of_a_hashing_vectorizer_and_a_truncated_svd() -> None:
    texts = sorted(f"{colour} {thing} café-{n} x" for colour in ("red", "blue") for thing in THINGS for n in range(12))
    options = {"n_features": NUM_FEATURES, "alternate_sign": False, "dtype": np.float32}
    grams = [{"analyzer": "word", "ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (3, 3)}]
    counts = sp.hstack([HashingVectorizer(**one, **options).transform(texts) for one in grams], format="csr")
    rarity = np.log((1 + len(texts)) / (1 + counts.getnnz(axis=0))).astype(np.float32)
    reduced = TruncatedSVD(NUM_DIMENSIONS, n_iter=2, random_state=SEED).fit_transform(
        normalize(counts @ sp.diags(rarity))
    )
    assert len(texts) > NUM_DIMENSIONS
    # A direction has no sign; cosines do not see it.
    np.testing.assert_array_equal(np.abs(embed(texts)), np.abs(normalize(reduced)))


def test_a_text_without_a_word_or_with_what_all_say_is_like_none() -> None:
    assert not embed(["the same"]).any()
    assert embed(["", "green tea", "green hat"]).any(axis=1).tolist() == [False, True, True]


def test_items_hear_from_the_best_known_of_texts_like_theirs(world: Callable[..., ItemWorld]) -> None:
    sold = {"a": 3, "b": 2, "c": 1, "h": 4}
    events = log(*(bought(f"{item}{n}", f"{item}{n}", item) for item, count in sold.items() for n in range(count)))
    catalog = titled(a=TEAS[0], b=TEAS[1], c=TEAS[0], d=TEAS[0], h=TOOLS[0], i=TOOLS[1], j=None)
    shop = world(events, catalog)
    matrix = build_relation("similar_text", shop, GraphSettings(group_neighbours_per_item=2))
    found = entries(matrix, shop)
    assert {edge for edge in found if edge[0] in "abcdj"} == {"a<b", "a<c", "b<a", "b<c", "c<a", "c<b", "d<a", "d<c"}
    assert found["i<h"] == 1
    assert found["d<a"] == pytest.approx(2 / 3, rel=1e-3)  # log 4 and log 2: the same words, one better known
    assert [round(total, 5) for total in row_sums(matrix)] == [1, 1, 1, 1, 0, 1, 0]


def test_words_of_the_category_count_and_case_does_not(world: Callable[..., ItemWorld]) -> None:
    catalog = [
        {"item_id": "a", "title": None, "category": "COLD CEREAL"},
        {"item_id": "b", "title": "cold cereal", "category": None},
        {"item_id": "c", "title": "motor", "category": "oil"},
    ]
    shop = world(bought("u1", "s1", "a", "b", "c"), catalog)
    assert set(entries(build_relation("similar_text", shop, GraphSettings()), shop)) == {"a<b", "b<a"}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sorted(f"{colour} {thing} {n}" for colour in ("red", "blue") for thing in ("cup", "hat") for n in range(7))
    whole = text_cosines(texts, neighbours=4)
    monkeypatch.setattr(similar_texts, "BLOCK_ROWS", 5)
    parts = text_cosines(texts, neighbours=4)
    np.testing.assert_array_equal(parts.indptr, whole.indptr)
    # Of two texts equally alike the last bit may prefer either.
    cosines = [np.sort(found.data.reshape(len(texts), -1), axis=1) for found in (parts, whole)]
    np.testing.assert_allclose(*cosines, atol=1e-6)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("counted again")


def test_the_same_texts_are_read_and_others_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, texts = Store(str(tmp_path)), sorted([*TEAS, *TOOLS])
    counted = kept_cosines(texts, neighbours=2, store=store)
    with monkeypatch.context() as patch:
        patch.setattr(kept_texts, "text_cosines", refuse)
        read = kept_cosines(texts, neighbours=2, store=store)
        assert (read != counted).nnz == 0
        assert read.nnz == counted.nnz > len(texts)
        for others, neighbours in ((texts[1:], 2), (texts, 3)):
            with pytest.raises(AssertionError, match="counted again"):
                kept_cosines(others, neighbours=neighbours, store=store)
    kept_cosines(texts[1:], neighbours=2, store=store)
    assert len(list((tmp_path / TABLE).glob("*.parquet"))) == 1  # of the last catalogue only


def test_a_kept_answer_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    store, texts = Store(str(tmp_path)), sorted([*TEAS, *TOOLS])
    counted = kept_cosines(texts, neighbours=2, store=store)
    (file,) = (tmp_path / TABLE).glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert (kept_cosines(texts, neighbours=2, store=store) != counted).nnz == 0
