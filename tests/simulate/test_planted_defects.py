"""What is planted is what the key says, and nothing else changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.simulate.defects import OTHER_NAMES
from components.simulate.key import Key
from components.simulate.settings import ROW_DEFECTS, DefectSettings, Drift, WorldSettings
from components.simulate.writer import simulate

CLEAN = WorldSettings(users=300, items=200, days=20, seed=3)
RATE = 0.01
DEFECTS = DefectSettings(**dict.fromkeys(ROW_DEFECTS, RATE), late_day=0.3, renamed_column=0.3)


def read_log(out: Path) -> pa.Table:
    """All files together, columns called by the contract's names again."""
    tables = []
    for path in sorted((out / "events").iterdir()):
        table = pq.read_table(path, partitioning=None)
        known = {other: name for name, other in OTHER_NAMES.items()}
        tables.append(table.rename_columns([known.get(name, name) for name in table.column_names]))
    return pa.concat_tables(tables, promote_options="permissive")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("clean")
    simulate(CLEAN, out)
    return read_log(out)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dirty")
    simulate(CLEAN.model_copy(update={"defects": DEFECTS}), out)
    return out


def found_by_rule(log: pa.Table, clean: pa.Table) -> dict[str, set[str]]:
    """Event ids by kind of defect, found by looking at the rows alone; `clean` gives the catalogue's items."""
    rules = {
        "null_item": "item_id is null",
        "null_event_type": "event_type is null",
        "null_timestamp": "timestamp is null",
        "null_identity": "user_id is null and session_id is null",
        "future": f"timestamp >= '{CLEAN.as_of}'::timestamptz + interval 1 day",
        "stale": f"timestamp < '{CLEAN.start}'::timestamptz - interval 1000 day",
        "unknown_item": "item_id is not null and item_id not in (select item_id from clean)",
        "unknown_event_type": "event_type not in ('view', 'cart', 'purchase')",
        "negative_price": "price < 0",
        "negative_quantity": "quantity <= 0",
        "outlier_price": "price > 100000",
        "outlier_quantity": "quantity > 1000",
        "duplicate": "event_id in (select event_id from log group by event_id having count(*) = 2)",
    }
    with duckdb.connect() as connection:
        connection.register("log", log)
        connection.register("clean", clean)
        return {
            kind: {row[0] for row in connection.sql(f"select event_id from log where {rule}").fetchall()}
            for kind, rule in rules.items()
        }


def test_the_key_lists_exactly_the_damaged_rows_of_every_kind(dirty: Path, clean: pa.Table) -> None:
    planted: dict[str, set[str]] = {kind: set() for kind in ROW_DEFECTS}
    for row in pq.read_table(dirty / "planted.parquet").to_pylist():
        planted[row["kind"]].add(row["event_id"])
    assert found_by_rule(read_log(dirty), clean) == planted
    key = Key.model_validate_json((dirty / "key.json").read_bytes())
    assert {kind: len(ids) for kind, ids in planted.items()} == key.planted_rows


def test_rates_are_met(dirty: Path, clean: pa.Table) -> None:
    key = Key.model_validate_json((dirty / "key.json").read_bytes())
    has_quantity = clean.num_rows - clean["quantity"].null_count
    for kind, rows in key.planted_rows.items():
        expected = RATE * (has_quantity if kind.endswith("_quantity") else clean.num_rows)
        assert abs(rows - expected) < 5 * expected**0.5, kind


def test_rows_add_up_and_clean_rows_are_untouched(dirty: Path, clean: pa.Table) -> None:
    key = Key.model_validate_json((dirty / "key.json").read_bytes())
    log = read_log(dirty)
    assert key.rows == log.num_rows == clean.num_rows + key.planted_rows["duplicate"]
    damaged = sum(rows for kind, rows in key.planted_rows.items() if kind != "duplicate")
    assert key.clean_rows == clean.num_rows - damaged

    planted = pq.read_table(dirty / "planted.parquet")
    broken_ids = planted.filter(pc.field("kind") != "duplicate")["event_id"]
    kept = log.filter(pc.invert(pc.is_in(log["event_id"], value_set=broken_ids)))
    with duckdb.connect() as connection:
        connection.register("kept", kept)
        connection.register("clean", clean)
        distinct = connection.sql("select count(*) from (select distinct * from kept)").fetchall()
        changed = connection.sql("select count(*) from (select * from kept except select * from clean)").fetchall()
    assert distinct == [(key.clean_rows,)]
    assert changed == [(0,)]


def test_late_rows_arrive_in_a_later_file_with_their_own_time(dirty: Path) -> None:
    key = Key.model_validate_json((dirty / "key.json").read_bytes())
    assert key.late
    for late in key.late:
        assert timedelta() < late.arrived - late.day <= timedelta(days=DEFECTS.late_by_days)
        table = pq.read_table(dirty / f"events/day={late.arrived}.parquet", partitioning=None)
        [time_column] = {"timestamp", "event_time"} & set(table.column_names)
        days = pc.cast(table[time_column], pa.date32())
        rows = pc.sum(pc.equal(days, pa.scalar(late.day, pa.date32()))).as_py()
        assert rows == late.rows > 0


def test_renamed_columns_are_those_of_the_key(dirty: Path) -> None:
    key = Key.model_validate_json((dirty / "key.json").read_bytes())
    assert any(file.renamed for file in key.files)
    for file in key.files:
        names = set(pq.read_schema(dirty / file.path).names)
        for name, other in file.renamed.items():
            assert other in names
            assert name not in names
        assert len(names) == 8


def simulated(tmp_path: Path, *drifts: Drift, days: int = 20) -> pa.Table:
    simulate(CLEAN.model_copy(update={"drifts": drifts, "days": days}), tmp_path)
    return read_log(tmp_path)


@pytest.mark.parametrize("kind", ["taste", "price", "popularity", "volume", "conversion", "category", "anonymous"])
def test_a_drift_changes_no_event_before_its_day_and_many_after(kind: str, clean: pa.Table, tmp_path: Path) -> None:
    drifted = simulated(tmp_path, Drift(kind=kind, day=10, size=0.5))
    with duckdb.connect() as connection:
        connection.register("clean", clean)
        connection.register("drifted", drifted)

        def rows(of: str, when: str) -> int:
            sides = [f"select * from {name} where timestamp {when} '{CLEAN.day(10)}'" for name in of.split()]
            return connection.sql(f"select count(*) from ({' intersect '.join(sides)})").fetchall()[0][0]

        assert rows("clean drifted", "<") == rows("clean", "<") == rows("drifted", "<")
        assert rows("clean drifted", ">=") < 0.98 * rows("clean", ">=")


def ratio(sql: str, clean: pa.Table, drifted: pa.Table) -> float:
    with duckdb.connect() as connection:
        connection.register("clean", clean)
        connection.register("drifted", drifted)
        figures = [
            connection.sql(f"select {sql} from {name} where timestamp >= '{CLEAN.day(10)}'").fetchall()[0][0]
            for name in ("drifted", "clean")
        ]
    return float(figures[0]) / float(figures[1])


def test_drift_has_the_size_that_was_asked_for(clean: pa.Table, tmp_path: Path) -> None:
    def after(kind: str, size: float) -> pa.Table:
        return simulated(tmp_path / kind, Drift(kind=kind, day=10, size=size))

    assert ratio("avg(price)", clean, after("price", 0.3)) == pytest.approx(1.3, rel=0.01)
    assert ratio("count(distinct session_id)", clean, after("volume", 0.5)) == pytest.approx(1.5, rel=0.1)
    bought = "count(*) filter (event_type = 'purchase') / count(*) filter (event_type = 'view')"
    assert ratio(bought, clean, after("conversion", -0.4)) == pytest.approx(0.6, rel=0.1)
    assert ratio("avg((user_id is null)::int)", clean, after("anonymous", 1.0)) == pytest.approx(2.0, rel=0.25)
