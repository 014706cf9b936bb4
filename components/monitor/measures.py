"""What is watched, one declaration each. A new measure is one entry of MEASURES here, and its test.

A measure of the `window` is a figure of a day's events beside the reference's. One of the `run` is a figure of what
the pipeline holds at a run: the newest graph, the live bundle and the one before, its lists, the feature store
(holdings.py finds them out). Both are judged alike, against what they were in quiet times (thresholds.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.measures.drift import Floats, jensen_shannon, psi
from components.monitor.tally import Tally

Scale = Literal["ratio", "share", "divergence", "distance", "plain"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A measure's value, and of how many observations it is: what a value of few may vary by chance alone."""

    value: float
    count: float


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that is watched."""

    name: str
    family: str
    """Heading under which people find it."""
    help: str
    scale: Scale
    """ratio: positive, judged as a logarithm. share: from 0 to 1, by the arc sine of its root. divergence: PSI, by its
    root. distance and plain: as it is. Divergences and distances alarm upwards alone, the others both ways."""
    least: float
    """Smallest deviation that matters, on the scale of judging: with many events everything is significant."""
    bound: float
    """Beyond it is an alarm whatever quiet times were like; setting `monitor.bounds` takes its place. For a
    divergence or distance the value itself, for a ratio the factor, for a share or a plain value the difference, from
    the reference's."""
    in_sample: bool = False
    """Training's own days show it too well, since the lens was made of them: the bound by hand is about what quiet
    windows let expect, not about the reference."""
    read: Callable[[Tally, Tally], Reading] | None = None
    """(window, reference) -> reading; None for a measure of the run, which holdings.py reads by its name."""

    @property
    def is_two_sided(self) -> bool:
        return self.scale in ("ratio", "share", "plain")

    @property
    def of(self) -> Literal["window", "run"]:
        return "run" if self.read is None else "window"


def _ratio(above: str, below: str | None = None) -> Callable[[Tally, Tally], Reading]:
    def read(window: Tally, reference: Tally) -> Reading:
        count = _sum(window, above)
        value = count if below is None else count / max(1.0, _sum(window, below))
        return Reading(value=value, count=count)

    return read


def _share(part: str, whole: str, *, of_rest: bool = False) -> Callable[[Tally, Tally], Reading]:
    def read(window: Tally, reference: Tally) -> Reading:
        count = _sum(window, whole)
        share = _sum(window, part) / count if count else float("nan")
        return Reading(value=1 - share if of_rest else share, count=count)

    return read


def _mean(total: str, count: str) -> Callable[[Tally, Tally], Reading]:
    def read(window: Tally, reference: Tally) -> Reading:
        number = _sum(window, count)
        return Reading(value=_sum(window, total) / number if number else float("nan"), count=number)

    return read


def _psi(feature: str) -> Callable[[Tally, Tally], Reading]:
    """Of the bins alone: missing values are a measure of their own."""

    def read(window: Tally, reference: Tally) -> Reading:
        present = window[feature][:-1]
        value = psi(reference[feature][:-1], present) if present.sum() else float("nan")
        return Reading(value=value, count=float(present.sum()))

    return read


def _js(feature: str) -> Callable[[Tally, Tally], Reading]:
    def read(window: Tally, reference: Tally) -> Reading:
        return Reading(value=jensen_shannon(reference[feature], window[feature]), count=float(window[feature].sum()))

    return read


def _nulls(feature: str) -> Callable[[Tally, Tally], Reading]:
    def read(window: Tally, reference: Tally) -> Reading:
        counts: Floats = window[feature]
        share = float(counts[-1] / counts.sum()) if counts.sum() else float("nan")
        return Reading(value=share, count=float(counts.sum()))

    return read


def _purchases(window: Tally, reference: Tally) -> Reading:
    """Strong events (purchase, cart, wishlist, rating) have their quantities counted, so they are as many."""
    strong, events = float(window["quantity"].sum()), _sum(window, "events")
    return Reading(value=strong / events if events else float("nan"), count=events)


def _sum(tally: Tally, name: str) -> float:
    return float(np.sum(tally[name]))


# Two lines a measure: a table to read down.
# fmt: off
MEASURES: tuple[Measure, ...] = (
    Measure(name="sessions", family="events", help="Sessions of the window.",
            scale="ratio", least=0.1, bound=4.0, read=_ratio("sessions")),
    Measure(name="session_size", family="events", help="Mean logarithm of a session's events.",
            scale="plain", least=0.04, bound=1.5, read=_mean("session_log_events", "sessions")),
    Measure(name="event_mix", family="events", help="Kinds of events, Jensen-Shannon.",
            scale="distance", least=0.03, bound=0.4, read=_js("event_type")),
    Measure(name="wanting_share", family="events", help="Share of events that state a want: cart, purchase, rating.",
            scale="share", least=0.02, bound=0.4, read=_purchases),
    Measure(name="anonymous_share", family="events", help="Share of sessions without a user.",
            scale="share", least=0.02, bound=0.4, read=_share("named_sessions", "sessions", of_rest=True)),
    Measure(name="hours", family="events", help="Hours of the day, Jensen-Shannon.",
            scale="distance", least=0.04, bound=0.5, read=_js("hour")),
    Measure(name="price_psi", family="features", help="Prices, PSI over the reference's deciles.",
            scale="divergence", least=0.1, bound=0.5, read=_psi("price")),
    Measure(name="price_level", family="features", help="Mean logarithm of price over the bundle's price of the item.",
            scale="plain", least=0.06, bound=0.7, read=_mean("log_price_ratio", "priced")),
    Measure(name="quantity_psi", family="features", help="Quantities of wanted items, PSI.",
            scale="divergence", least=0.1, bound=0.5, read=_psi("quantity")),
    Measure(name="session_psi", family="features", help="Events a session, PSI.",
            scale="divergence", least=0.1, bound=0.5, read=_psi("session_events")),
    Measure(name="depth_psi", family="features", help="Length of the history of those who come, PSI.",
            scale="divergence", least=0.1, bound=1.5, read=_psi("history_depth")),
    Measure(name="category_mix", family="features", help="Categories of events, Jensen-Shannon.",
            scale="distance", least=0.04, bound=0.4, read=_js("category")),
    Measure(name="price_nulls", family="features", help="Share of events without a price.",
            scale="share", least=0.02, bound=0.3, read=_nulls("price")),
    Measure(name="quantity_nulls", family="features", help="Share of wanted items without a quantity.",
            scale="share", least=0.02, bound=0.3, read=_nulls("quantity")),
    Measure(name="new_user_share", family="features", help="Share of events of users whom training did not know.",
            scale="share", least=0.03, bound=0.7, read=_share("unknown_users", "named")),
    Measure(name="new_item_share", family="catalogue", help="Share of events on items that the bundle does not know.",
            scale="share", least=0.04, bound=0.4, read=_share("unknown_items", "events")),
    Measure(name="popularity_psi", family="catalogue", help="Deciles of the items' popularity in training, PSI.",
            scale="divergence", least=0.1, bound=3.0, read=_psi("popularity")),
    Measure(name="popularity_level", family="catalogue", help="Mean share of items less popular than those taken.",
            scale="plain", least=0.015, bound=0.25, in_sample=True, read=_mean("popularity_sum", "known_items")),
    Measure(name="edge_share", family="graph", help="Share of steps inside sessions that follow an edge of the graph.",
            scale="share", least=0.02, bound=0.5, in_sample=True, read=_share("steps_on_edges", "steps")),
    Measure(name="taste_match", family="features", help="Mean share of an event's category in its user's taste.",
            scale="plain", least=0.012, bound=0.5, in_sample=True, read=_mean("taste_sum", "tasted")),
    Measure(name="repeat_share", family="features", help="Share of events on what the user had taken before.",
            scale="share", least=0.03, bound=0.5, in_sample=True, read=_share("repeats", "tasted")),
    # Of the run: read by their names in holdings.py.
    Measure(name="catalogue_churn", family="catalogue", help="Items that only catalogue or bundle has, of all items.",
            scale="share", least=0.02, bound=0.4),
    Measure(name="user_statistics_psi", family="features", help="Users' statistics now and at the cutoff: largest PSI.",
            scale="divergence", least=0.1, bound=0.5),
    Measure(name="edge_churn", family="graph", help="Behaviour edges that only one of newest and live graph has.",
            scale="share", least=0.05, bound=0.8),
    Measure(name="degree_psi", family="graph", help="Items' degrees in the newest graph and the live one's, PSI.",
            scale="divergence", least=0.1, bound=0.5),
    Measure(name="hub_share", family="graph", help="Share of edges that the busiest hundredth of items sends.",
            scale="share", least=0.03, bound=0.25),
    Measure(name="neighbour_overlap", family="vectors", help="Shared nearest 10 items, live bundle and the one before.",
            scale="share", least=0.1, bound=0.8),
    Measure(name="norm_psi", family="vectors", help="Norms of item vectors, live bundle and the one before, PSI.",
            scale="divergence", least=0.1, bound=1.0),
    Measure(name="popularity_lift", family="lists", help="Popularity of listed items less that of users' own.",
            scale="plain", least=0.02, bound=0.25),
    Measure(name="list_coverage", family="lists", help="Distinct items in the sampled lists, of all their places.",
            scale="share", least=0.05, bound=0.4),
    Measure(name="category_calibration", family="lists", help="Categories of a list and of its user, Jensen-Shannon.",
            scale="distance", least=0.05, bound=0.95),
    Measure(name="fallback_share", family="lists", help="Share of those who came last whom the online store lacks.",
            scale="share", least=0.05, bound=0.5),
    Measure(name="feature_age_days", family="feature store", help="Median age of online features, in days.",
            scale="plain", least=0.5, bound=7.0),
    Measure(name="serving_skew", family="feature store", help="Share of users told otherwise online than offline.",
            scale="distance", least=0.02, bound=0.05),
)
# fmt: on
WINDOW_MEASURES = tuple(measure for measure in MEASURES if measure.of == "window")
RUN_MEASURES = tuple(measure for measure in MEASURES if measure.of == "run")
