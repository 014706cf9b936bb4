"""Which texts are alike: hashed words and letter groups, reduced by a truncated SVD (latent semantic analysis).

Deerwester et al., JASIS 1990, over a hashed vocabulary (Weinberger et al., ICML 2009), so that no word list and no
model is kept or downloaded. Every distinct text is embedded once: a catalogue says "Yogurt, 6 oz" many times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
import torch
from scipy import linalg

from components.model.ranking import top_k

NUM_FEATURES = 1 << 15
NUM_DIMENSIONS = 48
OVERSAMPLES = 10
MIN_SIMILARITY = 0.3  # below it, two texts share a common word and no more
SEED = 20_261_124
WORD = re.compile(r"\b\w\w+\b")
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


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Distinct texts -> (T, D) unit vectors; a text without a letter or digit has a zero vector."""
    lower = [text.lower() for text in texts]
    counts = sp.hstack([_unit_rows(grams) for grams in (_word_grams(lower), _letter_grams(lower))], format="csr")
    # What every text says tells none of them apart.
    document_frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log((1 + len(texts)) / (1 + document_frequency)).astype(np.float32)
    weighted = _unit_rows(sp.csr_matrix(counts @ sp.diags(rarity)))
    num_dimensions = min(NUM_DIMENSIONS, *weighted.shape)
    if num_dimensions == min(weighted.shape):
        # Fewer texts than dimensions: nothing to reduce.
        return _unit_rows(sp.csr_matrix(weighted @ weighted.T)).toarray()
    reduced = _reduced(weighted, num_dimensions)
    length_T = np.sqrt(np.einsum("td,td->t", reduced, reduced))
    return np.asarray(reduced / np.where(length_T > 0, length_T, 1)[:, None], dtype=np.float32)


def _word_grams(texts: Sequence[str]) -> sp.csr_matrix:
    """(T, F) how often each text has a word of two letters or more, or two such in a row."""
    words_T = [WORD.findall(text) for text in texts]
    return _hashed([[*words, *map(" ".join, pairwise(words))] for words in words_T])


def _letter_grams(texts: Sequence[str]) -> sp.csr_matrix:
    """(T, F) how often each text has three letters in a row, a word's ends among them."""
    words_T = [text.split() for text in texts]
    place = {word: n for n, word in enumerate(dict.fromkeys(chain.from_iterable(words_T)))}
    ends = np.cumsum([0, *map(len, words_T)])
    words = np.array([place[word] for words in words_T for word in words], dtype=np.int32)
    says = sp.csr_matrix((np.ones(len(words), np.float32), words, ends), shape=(len(texts), len(place)))
    grams = _hashed([[padded[n : n + 3] for n in range(len(padded) - 2)] for padded in map(" {} ".format, place)])
    counts = sp.csr_matrix(says @ grams)  # a catalogue has few words beside its texts: each is cut up once
    counts.sort_indices()
    return counts


def _hashed(grams_N: Sequence[Sequence[str]]) -> sp.csr_matrix:
    """(N, F) counts of grams by hash."""
    feature = {gram: abs(mmh3.hash(gram)) % NUM_FEATURES for gram in set(chain.from_iterable(grams_N))}
    columns = np.array([feature[gram] for grams in grams_N for gram in grams], dtype=np.int32)
    ends = np.cumsum([0, *map(len, grams_N)])
    counts = sp.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(grams_N), NUM_FEATURES))
    counts.sum_duplicates()
    return counts


def _reduced(weighted_TF: sp.csr_matrix, num_dimensions: int) -> npt.NDArray[np.float32]:
    """(T, D) along the first right singular vectors, by a randomised range finder (Halko et al., SIAM Review 2011).

    What sklearn's TruncatedSVD(n_iter=2) gives, to the bit; sklearn loads scipy.stats, longer than all this takes.
    """
    is_wide = weighted_TF.shape[0] < weighted_TF.shape[1]
    wanted = weighted_TF.T if is_wide else weighted_TF
    size = (wanted.shape[1], num_dimensions + OVERSAMPLES)
    sample = np.random.RandomState(SEED).normal(size=size).astype(np.float32)
    for _ in range(2):
        sample = wanted.T @ (wanted @ sample)
    basis, _ = linalg.qr(wanted @ sample, mode="economic")
    left, _, right = linalg.svd(basis.T @ wanted, full_matrices=False)
    components_FD = (basis @ left if is_wide else right.T)[:, :num_dimensions]
    return np.asarray(weighted_TF @ components_FD, dtype=np.float32)


def _unit_rows(rows: sp.csr_matrix) -> sp.csr_matrix:
    row_E = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    length_T = np.sqrt(np.bincount(row_E, weights=rows.data**2, minlength=rows.shape[0]))
    length_T[length_T == 0] = 1
    return sp.csr_matrix(
        ((rows.data / length_T[row_E]).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape
    )


def _cosines(vectors_TD: npt.NDArray[np.float32], *, neighbours: int) -> sp.csr_matrix:
    num_texts = len(vectors_TD)
    vectors = torch.from_numpy(vectors_TD)
    width = min(neighbours + 1, num_texts)
    columns, values = [], []
    for first in range(0, num_texts, BLOCK_ROWS):
        cosine_BT = vectors[first : first + BLOCK_ROWS] @ vectors.T
        cosine_BT.diagonal(first).fill_(2)  # itself first, whatever equals it
        column_Bk, value_Bk = top_k(cosine_BT, k=width)
        columns.append(column_Bk.numpy().ravel())
        values.append(value_Bk.clamp(max=1).numpy().ravel())
    value, row = np.concatenate(values), np.repeat(np.arange(num_texts), width)
    alike = value >= MIN_SIMILARITY
    entries = (value[alike], (row[alike], np.concatenate(columns)[alike]))
    return sp.csr_matrix(entries, shape=(num_texts, num_texts), dtype=np.float32)
