"""What Airflow's parser sees: wiring, nothing heavy, no clock, no network."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core.command import PIPELINE, load_step

DAGS = Path(__file__).parents[2] / "dags"
HEAVY = ("bentoml", "dgl", "duckdb", "feast", "great_expectations", "kubernetes", "mlflow", "pandas", "scipy", "torch")
PARSE = f"""
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({str(DAGS)!r})
assert not bag.import_errors, bag.import_errors
heavy = [name for name in {HEAVY!r} if name in sys.modules]
dags = {{
    name: {{
        "file": dag.fileloc,
        "tasks": {{task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}},
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "start_date": dag.start_date.isoformat(),
        "schedule": getattr(getattr(dag.timetable, "timetable", None), "expression", None),
        "assets": [asset.uri for asset in getattr(dag.timetable.asset_condition, "objects", [])],
        "params": {{key: dag.params.get_param(key).schema for key in dag.params}},
        "outlets": {{task.task_id: [asset.uri for asset in task.outlets] for task in dag.tasks}},
    }}
    for name, dag in bag.dags.items()
}}
print("RESULT", json.dumps({{"heavy": heavy, "dags": dags}}))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PARSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return dict(json.loads(line.removeprefix("RESULT")))


def test_parsing_loads_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []


def test_the_recommender_is_wired_as_the_architecture_draws_it(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["recommender"]["tasks"] == {
        "ingest": [],
        "validate": ["ingest"],
        "features": ["validate"],
        "graph": ["validate"],
        "train": ["features", "graph", "validate"],
        "evaluate": ["features", "train", "validate"],
        "gate": ["evaluate"],
        "deploy": ["evaluate", "gate", "train"],
        "not_promoted": ["evaluate", "gate"],
    }


def test_runs_are_bounded_and_reproducible(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"]["recommender"]
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert dag["start_date"] == "2000-01-01T00:00:00+00:00"
    assert dag["file"] == str(DAGS / "recommender.py")
    assert {name: schema["type"] for name, schema in dag["params"].items()} == {
        "as_of": ["null", "string"],
        "day": ["null", "string"],
        "why": ["null", "string"],
    }


def test_the_recommender_runs_daily_or_when_drift_asks_and_is_watched_hourly_and_after_each_run(
    parsed: dict[str, Any],
) -> None:
    dags = parsed["dags"]
    asked = {name: (dags[name]["schedule"], dags[name]["assets"]) for name in ("recommender", "monitoring")}
    assert asked == {
        "recommender": ("0 0 * * *", ["basketweave://demo/drift"]),
        "monitoring": ("0 * * * *", ["basketweave://demo/evaluation"]),
    }
    assert dags["monitoring"]["tasks"] == {
        "ingest": [],
        "validate": ["ingest"],
        "monitor": ["validate"],
        "ask_for_retrain": ["monitor"],
    }
    assert dags["monitoring"]["outlets"]["ask_for_retrain"] == ["basketweave://demo/drift"]
    assert (dags["monitoring"]["catchup"], dags["monitoring"]["max_active_runs"]) == (False, 1)


def test_each_step_gives_an_asset_that_other_dags_may_wait_for(parsed: dict[str, Any]) -> None:
    outlets = parsed["dags"]["recommender"]["outlets"]
    assert outlets["train"] == ["basketweave://demo/bundle"]
    assert outlets["deploy"] == ["basketweave://demo/deployment"]
    assert outlets["gate"] == []


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_dags_import_orchestration_alone(path: Path) -> None:
    imported = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(node.module or "")
    assert imported
    assert [name for name in imported if not name.startswith("components.orchestration")] == []


@pytest.mark.parametrize("name", PIPELINE)
def test_wiring_and_declaration_of_a_step_agree(name: str, parsed: dict[str, Any]) -> None:
    from components.core.command import KINDS

    step = load_step(name)
    assert (step.name, step.kind) == (name, KINDS[name])
    makers = {kind: maker for maker, kind in KINDS.items()}
    upstream = set(parsed["dags"]["recommender"]["tasks"][name]) - {"gate"}
    assert upstream == {makers[kind] for kind in step.inputs}


def test_the_monitor_is_declared_as_the_table_of_kinds_says(parsed: dict[str, Any]) -> None:
    from components.core.command import KINDS

    step = load_step("monitor")
    assert (step.name, step.kind) == ("monitor", KINDS["monitor"])
    # It finds the bundle that serves by itself; the log comes from the task before it.
    assert set(step.inputs) - set(step.chooses) == {"clean"}
