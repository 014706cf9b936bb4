"""Counts that say whether an item graph is fit to learn from; read off the DGL graph itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from components.core.errors import ContractError
from components.core.sections import GraphSettings
from components.model.item_graph import ITEM


@dataclass(frozen=True)
class RelationCounts:
    """Of one relation."""

    edges: int
    isolated_items: int  # items that hear from nobody
    largest_hub_share: float  # share of the edges that start at one item; 0 over nodes that are made to be shared


@dataclass(frozen=True)
class GraphCounts:
    """Of the whole graph."""

    items: int
    warm_items: int  # with users enough for an id vector
    edges: int
    other_nodes: dict[str, int]  # attribute values, entities, users
    isolated_items: int  # items that hear from nobody in any relation
    isolated_warm_items: int
    relations: dict[str, RelationCounts]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def count(graph: Any, *, is_warm_I: torch.Tensor) -> GraphCounts:
    """Counts of a DGL item graph. A relation over other nodes counts the edges of both of its directions."""
    relations: dict[str, RelationCounts] = {}
    heard_I = torch.zeros(graph.num_nodes(ITEM), dtype=torch.bool)
    for edge_type in graph.canonical_etypes:
        source_kind, name, target_kind = edge_type
        edges = graph.num_edges(edge_type)
        before = relations.get(name, RelationCounts(edges=0, isolated_items=0, largest_hub_share=0.0))
        isolated, hub = before.isolated_items, before.largest_hub_share
        source_E, target_E = graph.edges(etype=edge_type)  # degrees by dgl would sort the edges another way first
        if target_kind == ITEM:
            hears_I = torch.zeros_like(heard_I)
            hears_I[target_E] = True
            isolated = int((~hears_I).sum())
            heard_I |= hears_I
        if source_kind == ITEM and target_kind == ITEM and edges:
            hub = float(source_E.bincount().max()) / edges
        relations[name] = RelationCounts(edges=before.edges + edges, isolated_items=isolated, largest_hub_share=hub)
    return GraphCounts(
        items=graph.num_nodes(ITEM),
        warm_items=int(is_warm_I.sum()),
        edges=sum(one.edges for one in relations.values()),
        other_nodes={kind: graph.num_nodes(kind) for kind in graph.ntypes if kind != ITEM},
        isolated_items=int((~heard_I).sum()),
        isolated_warm_items=int((is_warm_I & ~heard_I).sum()),
        relations=relations,
    )


def refuse_unfit(counts: GraphCounts, settings: GraphSettings) -> None:
    """Raise ContractError where a graph would teach nothing, or one item would speak to all."""
    if counts.warm_items == 0:
        raise ContractError(
            f"No item has {settings.min_item_users} users before the cutoff. "
            "Lower graph.min_item_users, or give a longer log."
        )
    if counts.edges == 0:
        raise ContractError("The item graph has no edge. Give a longer log, or a catalogue with categories.")
    isolated_share = counts.isolated_warm_items / counts.warm_items
    if not isolated_share <= settings.max_isolated_share:
        raise ContractError(
            f"{isolated_share:.0%} of the items with users have no neighbour; graph.max_isolated_share allows "
            f"{settings.max_isolated_share:.0%}. Check item ids and sessions, or lower graph.min_distinct_users."
        )
    for name, relation in counts.relations.items():
        # Few edges make large shares; a hub is a hub when it speaks to many.
        if relation.edges >= 1000 and not relation.largest_hub_share <= settings.max_hub_share:
            raise ContractError(
                f"One item holds {relation.largest_hub_share:.0%} of the edges of '{name}'; graph.max_hub_share allows "
                f"{settings.max_hub_share:.0%}. It is probably a bag or a postage line: quarantine it."
            )
