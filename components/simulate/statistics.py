"""How unequal a log is: the figures by which a simulated log is held against a real one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import duckdb
import numpy as np


class Inequality(NamedTuple):
    """Of counts, such as purchases an item."""

    size: int
    """How many things were counted."""
    gini: float
    """0: all equal, 1: one has everything."""
    zipf_slope: float
    """Slope of log count over log rank, between the top thousandth and the top tenth."""
    top_tenth_share: float


def inequality(counts: np.ndarray) -> Inequality:
    ascending = np.sort(np.asarray(counts, dtype=np.float64))
    count = len(ascending)
    rank_weight = 2 * np.arange(1, count + 1) - count - 1
    descending = ascending[::-1]
    first, last = max(1, count // 1000), max(10, count // 10)
    ranks = np.arange(1, count + 1)[first:last]
    slope = np.polyfit(np.log(ranks), np.log(descending[first:last]), 1)[0]
    return Inequality(
        size=count,
        gini=float(rank_weight @ ascending / (count * ascending.sum())),
        zipf_slope=float(slope),
        top_tenth_share=float(descending[: max(1, count // 10)].sum() / ascending.sum()),
    )


def log_statistics(purchases: str) -> Mapping[str, Inequality | float]:
    """Statistics of a log's purchases.

    `purchases` is SQL for a relation with user_id, item_id and session_id, a row a purchase; rows without a user are
    left out where users count.
    """
    with duckdb.connect() as connection:

        def counts(column: str) -> np.ndarray:
            query = f"select count(*) as n from ({purchases}) where {column} is not null group by {column}"  # noqa: S608
            return np.asarray(connection.sql(query).fetchnumpy()["n"])

        repeats = f"""
            with pairs as (
                select count(distinct session_id) as sessions from ({purchases})
                where user_id is not null group by user_id, item_id
            )
            select sum(sessions - 1) / sum(sessions) from pairs
        """  # noqa: S608
        return {
            "purchases_per_item": inequality(counts("item_id")),
            "purchases_per_user": inequality(counts("user_id")),
            "purchases_per_session": inequality(counts("session_id")),
            "repeat_share": float(connection.sql(repeats).fetchall()[0][0]),
        }
