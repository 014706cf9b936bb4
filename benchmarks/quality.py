"""The recommender on a published split: lines of `user item item …`, no times, no features.

    python -m benchmarks.quality --train train.txt --test test.txt --seeds 3
    python -m benchmarks.quality --train train.txt --test test.txt --seeds 1 --epochs 2     # a look

Protocol: for each user with a test item all items are scored, the user's train items left out, and the best 20 listed;
means over those users. Filter exponents and the weights of the score are chosen on a tenth of each user's train items,
then the recipe runs on all of train, once a seed. The test file is read last and scored once a seed.

Prints tables, writes benchmarks/results/quality-NAME.json, and prints, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import describe_machine
from components.core.libraries import prepare_libraries
from components.measures.ranking import list_metrics, top_lists
from components.model.attributes import ItemAttributes
from components.model.histories import Histories
from components.model.linear_filter import FilterExponents, FilterRows, build_filter
from components.model.propagation import SparseMatrix
from components.model.recommender import Recommender, RecommenderConfig
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling
from components.train.fit import svd_vectors
from components.train.loop import Epoch, LoopConfig, train
from components.train.windows import TrainingWindow

K = 20
RELATION = "co_interaction"
TUNING_SHARE = 0.1
TUNING_USERS = 6000
NEIGHBOURS, FILTER_NEIGHBOURS = 32, 128
EXPONENTS = (
    FilterExponents(first_item=0.5, user=1.0, last_item=0.5),
    FilterExponents(first_item=0.5, user=0.5, last_item=0.5),
    FilterExponents(first_item=1.0, user=1.0, last_item=0.0),
    FilterExponents(first_item=0.8, user=0.8, last_item=0.3),
    FilterExponents(first_item=0.7, user=0.5, last_item=0.4),
)
SIMILARITY_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2)
POPULARITY_WEIGHTS = (-0.2, -0.1, 0.0, 0.1)
TEMPERATURE = 0.1
STEPS_AN_EPOCH = 20  # at least: a small log needs steps, not large batches


@dataclass(frozen=True)
class Chosen:
    """What the tuning slice decided."""

    exponents: FilterExponents
    weights: Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument(
        "--out", type=Path, help="where to write the JSON; default benchmarks/results/quality-NAME.json"
    )
    given = parser.parse_args()
    console = Console()
    torch.set_num_threads(2)

    known = read_split(given.train)
    kept, hidden = hide_a_tenth(known, seed=0)
    chosen = choose(kept, hidden, dim=given.dim, epochs=given.epochs, console=console)
    tuning_cpu_seconds = cpu_seconds()

    test = read_split(given.test, shape=known.shape)
    results = []
    for seed in range(given.seeds):
        scorer = fit(known, chosen.exponents, dim=given.dim, epochs=given.epochs, seed=seed)
        users = np.flatnonzero(np.diff(test.indptr) > 0)
        whole = judge(scorer.with_weights(ScoreWeights(terms=chosen.weights)), known, test, users)
        alone = judge(scorer.with_weights(ScoreWeights(terms={SIMILARITY: 1.0})), known, test, users)
        linear = judge(scorer.with_weights(ScoreWeights(terms={"filter": 1.0})), known, test, users)
        results.append({"whole": whole, "encoder alone": alone, "filter alone": linear})
        if seed == 0:
            one_seed_cpu_seconds = cpu_seconds()
    report = summarise(results, chosen)
    report |= {
        "cpu_seconds": round(one_seed_cpu_seconds, 1),
        "cpu_seconds_of_tuning": round(tuning_cpu_seconds, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "seeds": given.seeds,
    }
    console.print(as_table(report))
    name = given.train.resolve().parent.name
    out = given.out or Path(__file__).parent / "results" / f"quality-{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report | {"machine": describe_machine(("numpy", "scipy", "torch"))}, indent=1) + "\n")
    print(json.dumps(report))


def read_split(path: Path, *, shape: tuple[int, int] | None = None) -> sp.csr_matrix:
    """(U, I) of ones from lines of `user item item …`."""
    users, items = [], []
    for line in path.read_text().splitlines():
        user, *taken = line.split()
        users += [int(user)] * len(taken)
        items += [int(item) for item in taken]
    size = (max(users) + 1, max(items) + 1) if shape is None else shape
    size = (max(size[0], max(users) + 1), max(size[1], max(items) + 1))
    matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=size)
    matrix.data[:] = 1
    return matrix


def hide_a_tenth(known: sp.csr_matrix, *, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """A random tenth of each user's items (of users with ten or more) is hidden, the rest kept."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))
    order = np.lexsort((rng.random(known.nnz), user))
    rank = np.empty(known.nnz, dtype=np.int64)
    rank[order] = np.arange(known.nnz) - np.repeat(known.indptr[:-1], np.diff(known.indptr))
    is_hidden = rank < (np.diff(known.indptr) * TUNING_SHARE).astype(np.int64)[user]

    def part(chosen: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix((known.data[chosen], (user[chosen], known.indices[chosen])), shape=known.shape)

    return part(~is_hidden), part(is_hidden)


def choose(kept: sp.csr_matrix, hidden: sp.csr_matrix, *, dim: int, epochs: int, console: Console) -> Chosen:
    """Exponents by the filter alone, then the weights beside each other, on the hidden items."""
    able = np.flatnonzero(np.diff(hidden.indptr) > 0)
    users = np.random.default_rng(1).permutation(able)[:TUNING_USERS]
    users.sort()
    by_filter = {}
    for exponents in track(EXPONENTS, description="filter", console=console, transient=True):
        scorer = counted_scorer(kept, exponents)
        by_filter[exponents] = judge(scorer, kept, hidden, users)["ndcg"]
    exponents = max(by_filter, key=lambda one: by_filter[one])
    scorer = fit(kept, exponents, dim=dim, epochs=epochs, seed=0)
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for similarity in SIMILARITY_WEIGHTS:
        for popularity in POPULARITY_WEIGHTS:
            weights = {"filter": 1.0, SIMILARITY: similarity, "popularity": popularity}
            found = judge(scorer.with_weights(ScoreWeights(terms=weights)), kept, hidden, users[:2000])
            best = max(best, (found["recall"] + found["ndcg"], weights), key=lambda pair: pair[0])
    return Chosen(exponents, best[1])


def fit(known: sp.csr_matrix, exponents: FilterExponents, *, dim: int, epochs: int, seed: int) -> Scorer:
    """Train on whole histories, a third of each hidden in each step, and score with everything counted beside."""
    window = untimed_window(known, exponents)
    config = RecommenderConfig(
        num_items=known.shape[1],
        dim=dim,
        num_layers=1,
        encoder="light",
        relations=(RELATION,),
        attribute_sizes=(),
        num_statistics=0,
        half_life_days=None,
    )
    model = Recommender(config)
    model.start(id_vectors=svd_vectors(known, dim=dim, seed=seed), generator=torch.Generator().manual_seed(seed))
    loop = LoopConfig(
        learning_rate=0.03,
        weight_decay=0.0,
        temperature=TEMPERATURE,
        batch_users=int(np.clip(known.shape[0] // STEPS_AN_EPOCH, 64, 1024)),
        max_epochs=epochs,
        patience=epochs,
        history_dropout=0.3,
        id_dropout=0.0,
        seed=seed,
    )
    attributes = window.counted.attributes
    console = Console(stderr=True)
    console.print(f"[dim]training, seed {seed}[/]")

    def say(epoch: Epoch) -> None:
        console.print(f"[dim]  epoch {epoch.number}: loss {epoch.loss:.4f}, {cpu_seconds():.0f} CPU-s so far[/]")

    train(model, [window], attributes, config=loop, bases=[None], validate=None, on_epoch=say)
    model.user_vector.item_degree_I.copy_(window.item_degree_I)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=window.has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=TEMPERATURE,
        counted=window.counted,
        weights=ScoreWeights(terms={}),
    )


def counted_scorer(known: sp.csr_matrix, exponents: FilterExponents) -> Scorer:
    """The filter alone, in a scorer's form: no vector says anything."""
    window = untimed_window(known, exponents, with_graph=False)
    config = RecommenderConfig(
        num_items=known.shape[1],
        dim=2,
        num_layers=0,
        encoder="light",
        relations=(),
        attribute_sizes=(),
        num_statistics=0,
        half_life_days=None,
    )
    model = Recommender(config)
    nothing = torch.zeros(known.shape[1], 2)
    return Scorer(
        history_ID=nothing,
        target_ID=nothing,
        user_vector=model.user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=TEMPERATURE,
        counted=window.counted,
        weights=ScoreWeights(terms={"filter": 1.0}),
    )


def untimed_window(known: sp.csr_matrix, exponents: FilterExponents, *, with_graph: bool = True) -> TrainingWindow:
    """All of a log without times as one window: what a history hides is to be told from what it shows."""
    num_items = known.shape[1]
    users_I = torch.from_numpy(np.asarray(known.sum(axis=0)).ravel().astype(np.float32))
    counted = CountedTerms(
        filter_rows=FilterRows.from_scipy(build_filter(known, exponents=exponents, neighbours=FILTER_NEIGHBOURS)),
        attributes=ItemAttributes.from_columns({}, num_items=num_items, affinity_names=()),
        popularity=Popularity(users_I, users_I),
        half_life_days=None,
    )
    histories = to_histories(known, np.arange(known.shape[0]))
    return TrainingWindow(
        histories=histories,
        statistics_BF=torch.zeros(len(histories), 0),
        graph={RELATION: SparseMatrix.from_scipy(symmetric_graph(known))} if with_graph else {},
        item_degree_I=users_I,
        has_id_I=torch.ones(num_items, dtype=torch.bool),
        counted=counted,
        candidates_C=torch.arange(num_items),
        targets=histories,
        targets_may_be_seen=True,
    )


def symmetric_graph(known: sp.csr_matrix) -> sp.csr_matrix:
    """The strongest neighbours by cosine-normalised co-occurrence, symmetric, degree-normalised on both sides."""
    strongest = build_filter(
        known, exponents=FilterExponents(first_item=0.5, user=1.0, last_item=0.5), neighbours=NEIGHBOURS
    )
    both = strongest.maximum(strongest.T).tocsr()
    degree = np.maximum(np.asarray(both.sum(axis=1)).ravel(), 1e-12)
    return sp.csr_matrix(sp.diags(degree**-0.5) @ both @ sp.diags(degree**-0.5))


def to_histories(known: sp.csr_matrix, users: np.ndarray) -> Histories:
    rows = known[users]
    return Histories(
        torch.from_numpy(rows.indptr.astype(np.int64)),
        torch.from_numpy(rows.indices.astype(np.int64)),
        torch.ones(rows.nnz),
        torch.zeros(rows.nnz),
    )


def judge(scorer: Scorer, known: sp.csr_matrix, wanted: sp.csr_matrix, users: np.ndarray) -> dict[str, float]:
    """Recall and NDCG at 20 over `users`, their known items left out of every list."""
    recall, ndcg = [], []
    for rows in np.array_split(users, max(1, len(users) // 512)):
        histories = to_histories(known, rows)
        scores = scorer.score(histories, torch.zeros(len(rows), 0))
        scores[histories.user_of_entry, histories.items] = -torch.inf
        metrics = list_metrics(top_lists(scores, k=K), wanted[rows])
        recall.append(metrics.recall)
        ndcg.append(metrics.ndcg)
    return {"recall": float(np.concatenate(recall).mean()), "ndcg": float(np.concatenate(ndcg).mean())}


def summarise(results: list[dict[str, dict[str, float]]], chosen: Chosen) -> dict[str, Any]:
    def over_seeds(part: str, name: str, of: Callable[[Iterable[float]], Any]) -> float:
        return round(float(of([result[part][name] for result in results])), 5)

    parts = {
        part: {name: over_seeds(part, name, np.mean) for name in ("recall", "ndcg")}
        | {f"{name}_spread": over_seeds(part, name, np.ptp) for name in ("recall", "ndcg")}
        for part in results[0]
    }
    return {
        **parts["whole"],
        "encoder_alone": parts["encoder alone"],
        "filter_alone": parts["filter alone"],
        "weights": dict(chosen.weights),
        "filter_exponents": [chosen.exponents.first_item, chosen.exponents.user, chosen.exponents.last_item],
    }


def as_table(report: Mapping[str, Any]) -> Table:
    table = Table("", f"Recall@{K}", f"NDCG@{K}", title="Test, mean over seeds")
    for label, part in (
        ("whole score", report),
        ("trained encoder alone", report["encoder_alone"]),
        ("filter alone", report["filter_alone"]),
    ):
        table.add_row(label, f"{part['recall']:.4f}", f"{part['ndcg']:.4f}")
    return table


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    prepare_libraries()
    main()
