"""Published splits as matrices: what is known, what is held out, and the order of a user's items where there is one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from components.measures.interactions import Interactions
from components.model.histories import Histories


@dataclass(frozen=True, kw_only=True)
class Log:
    """What users are known to have taken. Without times; at most the order of each user's items is known."""

    known: sp.csr_matrix  # (U, I) of ones, columns sorted
    steps_ago: sp.csr_matrix | None = None  # the same places: 1 for a user's last item, 2 for the one before, …
    attributes: sp.csr_matrix | None = None  # (I, A) of ones: what the catalogue says of an item

    @property
    def num_items(self) -> int:
        return int(self.known.shape[1])

    def histories(self, users: np.ndarray) -> Histories:
        """The users' items; an age of 0 days for the last one, of 1 for the one before, or of 0 for all."""
        rows = self.known[users]
        ages = np.zeros(rows.nnz) if self.steps_ago is None else self.steps_ago[users].data - 1
        return Histories(
            torch.from_numpy(rows.indptr.astype(np.int64)),
            torch.from_numpy(rows.indices.astype(np.int64)),
            torch.ones(rows.nnz),
            torch.from_numpy(ages.astype(np.float32)),
        )

    def interactions(self) -> Interactions:
        """What baselines are fit on; no times, no categories."""
        entries = self.known.tocoo()
        return Interactions.of(
            users=entries.row,
            items=entries.col,
            weights=np.ones(entries.nnz),
            ages_days=np.zeros(entries.nnz),
            category=np.full(self.num_items, -1),
            num_users=self.known.shape[0],
        )


def read_split(path: Path, *, shape: tuple[int, int] | None = None) -> sp.csr_matrix:
    """(U, I) of ones from lines of `user item item …`."""
    users, items = [], []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            user, *taken = map(int, line.split())
        except ValueError:
            raise SystemExit(f"{path}, line {number}: expected 'user item item …' in whole numbers.") from None
        users += [user] * len(taken)
        items += taken
    if not items:
        raise SystemExit(f"{path} names no item; expected lines of 'user item item …'.")
    size = (max(users) + 1, max(items) + 1) if shape is None else shape
    size = (max(size[0], max(users) + 1), max(size[1], max(items) + 1))
    matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=size)
    matrix.data[:] = 1
    return matrix


def read_sequences(path: Path, attributes: Path) -> tuple[list[list[int]], sp.csr_matrix]:
    """Lines of `user item item …` in time order -> item sequences; and (I, A) attributes. Items count from 0."""
    sequences = [[int(item) - 1 for item in line.split()[1:]] for line in path.read_text().splitlines()]
    num_items = max(map(max, sequences)) + 1
    described: dict[str, list[int]] = json.loads(attributes.read_text())
    pairs = [(int(item) - 1, value) for item, values in described.items() for value in values]
    rows, values = (np.array(part) for part in zip(*pairs, strict=True))
    _, codes = np.unique(values, return_inverse=True)
    matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, codes)), shape=(num_items, int(codes.max()) + 1))
    return sequences, matrix


def sequence_log(sequences: list[list[int]], *, leave_out: int, attributes: sp.csr_matrix) -> tuple[Log, sp.csr_matrix]:
    """Everything but the last `leave_out` items of each user, and (U, I) the first of those left out.

    An item that a user took several times counts where it was taken last.
    """
    kept = [sequence[: len(sequence) - leave_out] for sequence in sequences]
    lengths = np.array([len(one) for one in kept])
    user_N = np.repeat(np.arange(len(kept)), lengths)
    item_N = np.concatenate([np.array(one, dtype=np.int64) for one in kept])
    step_N = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    shape = (len(kept), attributes.shape[0])
    order = np.lexsort((step_N, item_N, user_N))
    first = np.unique(user_N[order] * shape[1] + item_N[order], return_index=True)[1]
    chosen = order[first]
    places = (user_N[chosen], item_N[chosen])
    known = sp.csr_matrix((np.ones(len(chosen), np.float32), places), shape=shape)
    steps_ago = sp.csr_matrix((step_N[chosen].astype(np.float32), places), shape=shape)
    wanted_items = np.array([sequence[-leave_out] for sequence in sequences])
    wanted = sp.csr_matrix(
        (np.ones(len(sequences), np.float32), (np.arange(len(sequences)), wanted_items)), shape=shape
    )
    return Log(known=known, steps_ago=steps_ago, attributes=attributes), wanted


def hide_share(known: sp.csr_matrix, *, share: float, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """A random `share` of each user's items, rounded down, is hidden; the rest kept."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))
    order = np.lexsort((rng.random(known.nnz), user))
    rank = np.empty(known.nnz, dtype=np.int64)
    rank[order] = np.arange(known.nnz) - np.repeat(known.indptr[:-1], np.diff(known.indptr))
    is_hidden = rank < (np.diff(known.indptr) * share).astype(np.int64)[user]

    def part(chosen: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix((known.data[chosen], (user[chosen], known.indices[chosen])), shape=known.shape)

    return part(~is_hidden), part(is_hidden)
