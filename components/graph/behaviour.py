"""Relations from what people did in one session: raw weights, decayed and normalised against popularity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from components.core.sections import GraphSettings
from components.graph.session_pairs import BOUGHT, VIEWED, VIEWED_THEN_BOUGHT
from components.graph.world import ItemWorld


def co_purchase(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """Bought in one basket."""
    return _symmetric(world, settings, BOUGHT, world.is_target_E)


def co_view(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """Looked at in one session."""
    return _symmetric(world, settings, VIEWED, world.is_view_E)


def view_then_buy(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """Looked at, and another bought later in the session: what is bought hears from what was looked at."""
    viewed, bought, weight = _cosines(world, settings, VIEWED_THEN_BOUGHT, world.is_view_E, world.is_target_E)
    shape = (world.num_items, world.num_items)
    return sp.csr_matrix((weight, (bought, viewed)), shape=shape, dtype=np.float32)


def _symmetric(
    world: ItemWorld, settings: GraphSettings, kind: str, is_counted_E: npt.NDArray[np.bool_]
) -> sp.csr_matrix:
    low, high, weight = _cosines(world, settings, kind, is_counted_E, is_counted_E)
    entries = (np.tile(weight, 2), (np.concatenate([low, high]), np.concatenate([high, low])))
    return sp.csr_matrix(entries, shape=(world.num_items, world.num_items), dtype=np.float32)


def _cosines(
    world: ItemWorld,
    settings: GraphSettings,
    kind: str,
    is_source_E: npt.NDArray[np.bool_],
    is_target_E: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """c_ij / sqrt(d_i d_j): c how often they met, d how often each was looked at or bought, all decayed."""
    source, target, met = world.pairs[kind].counts(cutoff=world.cutoff_days, half_life_days=settings.half_life_days)
    if not len(met):
        return source, target, np.zeros(0, dtype=np.float32)
    decay_E = world.decay(settings.half_life_days)
    source_degree_I, target_degree_I = (
        np.bincount(world.item_E[chosen_E], weights=decay_E[chosen_E], minlength=world.num_items)
        for chosen_E in (is_source_E, is_target_E)
    )
    weight = met / np.sqrt(np.maximum(source_degree_I[source] * target_degree_I[target], 1e-12))
    return source, target, weight.astype(np.float32)
