"""Does the gate let equals pass, and catch what is planted? On a simulated shop, by the pipeline's own code.

    python -m benchmarks.gates                                              # make bench-gates
    python -m benchmarks.gates --users 1500 --seeds 2 --resamples 40 --draws 10      # a look

One log, the recipe trained on it under several seeds; a trial draws the users anew and judges one bundle beside
another.

    A/A      the same recipe, two different training seeds: how often is a bundle rejected that is as good?
    faults   each of benchmarks/gates/faults.py, drawn anew each time: how often does its own detector catch it?
    power    bundles whose recall is lowered, or raised, by a known share: how often is that found?
    cost     the paired bootstrap of 100,000 users, 1,000 resamples, of all columns that an evaluation needs

Prints tables, writes benchmarks/results/gates.json, and ends with status 1 where a bar is missed: more than 5 % of A/A
rejected, or a fault caught in less than 95 % of its draws.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gates.faults import FAULTS, Caught, Fault, caught_of, pair_of
from benchmarks.gates.ground import SEED, Ground, make_ground
from benchmarks.machine import cpu_seconds, peak_memory_mb, write_result
from components.measures.bootstrap import resample
from components.measures.ranking import Ranked
from components.model.ranking import NO_ITEM
from components.simulate.settings import WorldSettings

MOST_FALSE_REJECTS, LEAST_CAUGHT = 0.05, 0.95
VERDICTS = ("promote", "insufficient", "hold", "reject")
EFFECTS = (-0.15, -0.10, -0.05, 0.05, 0.10)
BOOTSTRAP_USERS, BOOTSTRAP_RESAMPLES = 100_000, 1_000
# Seven entrants' five metrics and six differences of them; 20 slices of three columns, beside baseline and champion.
BOOTSTRAP_COLUMNS = 7 * 5 + 6 * 5 + 2 * 20 * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--days", type=int, default=130)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--resamples", type=int, default=240, help="A/A trials, over all pairs of seeds")
    parser.add_argument("--draws", type=int, default=40, help="of each fault, and of each effect")
    parser.add_argument("--home", type=Path, help="where the steps leave their artifacts; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="the result's JSON; default: benchmarks/results/gates.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    world = world_of(users=given.users, items=given.items, days=given.days)
    with tempfile.TemporaryDirectory(prefix="basketweave-gates-") as folder:
        ground = make_ground(
            given.home or Path(folder),
            world,
            seeds=range(1, given.seeds + 1),
            dim=32,
            resamples=1000,
            progress=lambda what: console.print(f"[dim]{what}[/]"),
        )
        result = run(ground, trials=given.resamples, draws=given.draws, console=console)
    result |= {
        "world": {"users": given.users, "items": given.items, "days": given.days, "seeds": given.seeds},
        "margin": ground.settings.evaluate.margin,
        "slice_margin": ground.settings.evaluate.slice_margin,
        "judged_users": len(ground.contest.rows),
        "cpu_seconds": round(cpu_seconds(), 1),
        "peak_memory_mb": peak_memory_mb(),
    }
    for table in tables(result):
        Console().print(table)
    write_result("gates", result, path=given.out)
    missed = misses(result)
    for sentence in missed:
        console.print(f"[red]missed:[/] {sentence}")
    sys.exit(1 if missed else 0)


def world_of(*, users: int, items: int, days: int) -> WorldSettings:
    """A fashion shop: people look much and come seldom, and half of the catalogue is new within the log."""
    return WorldSettings(
        users=users,
        items=items,
        days=days,
        seed=17,
        sessions_per_user_day=0.12,
        views_per_session=9,
        repeat_share=0.05,
        new_items_share=0.5,
        later_users_share=0.4,
        anonymous_share=0.3,
    )


def run(ground: Ground, *, trials: int, draws: int, console: Console) -> dict[str, Any]:
    generator = np.random.default_rng(SEED)
    console.print("[dim]A/A[/]")
    equal = [equals(ground, generator) for _ in range(trials)]
    faults = {}
    for fault in FAULTS:
        console.print(f"[dim]{fault.name}[/]")
        faults[fault.name] = of_fault(fault, [fault.draw(ground, generator) for _ in range(draws)])
    power = {}
    for effect in EFFECTS:
        console.print(f"[dim]effect {effect:+.0%}[/]")
        power[f"{effect:+.2f}"] = shares([changed(ground, generator, effect) for _ in range(draws)])
    return {
        "aa": shares(equal) | {"trials": trials},
        "faults": faults,
        "power": {"+0.00": shares(equal), **power},
        "bootstrap": bootstrap_cost(),
    }


def equals(ground: Ground, generator: np.random.Generator) -> Caught:
    one, other = pair_of(ground, generator)
    return caught_of(ground.judged(ground.lists[one], ground.lists[other], generator=generator))


def changed(ground: Ground, generator: np.random.Generator, effect: float) -> Caught:
    """Beside another seed's bundle, one whose true recall differs by `effect`: the worse of the two lists nothing for
    as many users, drawn at random."""
    one, other = pair_of(ground, generator)
    challenger, champion = ground.lists[one], ground.lists[other]
    if effect < 0:
        challenger = thinned(challenger, -effect, generator)
    else:
        champion = thinned(champion, 1 - 1 / (1 + effect), generator)
    return caught_of(ground.judged(challenger, champion, generator=generator))


def thinned(ranked: Ranked, share: float, generator: np.random.Generator) -> Ranked:
    return np.where((generator.random(len(ranked)) < share)[:, None], NO_ITEM, ranked)


def shares(draws: list[Caught]) -> dict[str, Any]:
    counted = Counter(draw.verdict for draw in draws)
    blamed = Counter(name for draw in draws for name in draw.failed)
    return {
        **{verdict: counted[verdict] / len(draws) for verdict in VERDICTS},
        "in_the_way": {name: count / len(draws) for name, count in blamed.most_common(6)},
    }


def of_fault(fault: Fault, draws: list[Caught]) -> dict[str, Any]:
    caught = [bool(set(fault.detectors) & set(draw.failed)) for draw in draws]
    stopped = [draw.verdict != "promote" for draw in draws]
    changes = [draw.recall_change for draw in draws if draw.recall_change is not None]
    return {
        "detectors": fault.detectors,
        "draws": len(draws),
        "caught": float(np.mean(caught)),
        "stopped": float(np.mean(stopped)),
        "recall_change": float(np.mean(changes)) if changes else None,
        **shares(draws),
    }


def bootstrap_cost() -> dict[str, float]:
    values = np.random.default_rng(SEED).normal(size=(BOOTSTRAP_USERS, BOOTSTRAP_COLUMNS))
    started = time.process_time()
    resample(values, resamples=BOOTSTRAP_RESAMPLES, seed=SEED)
    return {
        "users": BOOTSTRAP_USERS,
        "resamples": BOOTSTRAP_RESAMPLES,
        "columns": BOOTSTRAP_COLUMNS,
        "cpu_seconds": round(time.process_time() - started, 2),
    }


def misses(result: dict[str, Any]) -> list[str]:
    missed = []
    if not result["aa"]["reject"] <= MOST_FALSE_REJECTS:
        missed.append(f"A/A rejects {result['aa']['reject']:.1%}, {MOST_FALSE_REJECTS:.0%} at most are allowed")
    for name, fault in result["faults"].items():
        if not fault["caught"] >= LEAST_CAUGHT:
            missed.append(f"'{name}' is caught by {' or '.join(fault['detectors'])} in {fault['caught']:.0%} of draws")
    return missed


def tables(result: dict[str, Any]) -> list[Table]:
    head = f"{result['judged_users']:,} users judged, margin {result['margin']:.0%}"
    faults = Table("planted fault", "named detector", "draws", "caught", "verdicts", "recall", title=head)
    for name, one in result["faults"].items():
        verdicts = ", ".join(f"{verdict} {one[verdict]:.0%}" for verdict in VERDICTS if one[verdict])
        change = "" if one["recall_change"] is None else f"{one['recall_change']:+.1%}"
        cells = [name, " or ".join(one["detectors"]), str(one["draws"]), f"{one['caught']:.0%}", verdicts, change]
        faults.add_row(*cells)
    power = Table("true change of recall", "promote", "insufficient", "reject", title="A/A (at 0) and power")
    for effect, one in sorted(result["power"].items(), key=lambda pair: float(pair[0])):
        mark = " = the margin" if abs(float(effect)) == result["margin"] else ""
        trials = f" ({result['aa']['trials']} trials)" if float(effect) == 0 else ""
        power.add_row(
            f"{float(effect):+.0%}{mark}{trials}", *(f"{one[v]:.1%}" for v in ("promote", "insufficient", "reject"))
        )
    cost = Table("paired bootstrap", "users", "resamples", "columns", "CPU-s")
    one = result["bootstrap"]
    cost.add_row("", *(f"{one[name]:,}" for name in ("users", "resamples", "columns", "cpu_seconds")))
    return [faults, power, cost]


if __name__ == "__main__":
    main()
