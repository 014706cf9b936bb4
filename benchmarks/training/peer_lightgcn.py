"""A peer's LightGCN at its recommended settings, for a bounded number of steps. Runs in the peers' environment.

    python -m benchmarks.training.peer_lightgcn pyg --train FILE --test FILE --budget 120

Steps are timed in CPU-seconds; evaluation is not counted, which favours the peer. Prints, last, one JSON object.

PyTorch Geometric: the settings of its examples/lightgcn.py: 64 dimensions, 2 layers, batches of 8,192, Adam at .001,
100 epochs. RecBole: the defaults of its LightGCN.yaml and overall.yaml: 64 dimensions, 2 layers, batches of 2,048,
Adam at .001, at most 300 epochs, driven by RecBole's own data set, data loader and trainer.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.training.splits import read_lists

K = 20
JUDGED_USERS = 5000


@dataclass(frozen=True)
class Log:
    """Train pairs and the items that are to be found."""

    user_E: Tensor  # (E,) int64
    item_E: Tensor  # (E,) int64
    wanted: dict[int, list[int]]
    num_users: int
    num_items: int


@dataclass(frozen=True)
class Peer:
    """A model in training."""

    steps_an_epoch: int
    epochs: int  # that its settings recommend
    step: Callable[[], None]
    vectors: Callable[[], tuple[Tensor, Tensor]]  # -> users (U, D), items (I, D)
    packages: tuple[str, ...]


def pyg(log: Log) -> Peer:
    from torch_geometric.nn.models import LightGCN

    batch_size, pairs_2E = 8192, torch.stack([log.user_E, log.item_E + log.num_users])
    edges = torch.cat([pairs_2E, pairs_2E.flip(0)], dim=1)
    num_nodes = log.num_users + log.num_items
    model = LightGCN(num_nodes=num_nodes, embedding_dim=64, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    batches = _endless(lambda: torch.split(torch.randperm(pairs_2E.shape[1]), batch_size))

    def step() -> None:
        positive = pairs_2E[:, next(batches)]
        negative = torch.stack([positive[0], torch.randint(log.num_users, num_nodes, (positive.shape[1],))])
        labels = torch.cat([positive, negative], dim=1)
        optimizer.zero_grad()
        positive_rank, negative_rank = model(edges, labels).chunk(2)
        model.recommendation_loss(positive_rank, negative_rank, node_id=labels.unique()).backward()
        optimizer.step()

    def vectors() -> tuple[Tensor, Tensor]:
        both = model.get_embedding(edges)
        return both[: log.num_users], both[log.num_users :]

    steps = -(-pairs_2E.shape[1] // batch_size)
    return Peer(steps, 100, step, vectors, ("torch-geometric", "torch", "numpy"))


def recbole(log: Log) -> Peer:
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import LightGCN
    from recbole.utils import init_seed

    folder = Path(tempfile.mkdtemp(prefix="basketweave-recbole-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)  # it writes logs to wherever it stands
    (folder / "split").mkdir()
    # RecBole splits by itself; all of train is its train part, and its own evaluation is not used.
    pairs = zip(log.user_E.tolist(), log.item_E.tolist(), strict=True)
    rows = "".join(f"{user}\t{item}\n" for user, item in pairs)
    (folder / "split" / "split.inter").write_text("user_id:token\titem_id:token\n" + rows)
    config = Config(
        model="LightGCN",
        dataset="split",
        config_dict={
            "data_path": str(folder),
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": None, "order": "RO", "mode": "full"},
            "use_gpu": False,
            "gpu_id": "",
            "show_progress": False,
            "checkpoint_dir": str(folder),
            "state": "ERROR",
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loader, _, _ = data_preparation(config, dataset)
    model = LightGCN(config, loader.dataset)
    from recbole.trainer import Trainer

    trainer = Trainer(config, model)
    batches = _endless(lambda: loader)
    user_row = torch.from_numpy(np.asarray(dataset.token2id("user_id", [str(u) for u in range(log.num_users)])))
    known = set(dataset.field2id_token["item_id"])
    item_row = [dataset.token2id("item_id", str(i)) if str(i) in known else 0 for i in range(log.num_items)]

    def step() -> None:
        trainer._train_epoch([next(batches)], 0)

    def vectors() -> tuple[Tensor, Tensor]:
        users, items = model()
        return users[user_row], items[torch.tensor(item_row)]

    return Peer(len(loader), config["epochs"], step, vectors, ("recbole", "torch", "numpy", "scipy"))


PEERS: dict[str, Callable[[Log], Peer]] = {"pyg": pyg, "recbole": recbole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--budget", type=float, required=True, help="CPU-seconds of training")
    given = parser.parse_args()
    torch.manual_seed(0)
    log = read_log(given.train, given.test)
    peer = PEERS[given.peer](log)
    curve = [(0.0, 0.0, recall(peer, log))]
    spent, taken, pauses = 0.0, 0, iter([given.budget / 2, given.budget])
    pause = next(pauses)
    while True:
        started = cpu_seconds()
        peer.step()
        spent, taken = spent + cpu_seconds() - started, taken + 1
        if spent >= pause:
            curve.append((taken / peer.steps_an_epoch, spent, recall(peer, log)))
            if pause >= given.budget:
                break
            pause = next(pauses)
    answer: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in peer.packages},
        "steps": taken,
        "cpu_seconds_of_steps": round(spent, 2),
        "steps_an_epoch": peer.steps_an_epoch,
        "recommended_epochs": peer.epochs,
        "curve": [{"epochs": round(e, 3), "cpu_seconds": round(s, 1), "recall": round(r, 5)} for e, s, r in curve],
    }
    print(json.dumps(answer))


def read_log(train: Path, test: Path) -> Log:
    known, wanted = read_lists(train), read_lists(test)
    user_E = np.repeat(list(known), [len(items) for items in known.values()])
    item_E = np.array([item for items in known.values() for item in items])
    num_items = max(int(item_E.max()), max(max(items, default=0) for items in wanted.values())) + 1
    return Log(torch.from_numpy(user_E), torch.from_numpy(item_E), wanted, int(user_E.max()) + 1, num_items)


@torch.no_grad()
def recall(peer: Peer, log: Log) -> float:
    """Mean Recall@20 over some of the users with an item to find, all items ranked, known ones left out."""
    able = np.array([user for user, items in log.wanted.items() if items])
    users = torch.from_numpy(np.random.default_rng(0).permutation(able)[:JUDGED_USERS])
    user_UD, item_ID = peer.vectors()
    found = []
    for rows in torch.split(users, 500):
        scores = user_UD[rows] @ item_ID.T
        place = torch.full((log.num_users,), -1)
        place[rows] = torch.arange(len(rows))
        is_listed = place[log.user_E] >= 0
        scores[place[log.user_E[is_listed]], log.item_E[is_listed]] = -torch.inf
        for user, best in zip(rows.tolist(), scores.topk(K, dim=1).indices.tolist(), strict=True):
            found.append(len(set(best) & set(log.wanted[user])) / len(log.wanted[user]))
    return float(np.mean(found))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _endless(epoch: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from epoch()


if __name__ == "__main__":
    main()
