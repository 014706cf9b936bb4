"""What the windows and the run come to: a verdict, why in words, one line, and the gauges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.core.pipeline_metrics import Sample
from components.model.bundle import Bundle
from components.monitor.measures import MEASURES
from components.monitor.thresholds import Judged
from components.monitor.windows import Window


def statistics_of(windows: Sequence[Window], run: Mapping[str, Judged], bundle: Bundle) -> dict[str, Any]:
    """What the DAG, the status and the manifest need to know."""
    newest = windows[-1] if windows else None
    alarms = {**(newest.judged if newest else {}), **run}
    alarms = {name: one for name, one in alarms.items() if one.cause is not None}
    in_a_row = 0
    for window in reversed(windows):
        if not window.alarms:
            break
        in_a_row += 1
    if alarms:
        verdict = "drift"
    elif newest is None or newest.is_learning:
        verdict = "learning"
    else:
        verdict = "quiet"
    return {
        "verdict": verdict,
        "alarms": sorted(alarms),
        "why": _why(alarms),
        "alarmed_in_a_row": max(in_a_row, int(bool(alarms))),
        "window": newest.day.isoformat() if newest else None,
        "windows": len(windows),
        "alarmed_windows": sum(bool(window.alarms) for window in windows),
        "bundle": bundle.sha256,
        "cutoff": bundle.cutoff.isoformat(),
    }


def _why(alarms: Mapping[str, Judged]) -> str:
    """The three furthest out, in words; empty where nothing alarms."""
    if not alarms:
        return ""
    order = {"bound": 0, "window": 1, "lasting": 2}

    def rank(name: str) -> tuple[int, float, str]:
        one = alarms[name]
        assert one.cause is not None
        return order[one.cause], -abs(one.deviation) if math.isfinite(one.deviation) else 0.0, name

    parts = [f"{name} {_said(alarms[name])}" for name in sorted(alarms, key=rank)]
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "drift: " + ", ".join(parts[:3]) + more


def _said(one: Judged) -> str:
    if one.cause == "lasting":
        direction = "higher" if one.lasting_up >= one.lasting_down else "lower"
        return f"{one.value:.3g}, {direction} for some windows"
    if one.upper is not None and one.value > one.upper:
        return f"{one.value:.3g} above {one.upper:.3g}"
    return f"{one.value:.3g} below {one.lower:.3g}"


def summary_of(statistics: Mapping[str, Any], windows: Sequence[Window]) -> str:
    since = f"{len(windows)} days since the cutoff, {statistics['alarmed_windows']} of them alarmed"
    if statistics["verdict"] == "drift":
        return f"{statistics['why']}; {since}"
    if statistics["verdict"] == "learning":
        return f"too few quiet days to judge by yet; {since}"
    return f"quiet: {len(MEASURES)} measures within their limits; {since}"


def samples_of(windows: Sequence[Window], run: Mapping[str, Judged], statistics: Mapping[str, Any]) -> list[Sample]:
    judged = {**(windows[-1].judged if windows else {}), **run}
    samples = [Sample("basketweave_drift_alarmed_windows", {}, statistics["alarmed_in_a_row"])]
    for measure in MEASURES:
        if (one := judged.get(measure.name)) is None:
            continue
        labels = {"measure": measure.name}
        samples.append(Sample("basketweave_drift_value", labels, one.value))
        samples.append(Sample("basketweave_drift_alarm", labels, float(one.cause is not None)))
        if (limit := one.nearest_limit) is not None:
            samples.append(Sample("basketweave_drift_threshold", labels, limit))
    return samples
