"""Build the item graph and the linear filter, as of every moment that training and serving need."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from safetensors.numpy import save_file

from components.core.errors import ContractError
from components.core.sections import GraphSettings
from components.core.split import TimeSplit, cutoff_folder
from components.core.step import Step, StepContext, StepReport
from components.graph.checks import GraphCounts, count, refuse_unfit
from components.graph.kinds import price_bands
from components.graph.relations import build_relation, without_barred
from components.graph.side_tables import read_rules, read_triples, side_tables_sha256
from components.graph.world import ItemWorld, read_worlds
from components.model.item_graph import to_heterograph, write_edges, write_nodes
from components.model.linear_filter import FilterExponents, build_filter


def run(context: StepContext) -> StepReport:
    """clean -> graph: items.parquet, rules.parquet, and one folder a cutoff with edges, nodes and filter rows."""
    settings = context.settings.graph
    split = TimeSplit.of(context.moment, context.settings.split)
    clean = context.inputs["clean"]
    catalog, rules = clean.table("catalog.parquet"), read_rules(settings.rules)
    partitions = zip(clean.manifest.partitions, clean.partition_paths(), strict=True)
    read = read_worlds(
        [(part.day, path, part.sha256) for part, path in partitions],
        catalog,
        cutoffs=split.graph_cutoffs,
        min_distinct_users=settings.min_distinct_users,
        triples=read_triples(settings.knowledge),
        rules=rules,
        store=context.store,
    )
    worlds = read.by_cutoff
    if not len(worlds[0].item_E):
        raise ContractError(
            f"The log has no event before {split.graph_cutoffs[0]:%Y-%m-%d}, where the first training window starts. "
            "Give a longer log, or lower split.window_days or split.training_windows."
        )
    context.output.write_table("items.parquet", _item_table(worlds, num_bands=settings.price_bands))
    context.output.write_table("rules.parquet", rules)
    counts: GraphCounts | None = None
    for world in context.track(worlds, description="item graph", total=len(worlds)):
        counts = _write_world(context, world, recent_days=context.settings.split.window_days)
    assert counts is not None
    refuse_unfit(counts, settings)
    context.output.path("counts.json").write_text(json.dumps(counts.to_json(), indent=1, sort_keys=True))
    hub = max(relation.largest_hub_share for relation in counts.relations.values())
    present = sum(relation.edges > 0 for relation in counts.relations.values())
    summary = (
        f"{counts.items:,} items ({counts.warm_items:,} warm, {counts.isolated_warm_items:,} of them isolated), "
        f"{counts.edges:,} edges in {present} relations, largest hub {hub:.1%}; "
        f"pairs of {len(read.expanded_days)} of {len(read.days)} days expanded"
    )
    return StepReport(summary=summary, rows=counts.edges, statistics=counts.to_json())


def _write_world(context: StepContext, world: ItemWorld, *, recent_days: int) -> GraphCounts:
    settings = context.settings.graph
    folder = cutoff_folder(world.cutoff)
    relations = {name: build_relation(name, world, settings) for name in settings.relations}
    graph = to_heterograph(relations)
    write_edges(graph, context.output.path(f"{folder}/edges.parquet"))
    write_nodes(relations, context.output.path(f"{folder}/other_nodes.parquet"))
    users_I = world.users_I
    nodes = {"distinct_users": users_I, "recent_users": world.recent_users(within_days=recent_days)}
    context.output.write_table(f"{folder}/nodes.parquet", pa.table(nodes))
    _write_filter(filter_rows(world, settings), context, f"{folder}/filter.safetensors")
    return count(graph, is_warm_I=torch.from_numpy(users_I >= settings.min_item_users))


def filter_rows(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """(I, I) linear filter over the items that have users enough to compete."""
    rows = build_filter(
        world.user_strengths(half_life_days=settings.half_life_days, strongest=settings.filter_history_items),
        exponents=FilterExponents(),
        neighbours=settings.filter_neighbours_per_item,
        items=np.flatnonzero(world.users_I >= settings.min_item_users),
    )
    return without_barred(rows, world)


def _write_filter(rows: sp.csr_matrix, context: StepContext, name: str) -> None:
    arrays = {
        "indptr": rows.indptr.astype(np.int64),
        "indices": rows.indices.astype(np.int32),
        "values": rows.data.astype(np.float32),
    }
    save_file(arrays, context.output.path(name))


def _item_table(worlds: Sequence[ItemWorld], *, num_bands: int) -> pa.Table:
    """Item n of every matrix is row n: item_id, title, attributes, price, price_band.

    The band is of the price as it was known before the first training window, since every window reads it.
    """
    world = worlds[-1]
    catalogue = world.catalogue
    category_I = catalogue.codes("category")
    if not len(category_I):
        category_I = np.full(world.num_items, -1)
    band_I = price_bands(worlds[0].price_I, category_I, num_bands)
    names = pa.array([f"band {band}" for band in range(num_bands)])
    columns: dict[str, pa.Array] = {
        "item_id": pa.array(world.item_ids, pa.string()),
        "title": catalogue.titles,
        "price": pa.array(world.price_I, pa.float32(), from_pandas=True),
        "price_band": names.take(pa.array(band_I, mask=band_I < 0)),
    }
    for name, values in sorted(catalogue.attributes.items()):
        columns[f"attribute:{name}"] = values
    return pa.table(columns)


STEP = Step(
    name="graph",
    kind="graph",
    inputs=("clean",),
    sections=("graph", "split"),
    rooms=("components.graph", "components.model"),
    run=run,
    # A setting says where a table is; what it says decides the graph.
    fingerprint=lambda context: side_tables_sha256(context.settings.graph),
)
