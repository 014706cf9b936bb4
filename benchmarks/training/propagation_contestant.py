"""One way of propagating over a graph, timed. The peers' environment runs it too.

    python -m benchmarks.training.propagation_contestant ours --graph graph.npz

Three layers of the light convolution over a symmetric normalised matrix, d = 64, mean of the layers, forward and
backward. Prints, last, one JSON object with the least and the median CPU- and wall-milliseconds of a repetition. The
`gather`s read random rows with torch's own kernels: index_select into memory that is there already, and embedding_bag
without weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS, DIM = 3, 64
Product = Callable[[Tensor], Tensor]  # (N, D) -> (N, D), differentiable


def ours(matrix: sp.csr_matrix, device: torch.device) -> Product:
    from components.model.propagation import SparseMatrix, propagate

    sparse = SparseMatrix.from_scipy(matrix).to(device)
    return lambda dense_ND: propagate(sparse, dense_ND)


def torch_coo(matrix: sp.csr_matrix, device: torch.device) -> Product:
    coo = matrix.tocoo()
    places = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    sparse = torch.sparse_coo_tensor(places, torch.from_numpy(coo.data), coo.shape).coalesce().to(device)
    return lambda dense_ND: torch.sparse.mm(sparse, dense_ND)


def torch_csr(matrix: sp.csr_matrix, device: torch.device) -> Product:
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    sparse = torch.sparse_csr_tensor(*parts, size=matrix.shape).to(device)
    return lambda dense_ND: sparse @ dense_ND


def dgl_copy(matrix: sp.csr_matrix, device: torch.device) -> Product:
    """D^-½ A D^-½ as two scalings around an unweighted sum, DGL's fastest."""
    import dgl
    import dgl.function as fn

    coo = matrix.tocoo()
    graph = dgl.graph((coo.col, coo.row), num_nodes=matrix.shape[0]).to(device)
    degree = torch.from_numpy(np.diff(matrix.indptr).astype(np.float32)).clamp(min=1)
    scale_N1 = degree.pow(-0.5)[:, None].to(device)

    def product(dense_ND: Tensor) -> Tensor:
        with graph.local_scope():
            graph.ndata["h"] = dense_ND * scale_N1
            graph.update_all(fn.copy_u("h", "m"), fn.sum("m", "out"))
            return graph.ndata["out"] * scale_N1

    return product


def dgl_weighted(matrix: sp.csr_matrix, device: torch.device) -> Product:
    import dgl
    import dgl.function as fn

    coo = matrix.tocoo()
    graph = dgl.graph((coo.col, coo.row), num_nodes=matrix.shape[0]).to(device)
    graph.edata["w"] = torch.from_numpy(coo.data)[:, None].to(device)

    def product(dense_ND: Tensor) -> Tensor:
        with graph.local_scope():
            graph.ndata["h"] = dense_ND
            graph.update_all(fn.u_mul_e("h", "w", "m"), fn.sum("m", "out"))
            return graph.ndata["out"]

    return product


def pyg_scatter(matrix: sp.csr_matrix, device: torch.device) -> Product:
    from torch_geometric.nn import LGConv

    coo = matrix.tocoo()
    edges = torch.from_numpy(np.stack([coo.col, coo.row]).astype(np.int64)).to(device)
    weights, conv = torch.from_numpy(coo.data).to(device), LGConv(normalize=False)
    return lambda dense_ND: conv(dense_ND, edges, weights)


KERNELS: dict[str, Callable[[sp.csr_matrix, torch.device], Product]] = {
    "ours": ours,
    "torch COO": torch_coo,
    "torch CSR": torch_csr,
    "DGL copy_u, scaled": dgl_copy,
    "DGL u_mul_e": dgl_weighted,
    "PyG scatter": pyg_scatter,
}
GATHERS = ("gather", "gather, summed")
PACKAGES = {"DGL": "dgl", "PyG": "torch-geometric"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", choices=[*KERNELS, *GATHERS])
    parser.add_argument("--graph", type=Path, required=True, help="a scipy CSR matrix, symmetric, degree-normalised")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="CPU-seconds to repeat for; three repetitions at least"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    matrix = sp.csr_matrix(sp.load_npz(given.graph)).astype(np.float32)
    dense_ND = torch.randn(matrix.shape[0], DIM, generator=torch.Generator().manual_seed(0)).to(device)
    if given.kernel in GATHERS:
        answer = gather(matrix, dense_ND, seconds=given.seconds, is_summed=given.kernel == GATHERS[1])
    else:
        answer = propagation(KERNELS[given.kernel](matrix, device), dense_ND, seconds=given.seconds)
    packages = ["torch", *(package for name, package in PACKAGES.items() if given.kernel.startswith(name))]
    print(json.dumps(answer | {"versions": {package: metadata.version(package) for package in packages}}))


def propagation(product: Product, start_ND: Tensor, *, seconds: float) -> dict[str, object]:
    leaf_ND = start_ND.clone().requires_grad_()
    towards_ND = torch.linspace(-1, 1, start_ND.numel(), device=start_ND.device).view_as(start_ND)

    def once() -> None:
        leaf_ND.grad = None
        total_ND = layer_ND = leaf_ND
        for _ in range(LAYERS):
            layer_ND = product(layer_ND)
            total_ND = total_ND + layer_ND
        (total_ND / (LAYERS + 1) * towards_ND).sum().backward()

    timed = repeat(once, start_ND.device, seconds=seconds)
    assert leaf_ND.grad is not None
    # All kernels must have computed the same: the caller compares these.
    checks = [float(leaf_ND.grad.double().square().sum()), float(leaf_ND.grad[0, 0])]
    return timed | {"checks": checks}


def gather(matrix: sp.csr_matrix, dense_ND: Tensor, *, seconds: float, is_summed: bool) -> dict[str, object]:
    """Read as many random rows as the graph has entries: each written down, or summed in bags of the mean degree."""
    num_rows, device = matrix.nnz, dense_ND.device
    rows = torch.randint(len(dense_ND), (num_rows,), generator=torch.Generator().manual_seed(1)).to(device)
    if is_summed:
        bags = torch.arange(0, num_rows, max(1, num_rows // len(dense_ND)), device=device)
        timed = repeat(lambda: F.embedding_bag(rows, dense_ND, bags, mode="sum"), device, seconds=seconds)
        num_bytes = (num_rows + len(bags)) * DIM * 4 + rows.nbytes
    else:
        out = torch.empty(num_rows, DIM, device=device)
        timed = repeat(lambda: torch.index_select(dense_ND, 0, rows, out=out), device, seconds=seconds)
        num_bytes = 2 * out.nbytes + rows.nbytes
    return timed | {"bytes": num_bytes}


def repeat(once: Callable[[], object], device: torch.device, *, seconds: float) -> dict[str, float]:
    """CPU and wall milliseconds. The least is what a busy machine changes least; on a GPU the wall is what counts."""
    once()
    cpu, wall, spent = [], [], 0.0
    while spent < seconds or len(cpu) < 3:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started, cpu_started = time.perf_counter(), time.process_time()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        cpu.append(time.process_time() - cpu_started)
        wall.append(time.perf_counter() - started)
        spent += wall[-1] if device.type == "cuda" else cpu[-1]
    return {
        "cpu_ms": float(np.min(cpu)) * 1000,
        "wall_ms": float(np.min(wall)) * 1000,
        "median_cpu_ms": float(np.median(cpu)) * 1000,
        "median_wall_ms": float(np.median(wall)) * 1000,
        "repetitions": len(cpu),
    }


if __name__ == "__main__":
    main()
