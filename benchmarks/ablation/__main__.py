"""What each encoder, each of its options, each term of the score and the convolution itself are worth.

    python -m benchmarks.ablation                                       # both logs, about half an hour on one core
    python -m benchmarks.ablation --data complete_journey --arms light "no convolution"
    python -m benchmarks.ablation --data lastfm_social

Every choice (learning rate, epoch, weights) is made on a validation slice, tables show the hold-out or test file; one
seed. Intervals are a paired bootstrap over users, 95 %. The demo log is prepared by the project's own steps in project
'ablation' of the home folder; splits are read from BASKETWEAVE_DATA (default ../shared/data).

Prints tables and writes benchmarks/results/ablation-NAME.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.ablation.arms import ARMS, REFERENCE, WITHOUT, Outcome, as_table, to_json
from benchmarks.machine import write_result

DEMO_LOG = "complete_journey"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[DEMO_LOG, "lastfm_social"], help="'complete_journey', or a split")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="some arms alone, for a look")
    given = parser.parse_args()
    console = Console(width=140, highlight=False)
    # Every arm is compared with the reference.
    names = None if given.arms is None else frozenset({*given.arms, REFERENCE})
    for data in given.data:
        outcomes = []
        for outcome in outcomes_on(data, names=names):
            outcomes.append(outcome)
            console.print(f"[dim]{data}: {outcome.name}, Recall@20 {outcome.test.recall_U.mean():.4f}[/]")
        report = summarise(data, outcomes)
        console.print(as_table(report["arms"], title=f"{data}: trained otherwise"))
        console.print(as_table(report["terms"], title=f"{data}: the score without a term"))
        console.print(convolution_line(report))
        if names is None:
            write_result(f"ablation-{data}", report)


def outcomes_on(data: str, *, names: frozenset[str] | None) -> Iterator[Outcome]:
    # Imported late: each brings libraries that the other does without.
    if data == DEMO_LOG:
        from benchmarks.ablation import demo_log

        yield from demo_log.run_arms(demo_log.read_shop(), names=names)
    else:
        from benchmarks.ablation import published

        folder = Path(os.environ.get("BASKETWEAVE_DATA", "../shared/data")) / data
        yield from published.run_arms(folder, names=names)


def summarise(data: str, outcomes: list[Outcome]) -> dict[str, Any]:
    by_name = {one.name: one for one in outcomes}
    reference = by_name[REFERENCE]
    arm_names = {arm.name for arm in ARMS}
    report: dict[str, Any] = {
        "data": data,
        "users": len(reference.test.recall_U),
        "arms": to_json([one for one in outcomes if one.name in arm_names], reference),
        "terms": to_json([one for one in outcomes if one.name not in arm_names], reference),
    }
    if WITHOUT in by_name:
        gaps = reference.test.against(by_name[WITHOUT].test)
        report["convolution_adds"] = {
            metric: {"mean": round(gap.mean, 5), "interval": [round(gap.lower, 5), round(gap.upper, 5)]}
            for metric, gap in gaps.items()
        }
    return report


def convolution_line(report: dict[str, Any]) -> str:
    if "convolution_adds" not in report:
        return ""
    said = [
        f"{metric} {gap['mean']:+.4f} [{gap['interval'][0]:+.4f}, {gap['interval'][1]:+.4f}]"
        for metric, gap in report["convolution_adds"].items()
    ]
    return f"With the convolution against without it, same everything else: {', '.join(said)}; {report['users']} users"


if __name__ == "__main__":
    main()
