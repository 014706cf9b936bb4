"""What the item graph costs, on the demo log: each relation, the whole step, and a day's update.

    python -m benchmarks.graph                  # some minutes; needs the extras `train` and `demo`
    python -m benchmarks.graph --home FOLDER    # keep the clean log there and find it again

The log is read by the pipeline's own steps `ingest` and `validate`. Every figure is of a process of its own, with one
thread: CPU-seconds of the process, peak resident memory, and edges as of the last cutoff.

One graph: from the clean log to the saved heterograph of all relations as of the log's end. The step builds one for
every cutoff that training, validation, test and serving need, and the linear filter of each; its parts are summed over
all cutoffs. The update builds as of one day later than a step that is there, and must equal the full rebuild.

Prints tables and writes benchmarks/results/graph.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from components.core.artifact import Artifact, ArtifactRef
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit
from components.core.step import execute
from components.core.store import Store

RESULTS = Path(__file__).parent / "results" / "graph.json"
LIBRARIES = ("numpy", "scipy", "torch", "dgl", "mmh3", "pyarrow")
# What the demo log has: no views, no rules, no knowledge graph.
RELATIONS = ("co_purchase", "same_category", "same_brand", "price_band", "similar_text", "attribute", "user_item")
ONE_GRAPH = "one graph, all relations"
FILTER, READING = "linear filter", "log, catalogue, session pairs"


def settings_in(home: Path, *, project: str = "demo") -> Settings:
    return load_settings(home=home, project=project, graph={"relations": RELATIONS})


def clean_log(home: Path) -> ArtifactRef:
    """The demo log, ingested and validated."""
    from components.ingest.step import STEP as INGEST
    from components.validate.step import STEP as VALIDATE

    settings = settings_in(home)
    events = execute(INGEST, settings=settings, inputs={}, run_id="benchmark").ref
    return execute(VALIDATE, settings=settings, inputs={"events": events}, run_id="benchmark").ref


def alone(work: Any, *arguments: Any) -> Any:
    """Run in a process of its own, so that its time and its peak memory are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def relation_costs(home: Path, clean: ArtifactRef) -> dict[str, dict[str, float]]:
    """Part -> CPU-seconds over all cutoffs, edges and bytes of its matrix as of the last."""
    from components.graph.relations import build_relation
    from components.graph.step import filter_rows
    from components.graph.world import read_worlds
    from components.model.item_graph import NodeRelation

    settings, artifact = settings_in(home), _open(home, clean)
    split = TimeSplit.of(artifact.as_of, settings.split)
    partitions = zip(artifact.manifest.partitions, artifact.partition_paths(), strict=True)
    started = time.process_time()
    worlds = read_worlds(
        [(part.day, path, part.sha256) for part, path in partitions],
        artifact.table("catalog.parquet"),
        cutoffs=split.graph_cutoffs,
        min_distinct_users=settings.graph.min_distinct_users,
    ).by_cutoff
    costs = {READING: {"cpu_seconds": time.process_time() - started}}
    for name in (*RELATIONS, FILTER):
        started = time.process_time()
        for world in worlds:
            is_filter = name == FILTER
            built = filter_rows(world, settings.graph) if is_filter else build_relation(name, world, settings.graph)
        matrices = [built.gather, built.spread] if isinstance(built, NodeRelation) else [built]
        costs[name] = {
            "cpu_seconds": time.process_time() - started,
            "edges": sum(matrix.nnz for matrix in matrices),
            "mib": sum(part.nbytes for m in matrices for part in (m.data, m.indices, m.indptr)) / (1 << 20),
        }
    return costs


def one_graph_costs(home: Path, clean: ArtifactRef) -> dict[str, Any]:
    """From the clean log to a saved graph of all relations, as of the log's end; nothing kept from before."""
    from components.graph.relations import build_relation
    from components.graph.world import read_worlds
    from components.model.item_graph import to_heterograph, write_edges, write_nodes

    settings, artifact = settings_in(home), _open(home, clean)
    partitions = zip(artifact.manifest.partitions, artifact.partition_paths(), strict=True)
    started, cpu = time.perf_counter(), time.process_time()
    (world,) = read_worlds(
        [(part.day, path, part.sha256) for part, path in partitions],
        artifact.table("catalog.parquet"),
        cutoffs=TimeSplit.of(artifact.as_of, settings.split).graph_cutoffs[-1:],
        min_distinct_users=settings.graph.min_distinct_users,
    ).by_cutoff
    relations = {name: build_relation(name, world, settings.graph) for name in RELATIONS}
    graph = to_heterograph(relations)
    with tempfile.TemporaryDirectory() as folder:
        write_edges(graph, Path(folder) / "edges.parquet")
        write_nodes(relations, Path(folder) / "other_nodes.parquet")
    return {
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - started,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "edges": graph.num_edges(),
    }


def step_costs(home: Path, clean: ArtifactRef, *, days_before: int, anew: bool) -> dict[str, Any]:
    """The step as the pipeline runs it, as of so many days before the log's end.

    Args:
        anew: with nothing kept of earlier graphs.
    """
    from components.graph.step import STEP

    settings, artifact = settings_in(home), _open(home, clean)
    store = Store(settings.artifact_root)
    if anew:
        store.delete("tables/session_pairs")
        store.delete("tables/similar_texts")
    store.delete("graph")
    as_of = artifact.as_of - timedelta(days=days_before)
    started, cpu = time.perf_counter(), time.process_time()
    done = execute(STEP, settings=settings, inputs={"clean": clean}, run_id="benchmark", as_of=as_of)
    return {
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - started,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "edges": done.manifest.rows,
        "content_sha256": done.manifest.content_sha256,
        "summary": done.manifest.summary,
    }


def relation_table(costs: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Parts of the graph, over all cutoffs", title_justify="left")
    for column in ("part", "CPU-s", "edges", "MiB"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    for name, row in costs.items():
        edges, mib = (f"{row[key]:,.0f}" if key in row else "" for key in ("edges", "mib"))
        table.add_row(name, f"{row['cpu_seconds']:.2f}", edges, mib)
    return table


def step_table(runs: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Whole builds", title_justify="left")
    for column in ("build", "CPU-s", "seconds", "peak MiB", "edges", "content"):
        table.add_column(column, justify="left" if column == "build" else "right", no_wrap=True)
    for name, row in runs.items():
        figures = [f"{row[key]:,.1f}" for key in ("cpu_seconds", "seconds")]
        figures += [f"{row[key]:,.0f}" for key in ("peak_memory_mib", "edges")]
        table.add_row(name, *figures, row.get("content_sha256", "")[:12])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU-seconds, memory and edges of the item graph on the demo log.")
    parser.add_argument("--home", type=Path, help="where the log and the graphs are kept; default: a folder that goes")
    given = parser.parse_args().home
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        home = (given or Path(folder)).absolute()
        clean = clean_log(home)
        runs = {
            ONE_GRAPH: alone(one_graph_costs, home, clean),
            "step, all anew": alone_step(home, clean, days_before=0, anew=True),
            "step, a day earlier, anew": alone_step(home, clean, days_before=1, anew=True),
            "step, update by the day": alone_step(home, clean, days_before=0, anew=False),
        }
        costs = alone(relation_costs, home, clean)
    is_equal = runs["step, all anew"]["content_sha256"] == runs["step, update by the day"]["content_sha256"]
    console.print(relation_table(costs), step_table(runs))
    console.print(f"the update equals the full rebuild: {'yes' if is_equal else 'NO'}", highlight=False)
    RESULTS.parent.mkdir(exist_ok=True)
    machine = describe_machine(LIBRARIES)
    result = {"machine": machine, "rows": clean.rows, "parts": costs, "builds": runs, "is_equal": is_equal}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"written to {RESULTS}", highlight=False)
    if not is_equal:
        raise SystemExit(1)


def alone_step(home: Path, clean: ArtifactRef, *, days_before: int, anew: bool) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step_costs, (home, clean), {"days_before": days_before, "anew": anew})


def _open(home: Path, clean: ArtifactRef) -> Artifact:
    return Artifact.open(Store(settings_in(home).artifact_root), clean.uri, sha256=clean.sha256, kind="clean")


if __name__ == "__main__":
    main()
