"""Pairs of items that met in one session, counted for any cutoff.

Three kinds: bought together, viewed together, and (directed) viewed and then bought. A pair is two events, named by
their positions in the log, and belongs to the day of the later one; day_pairs.py keeps a day's pairs. All pairs of the
log are sorted once; the counts as of a cutoff are then a sum over those before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int32]
Moments = npt.NDArray[np.float64]

# A session with more distinct items is a wholesaler's or a robot's: its pairs say little and cost squares. Counted as
# far as the session had come by the end of a pair's day.
MAX_SESSION_ITEMS = 200

# A log has many times more pairs than events. So many at a time: memory that is touched for the first time costs more
# than what is done in it.
CHUNK = 1 << 20

BOUGHT, VIEWED, VIEWED_THEN_BOUGHT = "bought", "viewed", "viewed_then_bought"
PAIR_KINDS = (BOUGHT, VIEWED, VIEWED_THEN_BOUGHT)


@dataclass(frozen=True, kw_only=True)
class SessionEvents:
    """The log's events in order of time; codes as in ItemWorld."""

    item_E: Ints
    session_E: Ints  # -1: none
    actor_E: Ints  # who acted: the user, or an anonymous session
    moment_E: Ints  # microseconds, ascending
    day_E: Ints  # index of the event's day, ascending
    is_target_E: npt.NDArray[np.bool_]
    is_view_E: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lines:
    """First event of each session and item among some events: one row each."""

    position_L: Ints  # ascending
    by_session_L: Ints  # the positions again, sorted by session and then position
    first_L: Ints  # where in `by_session_L` the line's session begins
    rank_L: Ints  # how many lines of its session came before
    size_L: Ints  # how many lines its session has by the end of the line's day

    @classmethod
    def of(cls, events: SessionEvents, chosen_E: npt.NDArray[np.bool_], *, num_items: int) -> Lines:
        at = np.flatnonzero(chosen_E & (events.session_E >= 0))
        # The item's first event in the session: what comes after a cutoff then moves no count before it.
        _, first = np.unique(events.session_E[at] * num_items + events.item_E[at], return_index=True)
        position = at[np.sort(first)]
        order = np.argsort(events.session_E[position], kind="stable")
        session = events.session_E[position][order]
        start = np.searchsorted(session, session)
        session_day = session * (int(events.day_E.max(initial=0)) + 1) + events.day_E[position][order]
        size = np.searchsorted(session_day, session_day, side="right") - start
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return cls(position, position[order], start[place], place - start[place], size[place])


def expand(events: SessionEvents, *, num_items: int, is_wanted_day: npt.NDArray[np.bool_]) -> dict[str, Pairs]:
    """The pairs of the wanted days, by kind, in order of the later event."""
    lines = {
        BOUGHT: Lines.of(events, events.is_target_E, num_items=num_items),
        VIEWED: Lines.of(events, events.is_view_E, num_items=num_items),
    }
    found = {}
    for kind, own in lines.items():
        wanted = is_wanted_day[events.day_E[own.position_L]] & (own.size_L <= MAX_SESSION_ITEMS)
        found[kind] = _with_earlier(
            own.position_L[wanted], own.by_session_L, first=own.first_L[wanted], count=own.rank_L[wanted]
        )
    found[VIEWED_THEN_BOUGHT] = _viewed_then_bought(events, lines[VIEWED], lines[BOUGHT], is_wanted_day)
    return found


@dataclass(frozen=True)
class Pairs:
    """Two events each; `later_P` ascends."""

    earlier_P: Positions
    later_P: Positions

    def __len__(self) -> int:
        return len(self.later_P)


def _with_earlier(position: Ints, by_session: Ints, *, first: Ints, count: Ints) -> Pairs:
    """Each position with the `count` lines of its session that begin at place `first`."""
    ends = np.cumsum(count)
    place = np.repeat((first - (ends - count)).astype(np.int32), count)
    place += np.arange(len(place), dtype=np.int32)
    return Pairs(
        by_session.astype(np.int32)[place],
        np.repeat(position.astype(np.int32), count),
    )


def _viewed_then_bought(
    events: SessionEvents, viewed: Lines, bought: Lines, is_wanted_day: npt.NDArray[np.bool_]
) -> Pairs:
    wanted = is_wanted_day[events.day_E[bought.position_L]] & (bought.size_L <= MAX_SESSION_ITEMS)
    buys = bought.position_L[wanted]
    # Moments by rank, so that session and moment fit into one integer.
    changes = np.zeros(len(events.moment_E), dtype=np.int64)
    changes[1:] = events.moment_E[1:] > events.moment_E[:-1]
    rank_E = np.cumsum(changes)
    width = int(rank_E[-1]) + 1 if len(rank_E) else 1
    views = viewed.by_session_L
    view_key = events.session_E[views] * width + rank_E[views]
    first = np.searchsorted(view_key, events.session_E[buys] * width)
    count = np.searchsorted(view_key, events.session_E[buys] * width + rank_E[buys]) - first
    count = np.where(count <= MAX_SESSION_ITEMS, count, 0)
    pairs = _with_earlier(buys, views, first=first, count=count)
    differ = events.item_E[pairs.earlier_P] != events.item_E[pairs.later_P]
    return Pairs(pairs.earlier_P[differ], pairs.later_P[differ])


@dataclass(frozen=True)
class SessionPairs:
    """One row a pair of items and session, sorted by pair and then time; pairs that miss the floor are left out."""

    group_P: Ints  # 0, 0, 1, 2, 2, … over the pairs of items
    moment_P: Moments  # days; when the later of the two came
    reached_G: Moments  # days; when the pair's floor of distinct actors was reached
    source_G: Ints  # items; of an undirected pair the lower one
    target_G: Ints

    @classmethod
    def of(
        cls, pairs: Pairs, events: SessionEvents, *, is_directed: bool, num_items: int, min_distinct_users: int
    ) -> SessionPairs:
        pair, later = _often_met(pairs, events, is_directed=is_directed, num_items=num_items, least=min_distinct_users)
        reached_P = _is_floor_reached(pair, events.actor_E[later], min_distinct_users)
        starts = _starts(pair)
        size_G = np.diff(np.append(starts, len(pair)))
        has_floor_G = np.logical_or.reduceat(reached_P, starts) if len(starts) else np.zeros(0, dtype=bool)
        moment_P = events.moment_E[later] / 86_400e6
        source_G, target_G = np.divmod(pair[starts[has_floor_G]], num_items)
        return cls(
            np.repeat(np.arange(int(has_floor_G.sum())), size_G[has_floor_G]),
            moment_P[np.repeat(has_floor_G, size_G)],
            moment_P[reached_P],
            source_G,
            target_G,
        )

    def counts(self, *, cutoff: float, half_life_days: float) -> tuple[Ints, Ints, Moments]:
        """As of `cutoff` (days): source, target, Σ decay of each pair that enough different actors had made by then."""
        decay_P = self.moment_P - cutoff
        decay_P /= half_life_days
        np.exp2(decay_P, out=decay_P)
        decay_P[self.moment_P >= cutoff] = 0
        weight_G: Moments = np.bincount(self.group_P, weights=decay_P, minlength=len(self.reached_G)).astype(np.float64)
        enough = np.flatnonzero(self.reached_G < cutoff)
        return self.source_G[enough], self.target_G[enough], weight_G[enough]


def _is_floor_reached(pair_P: Ints, actor_P: Ints, min_distinct_users: int) -> npt.NDArray[np.bool_]:
    """(P,) whether with this row the last actor came whom a pair needs; rows are in time within a pair."""
    is_start = np.zeros(len(pair_P), dtype=bool)
    is_start[_starts(pair_P)] = True
    if min_distinct_users == 1 or not len(pair_P):
        return is_start
    place = np.maximum.accumulate(np.where(is_start, np.arange(len(pair_P)), 0))
    is_new = actor_P != actor_P[place]
    if min_distinct_users > 2:
        group = np.cumsum(is_start)
        key = torch.from_numpy(group * (int(actor_P.max()) + 1) + actor_P)
        ordered, order = (part.numpy() for part in torch.sort(key, stable=True))
        is_new = np.zeros(len(pair_P), dtype=bool)
        is_new[order[_starts(ordered)]] = True
        came = np.cumsum(is_new)
        came -= (came - 1)[place]  # a pair's first row is always new
        return is_new & (came == min_distinct_users)
    found = np.flatnonzero(is_new)
    reached = np.zeros(len(pair_P), dtype=bool)
    reached[found[_starts(place[found])]] = True
    return reached


def _often_met(
    pairs: Pairs, events: SessionEvents, *, is_directed: bool, num_items: int, least: int
) -> tuple[Ints, Positions]:
    """Pair of items and later event, sorted by both, of the pairs that met at least so often.

    What met in too few sessions met in the hands of too few.
    """
    item_E = events.item_E.astype(np.int32)
    bits = int(pairs.later_P.max(initial=0)).bit_length()
    # Where pair and event fit into one integer, numpy sorts it in place in a quarter of the time.
    if num_items**2 << bits >= 1 << 63:
        bits = 0
    key_P = np.empty(len(pairs), dtype=np.int64)
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        one, two = item_E[pairs.earlier_P[part]], item_E[pairs.later_P[part]]
        key = np.multiply(one if is_directed else np.minimum(one, two), num_items, out=key_P[part], dtype=np.int64)
        key += two if is_directed else np.maximum(one, two)
        if bits:
            key <<= bits
            key |= pairs.later_P[part]
    if bits:
        key_P.sort()
        kept = key_P[_is_in_run(key_P, least, bits=bits)]
        return kept >> bits, (kept & ((1 << bits) - 1)).astype(np.int32)
    ordered, order = (part.numpy() for part in torch.sort(torch.from_numpy(key_P), stable=True))
    is_kept = _is_in_run(ordered, least, bits=0)
    return ordered[is_kept], pairs.later_P[order[is_kept]]


def _is_in_run(ordered: Ints, length: int, *, bits: int) -> npt.NDArray[np.bool_]:
    """Whether a value is one of at least `length` that are equal but for the lowest bits; `ordered` ascends."""
    is_in_run = np.zeros(len(ordered), dtype=bool)
    for start in range(0, len(ordered), CHUNK):
        high = ordered[start : start + CHUNK + length - 1] >> bits
        is_first = high[length - 1 :] == high[: max(len(high) - length + 1, 0)]
        for place in range(start, start + length):
            is_in_run[place : place + len(is_first)] |= is_first
    return is_in_run


def _starts(ordered: Ints) -> Ints:
    """Where runs of equal values begin."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
