"""implicit's ALS on a split by the published protocol. Prints, last, one JSON object.

python -m benchmarks.training.als_contestant --train FILE --test FILE --alpha 1 --regularization 0.01
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from implicit.als import AlternatingLeastSquares

from benchmarks.training.splits import read_lists
from components.measures.ranking import list_metrics, top_lists

K = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--regularization", type=float, default=0.01)
    given = parser.parse_args()
    known, wanted = as_matrices(read_lists(given.train), read_lists(given.test))
    model = AlternatingLeastSquares(
        factors=given.factors, alpha=given.alpha, regularization=given.regularization, random_state=0
    )
    model.fit(known, show_progress=False)
    answer = judge(model.user_factors, model.item_factors, known, wanted)
    print(json.dumps(answer | {"versions": {"implicit": metadata.version("implicit")}}))


def as_matrices(known: dict[int, list[int]], wanted: dict[int, list[int]]) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    both = [(user, item) for lists in (known, wanted) for user, items in lists.items() for item in items]
    shape = (max(user for user, _ in both) + 1, max(item for _, item in both) + 1)

    def matrix(lists: dict[int, list[int]]) -> sp.csr_matrix:
        users = np.repeat(list(lists), [len(items) for items in lists.values()])
        items = np.array([item for one in lists.values() for item in one], dtype=np.int64)
        return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)

    return matrix(known), matrix(wanted)


def judge(
    user_UD: np.ndarray, item_ID: np.ndarray, known: sp.csr_matrix, wanted: sp.csr_matrix
) -> dict[str, float | int]:
    """Recall and NDCG at 20 over users with an item to find, all items ranked, known ones left out."""
    users = np.flatnonzero(np.diff(wanted.indptr) > 0)
    recall, ndcg = [], []
    for rows in np.array_split(users, max(1, len(users) // 512)):
        scores = torch.from_numpy(user_UD[rows] @ item_ID.T)
        had = known[rows].tocoo()
        scores[torch.from_numpy(had.row).long(), torch.from_numpy(had.col).long()] = -torch.inf
        metrics = list_metrics(top_lists(scores, k=K), wanted[rows])
        recall.append(metrics.recall)
        ndcg.append(metrics.ndcg)
    return {
        "recall": float(np.concatenate(recall).mean()),
        "ndcg": float(np.concatenate(ndcg).mean()),
        "users": len(users),
    }


if __name__ == "__main__":
    main()
