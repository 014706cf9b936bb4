"""What moves by itself in the world: seasons of the year, trends, tastes, new items; and drifts of what is not counted
in events."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from components.simulate.behaviour import seasonal_rate
from components.simulate.settings import Drift, WorldSettings
from components.simulate.world import World

SMALL = WorldSettings(users=300, items=200, days=60, seed=3)


def lived(settings: WorldSettings, days: int) -> World:
    world = World(settings)
    for _ in range(days):
        for _batch in world.live_day():
            pass
    return world


def test_a_year_has_a_busy_december_and_a_quiet_summer() -> None:
    year = WorldSettings(start=date(2023, 1, 1), days=365)
    # Four whole weeks each, so that weekdays weigh nothing.
    december, july = (np.mean([seasonal_rate(year, day) for day in range(first, first + 28)]) for first in (334, 181))
    assert december == pytest.approx(1.20, abs=0.03)
    assert july == pytest.approx(0.94, abs=0.03)


def test_topics_have_their_own_season_and_it_comes_back_a_year_later() -> None:
    market = World(SMALL.model_copy(update={"days": 400})).market
    season = np.array([market.open_day(day).season for day in range(366)])
    assert np.ptp(season, axis=0).max() > 0.8
    assert season[0] == pytest.approx(season[365], abs=0.02)
    assert len(set(season.argmax(axis=0).tolist())) > season.shape[1] / 2


def test_bestsellers_change_with_time() -> None:
    market = World(SMALL).market
    top = [set(market.open_day(day).bestsellers[:40].tolist()) for day in range(60)]
    soon, later = len(top[0] & top[1]), len(top[0] & top[59])
    assert soon >= 30
    assert later <= soon - 5


def test_people_change_about_as_many_tastes_as_the_setting_says() -> None:
    settings = SMALL.model_copy(update={"taste_change_per_day": 0.02, "users": 2000})
    world = World(settings)
    before = world.population.tastes.copy()
    for _ in range(20):
        for _batch in world.live_day():
            pass
    changed = (world.population.tastes != before).any(axis=1).mean()
    # 1 - 0.98^20 = 0.33 of them moved; some to a taste that they had in that place.
    assert 0.25 < changed < 0.34


def test_new_items_come_all_the_time_and_at_once_where_there_are_many() -> None:
    world = World(WorldSettings(users=10, items=4000, days=60))
    days = np.unique(world.catalog.first_day)
    assert days.tolist() == list(range(60))


def test_a_drift_of_tastes_gives_the_chosen_share_of_people_others() -> None:
    still = SMALL.model_copy(update={"taste_change_per_day": 0.0, "users": 2000})
    drifted = still.model_copy(update={"drifts": (Drift(kind="taste", day=1, size=0.3),)})
    worlds = [lived(settings, 2) for settings in (still, drifted)]
    changed = (worlds[0].population.tastes != worlds[1].population.tastes).any(axis=1).mean()
    assert changed == pytest.approx(0.3, abs=0.03)


def test_a_drift_of_popularity_moves_the_chosen_share_of_items() -> None:
    drifted = SMALL.model_copy(update={"items": 2000, "drifts": (Drift(kind="popularity", day=0, size=0.5),)})
    worlds = [World(SMALL.model_copy(update={"items": 2000})), World(drifted)]
    orders = [world.market.open_day(0).bestsellers.tolist() for world in worlds]
    moved = np.mean([first != second for first, second in zip(*orders, strict=True)])
    assert moved > 0.4
    assert set(orders[0]) == set(orders[1])


def test_a_drift_to_a_category_adds_its_size_to_the_views_of_it() -> None:
    def share(settings: WorldSettings) -> float:
        world = World(settings)
        wanted = world.catalog.category_names.index(world.market.favoured_category)
        views = np.concatenate([batch.item[batch.event_type == 0] for _ in range(5) for batch in world.live_day()])
        return float((world.catalog.category[views] == wanted).mean())

    plain = SMALL.model_copy(update={"users": 1000, "repeat_share": 0.0, "social_share": 0.0})
    before = share(plain)
    after = share(plain.model_copy(update={"drifts": (Drift(kind="category", day=0, size=0.4),)}))
    assert after == pytest.approx(before + (1 - before) * 0.4, abs=0.02)
