"""`python -m benchmarks.rollout`: three models on their way to production, on the simulator, with clicks.

A small world's log is made, and the pipeline deploys day one's model. Then, while the world's people ask the served
process for lists over HTTP and click on what they are shown as the simulator's click model says:

1. day two's model goes through shadow and canary to production;
2. a planted bad model, every item with another's vector, is rejected by the gate;
3. another, whose lists of new items are sound and whose lists with what was bought before have their repeats hidden
   about, passes the gate, which looks at new items alone, and is rolled back in canary by its clicks.

The real DAGs run in this process. The waits are short, and shares begin at 10 %, for want of people and of hours; the
gates that ask for a lead over the baselines are left out, since so few people show none.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, peak_memory_mb, write_result
from components.core.artifact import Artifact, ArtifactRef
from components.core.live import find_service, read_pointer
from components.core.rollout import read_barred
from components.core.settings import Settings, load_settings
from components.core.step import execute, latest
from components.core.store import Store
from components.orchestration.environment import airflow_environment, enter

USERS, ITEMS, DAYS, SEED = 1200, 250, 50, 7
# In a world of a few hundred people no honest model has a significant lead over item-kNN and RP3; every other gate,
# those beside the champion among them, is asked.
LEFT_OUT = "beats "
ROLLOUT = {
    "shares": [0.1, 0.25, 0.5],
    "shadow_requests": 200,
    "shadow_seconds": 5,
    "stage_requests": 300,
    "stage_seconds": 5,
    "stage_timeout_seconds": 300,
    "watch_seconds": 10,
    "watch_share": 0.2,
    "poll_seconds": 2,
    "observe_seconds": 0.5,
    # A drop by a third shows soonest; a smaller one takes more people than there are here.
    "click_effect": 0.3,
}


@dataclass
class Story:
    """What came of each model."""

    settings: Settings
    console: Console
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.settings.artifact_root)

    def tell(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')}  {text}", soft_wrap=True)


def main(
    home: Annotated[Path | None, typer.Option(help="Where the demo's files go; a temporary folder, kept.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the service.")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON of the outcome; benchmarks/results/rollout.json.")] = None,
) -> None:
    """Let three models try for production. Exit status 1: something went otherwise than it should."""
    started = time.monotonic()
    folder = home or Path(tempfile.mkdtemp(prefix="basketweave-rollout-"))
    shutil.rmtree(folder / "shop", ignore_errors=True)
    settings = demo_settings(folder, workers=workers)
    # Airflow reads its environment when it is first imported, which is in the first run below.
    enter(airflow_environment(settings, home=settings.home.absolute() / "airflow" / "once"))
    story = Story(settings, Console(highlight=False))
    from components.deploy.service_process import stop_service

    try:
        play(story)
    finally:
        stop_service(settings)
    seconds = time.monotonic() - started
    expected = {"day two": "promoted", "vectors shuffled": "rejected by the gate", "repeats hidden": "aborted"}
    expected |= {"requests": "none failed"}
    found = {name: story.outcomes[name]["outcome"] for name in expected}
    show(story, seconds=seconds)
    result = {"outcomes": story.outcomes, "seconds": seconds, "cpu_seconds": cpu_seconds(), "peak_mb": peak_memory_mb()}
    write_result("rollout", result, path=out)
    if found != expected:
        story.console.print(f"Expected {expected}, found {found}.")
        sys.exit(1)


def demo_settings(folder: Path, *, workers: int) -> Settings:
    """A world of a few hundred people: short windows, a small model, quick stages."""
    return load_settings(
        home=folder,
        project="shop",
        source={
            "profile": "contract",
            "events": str(folder / "world" / "events" / "*.parquet"),
            "catalog": str(folder / "world" / "catalog.parquet"),
        },
        split={"window_days": 14, "training_windows": 1},
        train={"max_epochs": 2, "embedding_dim": 16},
        evaluate={"bootstrap_resamples": 1000},
        deploy={"rollout": "staged"},
        rollout=ROLLOUT,
        serve={"workers": workers, "pointer_poll_seconds": 0.5, "served_log_share": 0.0},
        orchestration={"retries": 0, "mode": "in_process"},
    )


def leave_out_leads() -> None:
    from components.evaluate.gates import GATES, judge

    assert judge.__kwdefaults__ is not None
    judge.__kwdefaults__["gates"] = tuple(gate for gate in GATES if not gate.name.startswith(LEFT_OUT))


def play(story: Story) -> None:
    from benchmarks.rollout.people import People, lived_world
    from components.core.clock import midnight
    from components.simulate.settings import world_settings
    from components.simulate.writer import simulate

    leave_out_leads()
    settings = story.settings
    world = world_settings(users=USERS, items=ITEMS, days=DAYS, seed=SEED, sessions_per_user_day=0.4)
    story.tell("left out for so small a world: the gates that ask for a lead over the baselines")
    key = simulate(world, settings.home / "world")
    story.tell(f"a world of {USERS} people and {ITEMS} items: {key.rows:,} events in {DAYS} days")
    day_two = key.as_of
    day_one = midnight(day_two.date().replace(day=day_two.day - 1))
    run_pipeline(story, as_of=day_one.isoformat())
    pointer = read_pointer(story.store)
    assert pointer is not None, "day one's model was not deployed; its evaluation report says why"
    story.tell(f"day one's model {pointer.bundle.sha256[:12]} serves: the first bundle is served at once")
    run_pipeline(story, as_of=day_two.isoformat())
    sound = latest(story.store, "bundle")
    service = find_service(settings)
    assert service is not None
    with People(lived_world(world), url=service.url, moment=day_two, seed=SEED) as people:
        roll_out(story, "day two", sound)
        judge_planted(story, sound)
        roll_out_planted(story, sound)
    story.outcomes["requests"] = {
        "outcome": "none failed" if set(people.statuses) == {200} else "some failed",
        "by_status": {str(status): count for status, count in people.statuses.items()},
        "clicks_a_list": {
            bundle[:12]: round(people.clicks[bundle] / count, 4) for bundle, count in people.lists.items()
        },
        "degraded": dict(people.degraded),
    }


def run_pipeline(story: Story, *, as_of: str) -> None:
    from components.orchestration.one_shot import run_once
    from components.orchestration.watcher import Watcher

    outcome = run_once("recommender", settings=story.settings, parameters={"as_of": as_of}, watcher=Watcher())
    for entry in outcome.entries:
        story.tell(f"  {entry.task:<12} {entry.summary}")
    assert outcome.succeeded, f"the run failed: {outcome.log}"


def roll_out(story: Story, name: str, bundle: ArtifactRef) -> None:
    """Run the DAG `rollout`, as its asset event would."""
    from components.deploy.rollout_record import ROLLOUTS, read_record, record_path
    from components.orchestration.one_shot import run_once
    from components.orchestration.watcher import Watcher

    story.tell(f"{name}: the rollout of {bundle.sha256[:12]} begins")
    outcome = run_once("rollout", settings=story.settings, parameters={}, watcher=Watcher())
    for entry in outcome.entries:
        story.tell(f"  {entry.task:<12} {entry.summary}")
    known = [one for one in story.store.list_dir(ROLLOUTS) if one.endswith(f"-{bundle.sha256[:12]}.json")]
    if not known:
        story.outcomes[name] = {"outcome": "no rollout", "reason": "it was not offered; the evaluation says why"}
        return
    record = read_record(story.store, known[-1].removesuffix(".json"))
    clicks = [
        {"step": look.step, **finding.model_dump(include={"challenger", "reference", "lower", "upper"})}
        for look in {one.step: one for one in record.looks}.values()
        for finding in look.findings
        if finding.name == "click-through"
    ]
    story.outcomes[name] = {"outcome": record.outcome, "reason": record.reason, "clicks": clicks}
    story.reports[f"{name}: rollout"] = story.store.uri(record_path(record.id, "html"))


def evaluated(story: Story, bundle: ArtifactRef) -> ArtifactRef:
    from components.core.command import load_step

    inputs = {kind: latest(story.store, kind) for kind in ("clean", "features")} | {"bundle": bundle}
    return execute(load_step("evaluate"), settings=story.settings, inputs=inputs, run_id="planted").ref


def judge_planted(story: Story, sound: ArtifactRef) -> None:
    """The gate's own function says what it would do with the shuffled bundle."""
    from benchmarks.rollout.plants import plant, shuffle_items
    from components.orchestration.gate import why_not_promoted

    name = "vectors shuffled"
    evaluation = evaluated(story, plant(story.settings, sound, name="shuffled", spoil=shuffle_items))
    refusal = why_not_promoted(evaluation.model_dump(), dag_run=SimpleNamespace(run_type="manual"))
    story.tell(f"{name}: {refusal or 'the gate lets it pass'}")
    outcome = "rejected by the gate" if refusal else "passed"
    story.outcomes[name] = {"outcome": outcome, "reason": refusal}
    story.reports[f"{name}: evaluation"] = f"{evaluation.uri}/report.html"


def roll_out_planted(story: Story, sound: ArtifactRef) -> None:
    from benchmarks.rollout.plants import hide_what_comes_again, plant
    from components.core.command import load_step

    name = "repeats hidden"
    bundle = plant(story.settings, sound, name="hidden", spoil=hide_what_comes_again)
    evaluation = evaluated(story, bundle)
    manifest = Artifact.open(story.store, evaluation.uri, sha256=evaluation.sha256).manifest
    story.tell(f"{name}: the gate says {manifest.statistics['verdict']}: {manifest.summary}")
    story.reports[f"{name}: evaluation"] = f"{evaluation.uri}/report.html"
    if manifest.statistics["verdict"] != "promote":
        story.outcomes[name] = {"outcome": "rejected by the gate", "reason": manifest.summary}
        return
    execute(
        load_step("deploy"),
        settings=story.settings,
        inputs={"bundle": bundle, "evaluation": evaluation},
        run_id="planted-hidden",
    )
    roll_out(story, name, bundle)
    pointer = read_pointer(story.store)
    assert pointer is not None
    story.outcomes[name] |= {
        "serves": "the champion" if pointer.bundle.sha256 == sound.sha256 else pointer.bundle.sha256,
        "is_barred": bundle.sha256 in read_barred(story.store),
    }


def show(story: Story, *, seconds: float) -> None:
    table = Table("model", "outcome", "why")
    for name, outcome in story.outcomes.items():
        table.add_row(name, str(outcome["outcome"]), str(outcome.get("reason") or json.dumps(outcome)))
    story.console.print(table)
    for name, path in story.reports.items():
        story.console.print(f"{name}: {path}", soft_wrap=True)
    story.console.print(f"{seconds:.0f} s, {cpu_seconds():.0f} CPU-seconds of this process and its children")


if __name__ == "__main__":
    typer.run(main)
