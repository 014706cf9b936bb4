"""implicit's ALS on a split by the published protocol. Prints, last, one JSON object.

python -m benchmarks.training.als_contestant --train FILE --test FILE --alpha 1 --regularization 0.01
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.quality.als import ImplicitAls
from benchmarks.quality.splits import Log, read_split
from components.evaluate.contest import NEW_ITEMS, BaselineEntrant, rank_users
from components.measures.ranking import list_metrics

K = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--regularization", type=float, default=0.01)
    given = parser.parse_args()
    known = read_split(given.train)
    wanted = read_split(given.test, shape=known.shape)
    log = Log(known=known)
    als = ImplicitAls(factors=given.factors, alpha=given.alpha, regularization=given.regularization)
    als.fit(log.interactions())
    users = np.flatnonzero(np.diff(wanted.indptr) > 0)
    lists = rank_users(
        [BaselineEntrant(als)],
        rows=users,
        seen=known,
        k=K,
        track=lambda chunks, total: chunks,
        settings=(NEW_ITEMS,),
    )[NEW_ITEMS][als.name]
    means = list_metrics(lists, wanted[users]).means()
    answer = {"recall": means["recall"], "ndcg": means["ndcg"], "users": len(users)}
    print(json.dumps(answer | {"versions": {"implicit": metadata.version("implicit")}}))


if __name__ == "__main__":
    main()
