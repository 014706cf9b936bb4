"""The self-supervised term: two views of an item should be alike, and unlike those of other items.

Views are noisy (SimGCL, Yu et al., SIGIR 2022) or see a graph with edges left out (SGL, Wu et al., SIGIR 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from components.model.encoders import ItemGraph
from components.model.propagation import Relation, SparseMatrix, TwoHop


def info_nce_loss(first_ND: Tensor, second_ND: Tensor, *, temperature: float) -> Tensor:
    """-> scalar: mean over N items of -log softmax(v'_i · v''_j / τ) at j = i. Rows are unit vectors."""
    logits_NN = first_ND @ second_ND.T / temperature
    return F.cross_entropy(logits_NN, torch.arange(len(logits_NN), device=logits_NN.device))


def noise(*, strength: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """h -> h + ε |h| n, with n a random unit vector in the orthant of h: a turn by a fixed, small angle a row."""

    def perturb(item_ID: Tensor) -> Tensor:
        drawn_ID = torch.rand(item_ID.shape, generator=generator).to(item_ID.device)
        turn_ID = F.normalize(drawn_ID, dim=1) * item_ID.detach().sign()
        return item_ID + strength * item_ID.detach().norm(dim=1, keepdim=True) * turn_ID

    return perturb


class EdgeDropper:
    """Leaves a share of a graph's edges out; the others grow, so that a sum over neighbours keeps its expectation."""

    def __init__(self, graph: ItemGraph) -> None:
        self._graph = graph
        self._places = {name: _transposed_places(relation) for name, relation in graph.items()}

    def draw(self, *, share: float, generator: torch.Generator) -> ItemGraph:
        """The graph with `share` of the edges of each relation left out at random."""
        return {name: _drop(relation, self._places[name], share, generator) for name, relation in self._graph.items()}


def _transposed_places(relation: Relation) -> tuple[Tensor, ...]:
    """Where each entry of the transposed matrix stands in the matrix itself, for each of the relation's matrices."""
    matrices = (relation.gather, relation.spread) if isinstance(relation, TwoHop) else (relation,)
    return tuple(torch.argsort(matrix.indices, stable=True) for matrix in matrices)


def _drop(relation: Relation, places: tuple[Tensor, ...], share: float, generator: torch.Generator) -> Relation:
    if isinstance(relation, TwoHop):
        gather = _drop_entries(relation.gather, places[0], share, generator)
        spread = _drop_entries(relation.spread, places[1], share, generator)
        return TwoHop(gather, spread, relation.features_NF)
    return _drop_entries(relation, places[0], share, generator)


def _drop_entries(matrix: SparseMatrix, place_E: Tensor, share: float, generator: torch.Generator) -> SparseMatrix:
    kept_E = (torch.rand(len(matrix.values), generator=generator) >= share).to(matrix.values.device)
    values = matrix.values * kept_E / (1 - share)
    return SparseMatrix(
        matrix.indptr, matrix.indices, values, matrix.indptr_t, matrix.indices_t, values[place_E].contiguous()
    )
