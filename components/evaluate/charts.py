"""The report's pictures, as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.evaluate.rules import GateResult
from components.evaluate.scorecard import SliceResult
from components.measures.bootstrap import Interval

# Colours drawn here stand for variables of the page's style, so that a picture follows it into dark mode.
_INK, _MUTED, _LINE, _MODEL, _OTHER, _BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _MODEL: "var(--model)",
    _OTHER: "var(--other)",
    _BAD: "var(--bad)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "basketweave",  # equal pictures are equal bytes
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_ROW_INCHES = 0.36
_WIDTH_INCHES = 9.2
# Margins to either side that the chart beside the champion shows.
_WIDEST = 5.0


def difference_chart(differences: Mapping[str, Mapping[str, Interval]], metrics: Mapping[str, str]) -> str:
    """Baseline -> metric -> lead of the model. `metrics` maps the metrics to draw, one panel each, to their titles."""
    with mpl.rc_context(_STYLE):
        figure = _figure(rows=len(differences))
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08})[0]
        for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
            axes.axvline(0, color=_MUTED, linewidth=1)
            for row, by_metric in enumerate(differences.values()):
                interval = by_metric[metric]
                _interval(axes, row, interval, color=_MODEL if interval.lower > 0 else _BAD)
            axes.set_title(title, loc="left", fontsize=10.5, color=_MUTED, pad=10)
        _rows(panels[0], list(differences))
        return _svg(figure, "Lead of the model over each baseline, with intervals")


def slice_chart(slices: Sequence[SliceResult]) -> str:
    """Recall of the model and of the best baseline in each slice that has users."""
    shown = [part for part in slices if part.users]
    with mpl.rc_context(_STYLE):
        figure = _figure(rows=len(shown))
        axes = figure.subplots()
        for row, part in enumerate(shown):
            _interval(axes, row - 0.14, part.model, color=_MODEL)
            _interval(axes, row + 0.14, part.baseline, color=_OTHER)
        _rows(axes, [f"{part.group}: {part.name}" for part in shown])
        axes.set_xlim(left=0)
        return _svg(figure, "Recall in parts of the users and of the items")


def champion_chart(gates: Sequence[GateResult]) -> str:
    """Change beside the champion, in all and by slice, in units of what may be lost: -1 is the whole margin."""
    with mpl.rc_context(_STYLE):
        figure = _figure(rows=len(gates))
        axes = figure.subplots()
        axes.axvline(0, color=_MUTED, linewidth=1)
        axes.axvline(-1, color=_BAD, linewidth=1, linestyle=(0, (3, 3)))
        for row, gate in enumerate(gates):
            if gate.interval is None or not gate.threshold:
                continue
            margin = abs(gate.threshold)
            scaled = [value / margin for value in (gate.interval.mean, gate.interval.lower, gate.interval.upper)]
            # A ruined slice would squeeze all others into a line: what lies beyond is drawn at the edge.
            mean, lower, upper = (min(max(value, -_WIDEST), _WIDEST) for value in scaled)
            color = {"pass": _MODEL, "reject": _BAD}.get(gate.outcome, _OTHER)
            _interval(axes, row, Interval(mean=mean, lower=lower, upper=upper), color=color)
            if mean != scaled[0]:
                axes.annotate(
                    f"{scaled[0]:+.0f} ε".replace("-", "−"),
                    (mean, row),
                    xytext=(8 if mean < 0 else -8, 0),
                    textcoords="offset points",
                    ha="left" if mean < 0 else "right",
                    va="center",
                    color=_MUTED,
                )
        _rows(axes, [gate.name for gate in gates])
        axes.set_xlim(max(axes.get_xlim()[0], -1.1 * _WIDEST), min(axes.get_xlim()[1], 1.1 * _WIDEST))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g} ε" if value else "champion")
        return _svg(figure, "Challenger beside champion, in all and in every slice")


def share_chart(shares: Mapping[str, float]) -> str:
    """Term -> part of the lift, largest first."""
    ordered = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    with mpl.rc_context(_STYLE):
        figure = _figure(rows=len(ordered))
        axes = figure.subplots()
        for row, share in enumerate(ordered.values()):
            axes.barh(row, share, height=0.55, color=_MODEL if share >= 0 else _BAD)
            axes.annotate(
                f"{share:.0%}",
                (max(share, 0), row),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=_MUTED,
            )
        axes.axvline(0, color=_MUTED, linewidth=1)
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _rows(axes, [name.replace("_", " ") for name in ordered])
        return _svg(figure, "Each score term's share")


def _figure(*, rows: int) -> Figure:
    return Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * max(rows, 1) + 0.75), layout="constrained")


def _interval(axes: Axes, row: float, interval: Interval, *, color: str) -> None:
    axes.plot([interval.lower, interval.upper], [row, row], color=color, linewidth=2.4, solid_capstyle="round")
    axes.plot([interval.mean], [row], marker="o", markersize=6.5, color=color)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for panel in axes.figure.axes:
        panel.grid(axis="x", color=_LINE, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.locator_params(axis="x", nbins=5)


def _svg(figure: Figure, title: str) -> str:
    """The bare `<svg>` element; texts inside were escaped by matplotlib."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Inside of a page its style rule would reach everything; the page's own font and width decide.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt"| width="[\d.]+pt"', "", text, count=2)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text
