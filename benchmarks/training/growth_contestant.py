"""Some steps of an epoch on generated data. Prints, last, one JSON object.

    python -m benchmarks.training.growth_contestant --interactions 1000000 --items 100000

Users have 30 items on average, very unequally; an item is drawn by a power law. The item graph is generated as well, 32
neighbours an item by the same law, symmetric and normalised, since an epoch does not build it.

The network is the recommender's (light convolution, one layer, two tables, d = 64), the loss the sampled softmax with
logQ over 2,048 shared negatives. An epoch has so many steps whatever the size, so batches grow with the log: each step
sends all items through the graph once, and with batches of a fixed size users times items would be the cost of an
epoch.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from components.core.sections import LossName
from components.model.attributes import ItemAttributes
from components.model.histories import Histories
from components.model.linear_filter import FilterRows
from components.model.propagation import SparseMatrix
from components.model.recommender import Recommender, RecommenderConfig
from components.model.sampled_losses import NegativeSampler
from components.model.terms import CountedTerms, Popularity
from components.train.accumulation import Accumulator
from components.train.batches import Batch, Drawing, part_loss
from components.train.loop import matmul_dtype
from components.train.windows import TrainingWindow

DIM, NEIGHBOURS, NEGATIVES = 64, 32, 2048
ITEMS_A_USER = 30
STEPS_AN_EPOCH = 32
MICRO_BATCH_USERS = 16_384  # of the gradient accumulation, so that memory does not follow the batch
TEMPERATURE, HISTORY_DROPOUT = 0.1, 0.3
POWER = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--loss", choices=("sampled_softmax", "full_softmax"), default="sampled_softmax")
    parser.add_argument("--batch-users", type=int, help="default: a 32nd of the users")
    parser.add_argument("--steps", type=int, default=3, help="steps to time, after one that is not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    measured = measure(
        given.interactions,
        given.items,
        loss=given.loss,
        batch_users=given.batch_users,
        steps=given.steps,
        device=torch.device(given.device),
    )
    print(json.dumps(measured))


def measure(
    interactions: int,
    items: int,
    *,
    loss: LossName = "sampled_softmax",
    batch_users: int | None = None,
    steps: int,
    device: torch.device,
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    histories = draw_histories(interactions, items, rng=rng)
    graph = {"generated": SparseMatrix.from_scipy(draw_graph(items, rng=rng))}
    users = batch_users or -(-len(histories) // STEPS_AN_EPOCH)
    epoch = Epoch(histories, graph, loss=loss, batch_users=users, device=device)
    epoch.step()
    timed = []
    for _ in range(steps):
        started, cpu_started = time.perf_counter(), time.process_time()
        last_loss = epoch.step()
        timed.append((time.process_time() - cpu_started, time.perf_counter() - started))
    # The least of the steps: what a busy machine changes least.
    cpu, wall = (float(np.min(column)) for column in zip(*timed, strict=True))
    return {
        "interactions": len(histories.items),
        "users": len(histories),
        "items": items,
        "graph_entries": len(graph["generated"].indices),
        "batch_users": epoch.batch_users,
        "timed_steps": steps,
        "steps_an_epoch": STEPS_AN_EPOCH,
        "cpu_seconds_a_step": cpu,
        "cpu_seconds_an_epoch": cpu * STEPS_AN_EPOCH,
        "wall_seconds_an_epoch": wall * STEPS_AN_EPOCH,
        "last_loss": last_loss,
    }


def draw_items(count: int, items: int, *, rng: np.random.Generator) -> np.ndarray:
    """`count` draws by a power law: the n-th item in proportion to (n + 10)^-POWER, by its inverse distribution."""
    low, high = 10.0 ** (1 - POWER), (items + 10.0) ** (1 - POWER)
    ranks = (low + rng.random(count) * (high - low)) ** (1 / (1 - POWER)) - 10
    return np.minimum(ranks.astype(np.int64), items - 1)


def draw_histories(interactions: int, items: int, *, rng: np.random.Generator) -> Histories:
    """Distinct pairs of users and items; a little fewer than asked, since a pair drawn twice stands once."""
    users = max(1, interactions // ITEMS_A_USER)
    activity = rng.lognormal(sigma=1.0, size=users)
    lengths = rng.multinomial(interactions, activity / activity.sum())
    pairs = np.repeat(np.arange(users), lengths) * items + draw_items(interactions, items, rng=rng)
    pairs.sort()
    pairs = pairs[np.concatenate([[True], np.diff(pairs) > 0])]
    indptr = np.searchsorted(pairs, np.arange(users + 1) * items)
    item_N = torch.from_numpy(pairs % items)
    return Histories(torch.from_numpy(indptr), item_N, torch.ones(len(item_N)), torch.zeros(len(item_N)))


def draw_graph(items: int, *, rng: np.random.Generator) -> sp.csr_matrix:
    rows = np.repeat(np.arange(items, dtype=np.int32), NEIGHBOURS)
    cols = draw_items(items * NEIGHBOURS, items, rng=rng).astype(np.int32)
    half = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(items, items))
    both = (half + half.T).tocsr()
    scale = np.maximum(np.asarray(both.sum(axis=1)).ravel(), 1) ** -0.5
    both.data *= np.repeat(scale, np.diff(both.indptr)).astype(np.float32) * scale[both.indices].astype(np.float32)
    return both


class Epoch:
    """Steps of a training epoch, by the trainer's own parts."""

    def __init__(
        self,
        histories: Histories,
        graph: dict[str, SparseMatrix],
        *,
        loss: LossName,
        batch_users: int,
        device: torch.device,
    ) -> None:
        items = next(iter(graph.values())).shape[0]
        config = RecommenderConfig(
            num_items=items,
            dim=DIM,
            num_layers=1,
            encoder="light",
            relations=tuple(graph),
            attribute_sizes=(),
            num_statistics=0,
            half_life_days=None,
        )
        self._generator = torch.Generator().manual_seed(0)
        self._model = Recommender(config)
        self._model.start(id_vectors=None, generator=self._generator)
        self._model.to(device).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=0.03, fused=True)
        users_I = torch.bincount(histories.items, minlength=items).float()
        self._attributes = ItemAttributes.from_columns({}, num_items=items, affinity_names=())
        window = TrainingWindow(
            histories=histories,
            statistics_BF=torch.zeros(len(histories), 0),
            graph=graph,
            item_degree_I=users_I,
            has_id_I=torch.ones(items, dtype=torch.bool),
            counted=CountedTerms(
                filter_rows=FilterRows.from_scipy(sp.csr_matrix((items, items), dtype=np.float32)),
                attributes=self._attributes,
                popularity=Popularity(users_I, users_I),
                half_life_days=None,
            ),
            candidates_C=torch.arange(items),
            targets=histories,
            targets_may_be_seen=True,
        )
        self._window, self._attributes = window.to(device), self._attributes.to(device)
        self._sampler = NegativeSampler.of(users_I, power=0.5) if loss == "sampled_softmax" else None
        self._drawing = Drawing(
            loss=loss, history_dropout=HISTORY_DROPOUT, id_dropout=0.0, num_negatives=NEGATIVES, draws_views=False
        )
        dtype = matmul_dtype(device)

        def loss_of_part(user_bD: torch.Tensor, target_CD: torch.Tensor, part: Batch) -> torch.Tensor:
            return part_loss(loss, user_bD, target_CD, part, temperature=TEMPERATURE, matmul_dtype=dtype)

        self._accumulator = Accumulator(micro_batch_users=MICRO_BATCH_USERS, part_loss=loss_of_part, item_loss=None)
        self.batch_users = batch_users
        self._order = torch.randperm(len(histories), generator=self._generator)
        self._at = 0

    def step(self) -> float:
        rows = self._order[self._at : self._at + self.batch_users]
        self._at = (self._at + self.batch_users) % len(self._order)
        self._optimizer.zero_grad(set_to_none=True)
        batch = self._drawing.batch(self._window, None, rows, sampler=self._sampler, generator=self._generator)
        loss = self._accumulator.backward(self._model, batch, self._attributes)
        self._optimizer.step()
        return float(loss)


if __name__ == "__main__":
    main()
