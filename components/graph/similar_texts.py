"""Which texts are alike: hashed words and letter groups, reduced by a truncated SVD (latent semantic analysis).

Deerwester et al., JASIS 1990, over a hashed vocabulary (Weinberger et al., ICML 2009), so that no word list and no
model is kept or downloaded. Every distinct text is embedded once: a catalogue says "Yogurt, 6 oz" many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
import torch

from components.model.ranking import top_k

NUM_FEATURES = 1 << 15
NUM_DIMENSIONS = 48
MIN_SIMILARITY = 0.3  # below it, two texts share a common word and no more
SEED = 20_261_124
BLOCK_ROWS = 256  # some 20 MB of cosines a block, which stay near the processor


@dataclass(frozen=True)
class TextNeighbours:
    """T distinct texts, sorted, and how alike they are."""

    text_I: npt.NDArray[np.int64]  # (I,) text of each item, -1 for none
    similarity_TT: sp.csr_matrix  # cosines of the most similar texts of each, itself (1) among them


def text_codes(texts: pa.StringArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """(I,) texts, null where there is none -> the distinct ones, sorted, and each item's place among them, or -1."""
    known = sorted(value for value in texts.unique().to_pylist() if value is not None)
    found = pc.index_in(texts, value_set=pa.array(known, pa.string()))
    return known, np.asarray(pc.fill_null(found, -1), dtype=np.int64)


def text_cosines(texts: Sequence[str], *, neighbours: int) -> sp.csr_matrix:
    """Distinct texts -> (T, T) cosines of each with itself and with the `neighbours` texts most like it."""
    if not texts:
        return sp.csr_matrix((0, 0), dtype=np.float32)
    return _cosines(embed(list(texts)), neighbours=neighbours)


def embed(texts: list[str]) -> npt.NDArray[np.float32]:
    """Distinct texts -> (T, D) unit vectors; a text without a letter or digit has a zero vector."""
    # sklearn takes a second to load, and most of the step's callers never ask for texts
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    options = {"n_features": NUM_FEATURES, "alternate_sign": False, "norm": "l2", "dtype": np.float32}
    words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), **options).transform(texts)
    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), **options).transform(texts)
    counts = sp.hstack([words, letters], format="csr")
    # What every text says tells none of them apart.
    document_frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log((1 + len(texts)) / (1 + document_frequency)).astype(np.float32)
    weighted = normalize(sp.csr_matrix(counts @ sp.diags(rarity)))
    num_dimensions = min(NUM_DIMENSIONS, *weighted.shape)
    if num_dimensions == min(weighted.shape):
        # Fewer texts than dimensions: nothing to reduce.
        return np.asarray(normalize((weighted @ weighted.T).toarray()), dtype=np.float32)
    reduced = TruncatedSVD(num_dimensions, n_iter=2, random_state=SEED).fit_transform(weighted)
    return np.asarray(normalize(reduced), dtype=np.float32)


def _cosines(vectors_TD: npt.NDArray[np.float32], *, neighbours: int) -> sp.csr_matrix:
    num_texts = len(vectors_TD)
    vectors = torch.from_numpy(vectors_TD)
    width = min(neighbours + 1, num_texts)
    columns, values = [], []
    for first, rows_BD in zip(range(0, num_texts, BLOCK_ROWS), vectors.split(BLOCK_ROWS), strict=True):
        cosine_BT = rows_BD @ vectors.T
        cosine_BT.diagonal(first).fill_(2)  # itself first, whatever equals it
        column_Bk, value_Bk = top_k(cosine_BT, k=width)
        columns.append(column_Bk.numpy().ravel())
        values.append(value_Bk.clamp(max=1).numpy().ravel())
    value, row = np.concatenate(values), np.repeat(np.arange(num_texts), width)
    alike = value >= MIN_SIMILARITY
    entries = (value[alike], (row[alike], np.concatenate(columns)[alike]))
    return sp.csr_matrix(entries, shape=(num_texts, num_texts), dtype=np.float32)
