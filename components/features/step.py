"""Features step: clean events in, features as they were known at each moment of the split out, by way of Feast.

The tables are computed in DuckDB, at the moments whose past has changed (kept_moments.py), registered in Feast as its
offline files, and joined back through Feast for every user and moment: what training reads is what the feature store
answers. The last moment is materialized online.
"""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import ContractError
from components.core.split import TimeSplit
from components.core.step import Step, StepContext, StepReport
from components.features.kept_moments import tables_at
from feature_repo.layout import FeastHome

logger = logging.getLogger(__name__)


def run(context: StepContext) -> StepReport:
    """Writes user_history, user_statistics and item_statistics (schemas in components/core/schemas.py)."""
    split = TimeSplit.of(context.moment, context.settings.split)
    computed, moments_computed = tables_at(context, split)
    users = computed["user_history"].select(["user_id", "event_timestamp"])
    items = computed["item_statistics"].select(["item_id", "event_timestamp"])
    present = users.filter(pc.equal(users["event_timestamp"], pa.scalar(split.as_of, users["event_timestamp"].type)))
    if not present.num_rows:
        raise ContractError(
            f"No event before {split.as_of:%Y-%m-%d %H:%M} names a user. Check that the log has user ids, and --as-of."
        )

    # Feast takes seconds to import, which a run that is reused need not spend.
    from feature_repo.store import FeatureRepo

    repo = FeatureRepo(FeastHome.of(context.settings))
    with repo.writing():
        repo.write_offline(computed)
        repo.apply()
        joined = {**repo.join("user", users), **repo.join("item", items)}
        users_online = repo.materialize(split.as_of, present["user_id"].to_pylist())
    for name, table in joined.items():
        context.output.write_table(f"{name}.parquet", table)

    newer = present.num_rows - users_online
    if newer:
        logger.info("%d users' online features are newer than this run and stay.", newer)
    return StepReport(
        summary=f"{present.num_rows:,} users at {len(split.snapshot_times)} moments, {users_online:,} online"
        + (f" ({newer:,} newer ones stay)" if newer else ""),
        rows=users.num_rows,
        statistics={
            "users": present.num_rows,
            "user_rows": users.num_rows,
            "item_rows": items.num_rows,
            "users_online": users_online,
            "moments": [moment.isoformat() for moment in split.snapshot_times],
            # The others were kept: nothing that they depend on has changed.
            "moments_computed": [moment.isoformat() for moment in moments_computed],
        },
    )


def stands(context: StepContext) -> bool:
    """Whether the online store has every user at this run's moment or a later one."""
    reached = FeastHome.of(context.settings).online_moment()
    return reached is not None and reached >= context.moment


STEP = Step(
    name="features",
    kind="features",
    inputs=("clean",),
    sections=("features", "split"),
    rooms=("components.features", "feature_repo"),
    run=run,
    stands=stands,
)
