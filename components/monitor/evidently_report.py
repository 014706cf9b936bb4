"""evidently.html: Evidently's data-drift report of the newest week beside the last training weeks, for people.

It judges nothing: alarms come of our own measures. The file holds its scripts and loads nothing; Evidently sends
nothing where DO_NOT_TRACK is set, which every entry point does (components/core/libraries.py) and this module asks for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import MissingExtraError
from components.core.libraries import QUIET
from components.monitor.lens import Lens, positions

# Of each side; its report grows no better with more.
ROWS = 2_000
SHOWN_CATEGORIES = 15
NUMERICAL = ("price", "quantity", "hour", "popularity")
CATEGORICAL = ("event_type", "weekday", "category")


def write_evidently(
    path: Path, *, reference: Sequence[pa.Table], current: Sequence[pa.Table], lens: Lens, category_of: pa.Array
) -> None:
    """Tables of schema EVENTS; no user, item or session goes into the report."""
    os.environ.update(QUIET)  # before the import: it reads them then
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset
    except ImportError as error:
        raise MissingExtraError(package="evidently", extra="train") from error

    before, now = (_frame(tables, lens, category_of) for tables in (reference, current))
    kept = [name for name in (*NUMERICAL, *CATEGORICAL) if before[name].notna().any() and now[name].notna().any()]
    common = before["category"].value_counts().index[:SHOWN_CATEGORIES]
    for frame in (before, now):
        frame["category"] = frame["category"].where(frame["category"].isin(common), "other")
    definition = DataDefinition(
        numerical_columns=[name for name in NUMERICAL if name in kept],
        categorical_columns=[name for name in CATEGORICAL if name in kept],
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        report = Report([DataDriftPreset(columns=kept, num_method="psi", cat_method="jensenshannon")])
        result = report.run(
            Dataset.from_pandas(now[kept], data_definition=definition),
            Dataset.from_pandas(before[kept], data_definition=definition),
        )
        result.save_html(str(path))


def _frame(tables: Sequence[pa.Table], lens: Lens, category_of: pa.Array) -> pd.DataFrame:
    """Rows spread over all of the tables."""
    table = pa.concat_tables(tables)
    step = max(1, -(-table.num_rows // ROWS))
    some = table.take(pa.array(np.arange(0, table.num_rows, step)))
    item = positions(some["item_id"], lens.item_ids)
    known = pa.array(item, mask=item < 0)
    moment = some["timestamp"]
    return pd.DataFrame(
        {
            "price": some["price"].to_pandas(),
            "quantity": some["quantity"].to_pandas(),
            "hour": pc.hour(moment).to_pandas(),
            "popularity": np.where(item < 0, np.nan, lens.popularity_I[item]),
            "event_type": some["event_type"].to_pandas(),
            "weekday": pc.strftime(moment, format="%a").to_pandas(),
            "category": pc.fill_null(category_of.take(known), "unknown").to_pandas(),
        }
    )
