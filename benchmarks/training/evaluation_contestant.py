"""A full evaluation, by us or by a peer. The peers' environment runs `ranx`.

    python -m benchmarks.training.evaluation_contestant ours --users 30000 --items 41000

All items are scored for all users as a product of vectors, known items left out, the best 20 listed, and five metrics
taken of each user. Ours adds intervals by paired bootstrap. Prints, last, one JSON object with the means.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch
from torch import Tensor

K, DIM = 20, 64
RESAMPLES = 1000
CHUNK_USERS = 256


@dataclass(frozen=True)
class Task:
    """Who is to be judged. Row u of `known_UN` and `wanted_UM` are items of user u, distinct."""

    user_UD: Tensor
    item_ID: Tensor
    known_UN: Tensor
    wanted_UM: Tensor

    def scores(self, start: int) -> Tensor:
        """(B, I) of the chunk that begins at `start`, known items at -inf."""
        rows = slice(start, start + CHUNK_USERS)
        return (self.user_UD[rows] @ self.item_ID.T).scatter_(1, self.known_UN[rows], -torch.inf)

    @property
    def starts(self) -> range:
        return range(0, len(self.user_UD), CHUNK_USERS)


def make_task(users: int, items: int, *, seed: int = 0) -> Task:
    """As many known and wanted items a user as in Gowalla, 27 and 7; wanted ones lie near, so some are found."""
    generator = torch.Generator().manual_seed(seed)
    item_ID = torch.randn(items, DIM, generator=generator)
    # 34 distinct items a user: a start and steps that cannot come round.
    steps = torch.randint(1, items // 34, (users, 34), generator=generator).cumsum(1)
    mine = (torch.randint(items, (users, 1), generator=generator) + steps) % items
    user_UD = item_ID[mine].mean(dim=1) * 3 + 0.6 * torch.randn(users, DIM, generator=generator)
    return Task(user_UD, item_ID, mine[:, :27].contiguous(), mine[:, 27:].contiguous())


def ours(task: Task) -> dict[str, object]:
    import scipy.sparse as sp

    from components.measures.bootstrap import paired_bootstrap
    from components.measures.ranking import list_metrics, top_lists

    ranked = np.concatenate([top_lists(task.scores(start), k=K) for start in task.starts])
    users, width = task.wanted_UM.shape
    indptr = np.arange(0, users * width + 1, width)
    wanted = sp.csr_matrix((np.ones(users * width, np.float32), task.wanted_UM.numpy().ravel(), indptr))
    metrics = list_metrics(ranked, wanted).by_name()
    columns = np.column_stack(list(metrics.values()))
    intervals = paired_bootstrap(columns, resamples=RESAMPLES, confidence=0.95, seed=0)
    means = {name: interval.mean for name, interval in zip(metrics, intervals, strict=True)}
    halves = {name: (i.upper - i.lower) / 2 for name, i in zip(metrics, intervals, strict=True)}
    return {"means": means, "half_intervals": halves}


def torchmetrics(task: Task) -> dict[str, object]:
    from torchmetrics.functional import retrieval

    functions = {
        "recall": retrieval.retrieval_recall,
        "precision": retrieval.retrieval_precision,
        "ndcg": retrieval.retrieval_normalized_dcg,
        "hit_rate": retrieval.retrieval_hit_rate,
        "reciprocal_rank": retrieval.retrieval_reciprocal_rank,
    }
    values: dict[str, list[float]] = {name: [] for name in functions}
    for start in task.starts:
        scores_BI = task.scores(start)
        for row, score_I in enumerate(scores_BI):
            wanted_I = torch.zeros(len(score_I), dtype=torch.bool)
            wanted_I[task.wanted_UM[start + row]] = True
            for name, function in functions.items():
                values[name].append(float(function(score_I, wanted_I, top_k=K)))
    return {"means": {name: float(np.mean(column)) for name, column in values.items()}}


def ranx(task: Task) -> dict[str, object]:
    """torch makes the lists, ranx takes the metrics."""
    from ranx import Qrels, Run, evaluate

    names = {
        "recall": f"recall@{K}",
        "precision": f"precision@{K}",
        "ndcg": f"ndcg@{K}",
        "hit_rate": f"hit_rate@{K}",
        "reciprocal_rank": f"mrr@{K}",
    }
    run: dict[str, dict[str, float]] = {}
    wanted: dict[str, dict[str, int]] = {}
    for start in task.starts:
        best = task.scores(start).topk(K, dim=1)
        for row, (items, scores) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            run[str(start + row)] = dict(zip(map(str, items), scores, strict=True))
    for user, items in enumerate(task.wanted_UM.tolist()):
        wanted[str(user)] = dict.fromkeys(map(str, items), 1)
    values = evaluate(Qrels(wanted), Run(run), list(names.values()))
    return {"means": {name: float(values[of]) for name, of in names.items()}}


EVALUATORS: dict[str, Callable[[Task], dict[str, object]]] = {"ours": ours, "torchmetrics": torchmetrics, "ranx": ranx}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluator", choices=EVALUATORS)
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=41_000)
    parser.add_argument("--judged", type=int, help="judge the first so many users only")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = make_task(given.users, given.items)
    judged = min(given.judged or given.users, given.users)
    task = Task(task.user_UD[:judged], task.item_ID, task.known_UN[:judged], task.wanted_UM[:judged])
    started, cpu_started = time.perf_counter(), time.process_time()
    answer = EVALUATORS[given.evaluator](task)
    answer |= {
        "judged": judged,
        "evaluation_cpu_seconds": round(time.process_time() - cpu_started, 2),
        "evaluation_wall_seconds": round(time.perf_counter() - started, 2),
    }
    package = {"ours": "torch"}.get(given.evaluator, given.evaluator)
    print(json.dumps(answer | {"versions": {package: metadata.version(package)}}))


if __name__ == "__main__":
    main()
