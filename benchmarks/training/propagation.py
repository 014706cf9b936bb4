"""Our propagation kernel beside torch's sparse products, DGL's and PyTorch Geometric's.

    python -m benchmarks.training propagation

The graph is Gowalla's users and items, symmetric and degree-normalised, 1.62 M entries; three layers, d = 64, forward
and backward, one thread, since on a busy machine the least CPU-milliseconds of one thread are what can be compared.
Targets: ours is the fastest, 5 times as fast as COO, and moves at least half the bytes a second that torch gathers
from random rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.training.measure import Finish, run_contestant
from benchmarks.training.peer_environment import peer_python
from benchmarks.training.propagation_contestant import DIM, GATHERS, KERNELS, LAYERS
from benchmarks.training.splits import published_split, read_lists

PEER_KERNELS = ("PyG scatter",)  # the rest runs in our own environment


def run(console: Console, *, data: str = "gowalla", device: str = "cpu") -> dict[str, Any]:
    names = [name for name in KERNELS if device == "cpu" or not name.startswith(("DGL", "PyG"))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.npz"
        matrix = user_item_graph(published_split(data)[0])
        sp.save_npz(path, matrix)
        finished = {name: _contest(name, path, device) for name in (*GATHERS, *names)}
    bytes_a_product = moved_bytes(matrix)
    result = compare(finished, bytes_a_product=bytes_a_product, clock="cpu_ms" if device == "cpu" else "wall_ms")
    result |= {"graph": {"nodes": matrix.shape[0], "entries": int(matrix.nnz)}, "layers": LAYERS, "dim": DIM}
    console.print(as_table(result, device))
    write_result(f"training-propagation{'' if device == 'cpu' else '-' + device}", result)
    return result


def user_item_graph(train: Path) -> sp.csr_matrix:
    """(U + I, U + I): D^-½ A D^-½ over users and items, users first."""
    lists = read_lists(train)
    users = np.repeat(list(lists), [len(items) for items in lists.values()])
    items = np.array([item for one in lists.values() for item in one])
    num_users = int(users.max()) + 1
    size = num_users + int(items.max()) + 1
    half = sp.csr_matrix((np.ones(len(users), np.float32), (users, items + num_users)), shape=(size, size))
    both = (half + half.T).tocsr()
    both.data[:] = 1
    scale = sp.diags(np.maximum(np.diff(both.indptr), 1) ** -0.5)
    normalised = sp.csr_matrix(scale @ both @ scale, dtype=np.float32)
    normalised.sort_indices()
    return normalised


def moved_bytes(matrix: sp.csr_matrix) -> int:
    """What one product must move: a dense row, an index and a weight an entry, and each row of the result."""
    return int(matrix.nnz * (DIM * 4 + 4 + 4) + matrix.shape[0] * DIM * 4)


def compare(finished: dict[str, Finish], *, bytes_a_product: int, clock: str) -> dict[str, Any]:
    """Times, their ratios to ours, and our share of the bandwidth of the faster gather.

    Raises:
        ValueError: two kernels did not compute the same.
    """
    kernels = {name: one for name, one in finished.items() if name not in GATHERS}
    expected = kernels["ours"].answer["checks"]
    for name, one in kernels.items():
        if not np.allclose(one.answer["checks"], expected, rtol=1e-3, atol=1e-6):
            raise ValueError(f"{name} computed {one.answer['checks']}, ours {expected}.")
    own_ms = kernels["ours"].answer[clock]
    gathers = {name: finished[name].answer["bytes"] / (finished[name].answer[clock] / 1000) / 1e9 for name in GATHERS}
    bandwidth = 2 * LAYERS * bytes_a_product / (own_ms / 1000) / 1e9
    return {
        "kernels": {
            name: one.to_json() | {"times_ours": round(one.answer[clock] / own_ms, 2)} for name, one in kernels.items()
        },
        "gather_gb_per_second": {name: round(value, 2) for name, value in gathers.items()},
        "ours_gb_per_second": round(bandwidth, 2),
        "bandwidth_share": round(bandwidth / max(gathers.values()), 3),
        "is_fastest": all(one.answer[clock] >= own_ms for one in kernels.values()),
        "times_faster_than_coo": round(kernels["torch COO"].answer[clock] / own_ms, 2),
    }


def as_table(result: dict[str, Any], device: str) -> Table:
    table = Table(
        title=f"Propagation, {LAYERS} layers, d = {DIM}, forward and backward, {device}", title_justify="left"
    )
    for column in ("kernel", "CPU ms", "wall ms", "times ours", "peak MB"):
        table.add_column(column, justify="left" if column == "kernel" else "right")
    for name, row in sorted(result["kernels"].items(), key=lambda pair: pair[1]["times_ours"]):
        table.add_row(
            name,
            f"{row['cpu_ms']:.1f}",
            f"{row['wall_ms']:.1f}",
            f"{row['times_ours']:.2f}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    gathers = ", ".join(f"{name} {value:.1f}" for name, value in result["gather_gb_per_second"].items())
    table.caption = (
        f"GB/s: ours {result['ours_gb_per_second']:.1f}, of random rows: {gathers}; ours over the faster gather "
        f"{result['bandwidth_share']:.2f} (target .5); {result['times_faster_than_coo']:.1f} × COO (target 5)"
    )
    return table


def _contest(name: str, graph: Path, device: str) -> Finish:
    arguments = ["-m", "benchmarks.training.propagation_contestant", name, "--graph", str(graph), "--device", device]
    if name in PEER_KERNELS:
        return run_contestant(arguments, python=peer_python(), threads=1)
    return run_contestant(arguments, threads=1)
