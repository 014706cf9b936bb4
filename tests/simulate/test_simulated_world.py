"""The simulated shop's files: contract, determinism, habits, and whether its tastes can be learnt."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from components.core.errors import SettingsError
from components.core.schemas import EVENTS
from components.simulate.key import Key
from components.simulate.settings import WorldSettings, parse_drifts, world_settings
from components.simulate.writer import simulate

WORLD = WorldSettings(users=400, items=300, days=120, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    simulate(WORLD, out)
    return out


@pytest.fixture(scope="module")
def events(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / "events").iterdir()))


def query(sql: str, **tables: pa.Table) -> list[tuple]:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql).fetchall()


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_day_file_has_exactly_the_contract_columns_and_only_its_own_day(folder: Path) -> None:
    files = sorted((folder / "events").iterdir())
    assert [path.name for path in files[:2]] == ["day=2024-01-01.parquet", "day=2024-01-02.parquet"]
    assert len(files) == 120
    for path in files:
        table = pq.read_table(path, partitioning=None)
        assert table.schema.equals(EVENTS)
        days = {str(moment.date()) for moment in table["timestamp"].to_pylist()}
        assert days == {path.stem.removeprefix("day=")}


def test_equal_seeds_give_equal_bytes_and_another_seed_another_log(folder: Path, tmp_path: Path) -> None:
    small = WORLD.model_copy(update={"days": 5})
    simulate(small, tmp_path / "first")
    simulate(small, tmp_path / "second")
    simulate(small.model_copy(update={"seed": 8}), tmp_path / "other")
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    first_day = "events/day=2024-01-01.parquet"
    assert hashes(tmp_path / "first")[first_day] != hashes(tmp_path / "other")[first_day]


def test_the_key_counts_what_the_files_hold(folder: Path, events: pa.Table) -> None:
    key = Key.model_validate_json((folder / "key.json").read_bytes())
    assert key.rows == key.clean_rows == events.num_rows
    assert sum(file.rows for file in key.files) == events.num_rows
    counts = dict(query("select event_type, count(*) from events group by 1", events=events))
    assert counts == key.event_types
    assert key.planted_rows == {}
    assert key.as_of == datetime(2024, 4, 30, tzinfo=UTC)
    sessions = "select count(distinct session_id), count(distinct session_id) filter (user_id is null) from events"
    assert query(sessions, events=events) == [(key.sessions, key.anonymous_sessions)]


def test_event_ids_are_unique_and_sessions_belong_to_one_user_and_day(events: pa.Table) -> None:
    assert query("select count(*) - count(distinct event_id) from events", events=events) == [(0,)]
    mixed = """
        select count(*) from (
            select session_id from events group by session_id
            having count(distinct coalesce(user_id, '')) > 1 or count(distinct timestamp::date) > 1
        )
    """
    assert query(mixed, events=events) == [(0,)]


def test_a_purchase_follows_its_cart_event_and_that_follows_a_view(events: pa.Table) -> None:
    steps = """
        select count(*) as pairs, count(*) filter (bought > carted and carted > viewed) as ordered
        from (
            select min(timestamp) filter (event_type = 'view') as viewed,
                   min(timestamp) filter (event_type = 'cart') as carted,
                   min(timestamp) filter (event_type = 'purchase') as bought
            from events group by session_id, item_id
        ) where bought is not null
    """
    [(pairs, ordered)] = query(steps, events=events)
    assert pairs > 10_000
    assert ordered == pairs


def test_no_clean_row_breaks_a_rule_of_the_contract(folder: Path, events: pa.Table) -> None:
    catalog = pq.read_table(folder / "catalog.parquet")
    bad = """
        select count(*) from events left join catalog using (item_id)
        where catalog.item_id is null or not events.price > 0 or (event_type <> 'view' and not quantity >= 1)
           or quantity > 50 or (user_id is null and session_id is null)
    """
    assert query(bad, events=events, catalog=catalog) == [(0,)]
    assert query("select count(*) - count(distinct item_id) from catalog", catalog=catalog) == [(0,)]


def test_titles_are_words_of_the_items_own_brand_and_category(folder: Path) -> None:
    catalog = pq.read_table(folder / "catalog.parquet").to_pylist()
    assert all(row["title"].startswith(row["brand"]) and row["category"] in row["title"] for row in catalog)
    sizes = sorted(np.unique([row["category"] for row in catalog], return_counts=True)[1])
    assert sizes[-1] >= 5 * sizes[0]


def test_new_items_appear_in_the_course_of_the_log_and_are_not_seen_before(folder: Path, events: pa.Table) -> None:
    catalog = pq.read_table(folder / "catalog.parquet")
    early = """
        select count(*) from events join catalog using (item_id)
        where timestamp::date < available_from::date
    """
    assert query(early, events=events, catalog=catalog) == [(0,)]
    new = "select count(*), count(distinct available_from) from catalog where available_from > '2024-01-01'"
    [(items, days)] = query(new, catalog=catalog)
    assert 50 < items < 100
    assert days > 30


def test_weekends_are_busier_and_people_buy_again(events: pa.Table) -> None:
    by_weekday = dict(query("select isodow(timestamp), count(*) from events group by 1", events=events))
    assert min(by_weekday[6], by_weekday[7]) > max(by_weekday[3], by_weekday[4])
    repeats = """
        select sum(sessions - 1) / sum(sessions) from (
            select count(distinct session_id) as sessions from events
            where event_type = 'purchase' and user_id is not null group by user_id, item_id
        )
    """
    [(share,)] = query(repeats, events=events)
    assert 0.3 < share < 0.55


def test_tastes_can_be_learnt_item_knn_beats_popularity_on_items_new_to_the_user(events: pa.Table) -> None:
    cutoff = (WORLD.as_of - timedelta(days=28)).strftime("%Y-%m-%d")
    sql = f"""
        select distinct user_id, item_id, timestamp >= '{cutoff}'::timestamptz as is_later from events
        where event_type = 'purchase' and user_id is not null order by all
    """
    rows = query(sql, events=events)
    users = {user: row for row, user in enumerate(sorted({row[0] for row in rows}))}
    items = {item: row for row, item in enumerate(sorted({row[1] for row in rows}))}
    matrix = {}
    for is_later in (False, True):
        pairs = [(users[user], items[item]) for user, item, later in rows if later == is_later]
        row, column = zip(*pairs, strict=True)
        matrix[is_later] = sparse.csr_matrix((np.ones(len(pairs)), (row, column)), (len(users), len(items))).toarray()
    known, later = matrix[False], matrix[True]
    new = (later > 0) & (known == 0)
    judged = new.any(axis=1) & known.any(axis=1)
    together = known.T @ known
    np.fill_diagonal(together, 0)
    popularity = known.sum(axis=0)
    similarity = together / (np.sqrt(np.outer(popularity, popularity)) + 10)

    def recall(score: np.ndarray) -> float:
        top = np.argsort(-np.where(known > 0, -np.inf, score), axis=1, kind="stable")[:, :20]
        hits = np.take_along_axis(new, top, axis=1).sum(axis=1)
        return float((hits[judged] / new[judged].sum(axis=1)).mean())

    assert judged.sum() > 200
    by_taste, by_popularity = recall(known @ similarity), recall(np.broadcast_to(popularity, known.shape))
    assert by_taste > 1.25 * by_popularity
    assert by_popularity > 2 * recall(np.random.default_rng(0).random(known.shape))


def test_friends_share_tastes_more_than_strangers(folder: Path) -> None:
    users = {
        row["user_id"]: set(row["tastes"]) for row in pq.read_table(folder / "truth" / "users.parquet").to_pylist()
    }
    ties = pq.read_table(folder / "truth" / "ties.parquet").to_pylist()
    among_friends = np.mean([len(users[tie["user_id"]] & users[tie["friend_id"]]) for tie in ties])
    shuffled = np.random.default_rng(1).permutation(list(users))
    among_strangers = np.mean([len(users[a] & users[b]) for a, b in zip(users, shuffled, strict=True)])
    assert among_friends > 1.15 * among_strangers


def test_a_second_call_leaves_no_day_of_the_first(tmp_path: Path) -> None:
    simulate(WorldSettings(users=20, items=30, days=3), tmp_path)
    simulate(WorldSettings(users=20, items=30, days=2), tmp_path)
    assert len(list((tmp_path / "events").iterdir())) == 2


def test_a_day_without_visits_still_has_its_file(tmp_path: Path) -> None:
    simulate(WorldSettings(users=2, items=10, days=4, sessions_per_user_day=0.01), tmp_path)
    tables = [pq.read_table(path, partitioning=None) for path in sorted((tmp_path / "events").iterdir())]
    assert len(tables) == 4
    assert min(table.num_rows for table in tables) == 0
    assert all(table.schema.equals(EVENTS) for table in tables)


def test_the_command_writes_the_files_and_says_what_to_run_next(tmp_path: Path) -> None:
    out = tmp_path / "log"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "components.simulate",
            "--users",
            "30",
            "--items",
            "40",
            "--days",
            "3",
            "--out",
            str(out),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads((out / "key.json").read_text())["settings"]["users"] == 30
    assert f"basketweave run --events '{out}/events/*.parquet' --catalog {out}/catalog.parquet" in done.stdout


def test_the_command_refuses_an_unknown_defect_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "components.simulate", "--defect", "duplicat=0.1", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "'duplicat=0.1' is not KIND=RATE. Kinds: duplicate, future" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_errors_name_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"^'users' is 1: Input should be greater than or equal to 2"):
        world_settings(users=1)
    with pytest.raises(SettingsError, match="share from 0 to 1"):
        world_settings(drifts=parse_drifts(["taste@3=1.5"]))
