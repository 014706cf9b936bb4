"""A worker in a rollout, on real bundles: who is answered by whom, what is counted, what a broken challenger costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.core.artifact import ArtifactRef
from components.core.live import move_pointer
from components.core.observations import OBSERVATIONS, TRIES, read_observations
from components.core.presence import live_workers
from components.core.rollout import Rollout, arm_of, bar, end_rollout, write_rollout
from components.core.settings import Settings, load_settings
from components.core.store import Store
from serving.errors import RequestError
from serving.rollout import SHADOW_QUEUE
from serving.schemas import RecommendRequest
from serving.state import ServiceState
from serving.written import Written

MakeBundle = Callable[..., ArtifactRef]
NOW = datetime(2020, 3, 1, tzinfo=UTC)
USERS = [f"user-{n}" for n in range(200)]


@dataclass
class Shop:
    """A worker that serves champion 'a' while challenger 'b' is on its way."""

    settings: Settings
    state: ServiceState
    champion: ArtifactRef
    challenger: ArtifactRef
    rollout: Rollout | None = None
    broken: set[str] = field(default_factory=set)
    """Hashes of bundles that raise when they are asked."""

    @property
    def store(self) -> Store:
        return Store(self.settings.artifact_root)

    def stage(self, stage: str, share: float = 0.0, *, has_time: bool = True, **changes: Any) -> Rollout:
        """`has_time`: the worker's next look comes when what it needs is loaded."""
        self.rollout = Rollout(
            id="r1",
            challenger=self.challenger,
            champion=self.champion,
            stage=stage,  # type: ignore[arg-type]
            share=share,
            salt="5a17",
            started_at=NOW,
            stage_started_at=NOW,
            run_id="run-1",
        ).model_copy(update=changes)
        write_rollout(self.store, self.rollout)
        self.state.refresh() if has_time else self.state.look()
        return self.rollout

    def ask(self, user_id: str | None, *, k: int = 3, category: str | None = None) -> Written:
        def call(recommender: Any, degraded: Sequence[str]) -> Written:
            if recommender.bundle.sha256 in self.broken:
                raise RuntimeError("the challenger is broken")
            request = RecommendRequest(user_id=user_id, k=k, category=category)
            answer: Written = recommender.recommend(request, None, degraded=degraded)
            return answer

        return self.state.answer(user_id, call)

    def counts(self, step: str, arm: str) -> Any:
        assert self.state._follower.recorder is not None
        self.state._follower.recorder.flush(at_once=True)
        return read_observations(self.store, "r1").step(step).arm(arm)

    def of(self, arm: str) -> list[str]:
        assert self.rollout is not None
        return [user for user in USERS if arm_of(user, self.rollout) == arm]


@pytest.fixture
def shop(tmp_path: Path, make_bundle: MakeBundle) -> Shop:
    settings = load_settings(home=tmp_path)
    champion, challenger = make_bundle(settings, "a"), make_bundle(settings, "b")
    move_pointer(Store(settings.artifact_root), champion, previous=None, run_id="run-1")
    state = ServiceState(settings)
    state.refresh()
    return Shop(settings, state, champion, challenger)


def test_without_a_rollout_everybody_gets_the_champion_and_nothing_is_counted(shop: Shop) -> None:
    assert {shop.ask(user).bundle for user in USERS[:20]} == {shop.champion.sha256}
    assert not shop.store.exists(OBSERVATIONS)


def test_in_shadow_the_challenger_answers_unseen(shop: Shop) -> None:
    shop.stage("shadow")
    for user in USERS[:10]:
        assert shop.ask(user).bundle == shop.champion.sha256
        shop.state._shadow.wait()
    assert shop.counts("shadow", "champion").requests == 10
    unseen = shop.counts("shadow", "challenger")
    assert (unseen.requests, unseen.errors) == (10, 0)
    step = read_observations(shop.store, "r1").step("shadow")
    assert step.shadowed == 10
    assert 0 < step.overlap <= 1


def test_a_busy_shadow_sheds_and_keeps_nobody_waiting(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stage("shadow")
    monkeypatch.setattr(type(shop.state._shadow), "_run", lambda shadow: None)  # it never gets to its first request
    for user in USERS[: SHADOW_QUEUE + 5]:
        assert shop.ask(user).bundle == shop.champion.sha256
    assert shop.counts("shadow", "champion").requests == SHADOW_QUEUE + 5
    assert read_observations(shop.store, "r1").step("shadow").shed == 5


def test_a_challenger_that_raises_unseen_costs_nobody_an_answer_and_is_counted(shop: Shop) -> None:
    shop.stage("shadow")
    shop.broken = {shop.challenger.sha256}
    answer = shop.ask(USERS[0])
    shop.state._shadow.wait()
    assert (answer.bundle, list(answer.degraded)) == (shop.champion.sha256, [])
    assert shop.counts("shadow", "challenger").errors == 1


def test_in_canary_arms_are_sticky_disjoint_and_of_one_size(shop: Shop) -> None:
    small = shop.stage("canary", 0.1)
    first = {user: shop.ask(user).bundle for user in USERS}
    assert first == {user: shop.ask(user).bundle for user in USERS}
    of_challenger = {user for user, bundle in first.items() if bundle == shop.challenger.sha256}
    assert of_challenger == set(shop.of("challenger"))
    many = [f"person-{n}" for n in range(20_000)]
    sizes = [sum(arm_of(user, small) == arm for user in many) / len(many) for arm in ("challenger", "control")]
    assert sizes == pytest.approx([0.1, 0.1], abs=0.01)
    large = shop.stage("canary", 0.5)
    # Who had it keeps it, and no control becomes a challenger.
    assert {user for user in many if arm_of(user, small) == "challenger"} < {
        user for user in many if arm_of(user, large) == "challenger"
    }
    assert all(arm_of(user, large) == "control" for user in many if arm_of(user, small) == "control")


def test_each_arm_is_counted_with_its_feedback(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    for user in USERS:
        shop.ask(user)
    for user in shop.of("challenger")[:7]:
        shop.state.observe_impressions(user, 3)
        shop.state.observe_click(user)
    challenger, control = shop.counts("canary-50", "challenger"), shop.counts("canary-50", "control")
    assert (challenger.requests, control.requests) == (len(shop.of("challenger")), len(shop.of("control")))
    assert challenger.requests + control.requests == len(USERS)
    assert (challenger.clicks, challenger.impressions, control.clicks) == (7, 21, 0)
    assert sum(clicks for _, _, clicks in challenger.clusters.values()) == 7


def test_where_the_challenger_raises_the_champion_answers_and_says_so(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    shop.broken = {shop.challenger.sha256}
    (user, *_), (other, *_) = shop.of("challenger"), shop.of("control")
    answer = shop.ask(user)
    assert (answer.bundle, list(answer.degraded)) == (shop.champion.sha256, ["challenger"])
    assert list(shop.ask(other).degraded) == []
    assert (shop.counts("canary-50", "challenger").errors, shop.counts("canary-50", "control").errors) == (1, 0)


def test_a_request_that_is_wrong_for_both_is_the_callers_fault_and_counted_nowhere(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    with pytest.raises(RequestError, match="No item has the category"):
        shop.ask(shop.of("challenger")[0], category="no such")
    assert shop.counts("canary-50", "challenger").requests == 0


def test_a_challenger_that_cannot_be_loaded_is_refused_counted_and_stood_in_for(
    shop: Shop, make_bundle: MakeBundle
) -> None:
    shop.challenger = make_bundle(shop.settings, "c", spoil_golden=True)
    shop.stage("canary", 0.5)
    answer = shop.ask(shop.of("challenger")[0])
    assert (answer.bundle, list(answer.degraded)) == (shop.champion.sha256, ["challenger"])
    assert shop.counts("canary-50", "challenger").errors == 1
    assert shop.state.reason is None  # the champion is well, and the service is ready
    assert shop.state._follower.recorder is not None
    for tries in range(1, TRIES):
        shop.state._follower.recorder.flush(at_once=True)
        assert read_observations(shop.store, "r1").refusals == {}, tries
        shop.state._refusals.clear()
        shop.state.refresh()
    shop.state._follower.recorder.flush(at_once=True)
    (reason,) = read_observations(shop.store, "r1").refusals.values()
    assert "golden answer" in reason


def test_after_production_a_control_group_stays_and_both_bundles_are_held(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    loaded = shop.state._follower.held[shop.challenger.sha256]
    shop.stage("watch", 0.1)
    move_pointer(shop.store, shop.challenger, previous=shop.champion, run_id="run-2")
    shop.state.refresh()
    assert shop.state.current is loaded  # nothing was loaded again
    assert {shop.ask(user).bundle for user in shop.of("control")} == {shop.champion.sha256}
    assert {shop.ask(user).bundle for user in shop.of("champion")} == {shop.challenger.sha256}
    # Even then the bundle before stands in for the new one.
    shop.broken = {shop.challenger.sha256}
    answer = shop.ask(shop.of("champion")[0])
    assert (answer.bundle, list(answer.degraded)) == (shop.champion.sha256, ["challenger"])


def test_a_rollout_that_ends_leaves_its_counters_and_frees_the_challenger(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    shop.ask(USERS[0])
    end_rollout(shop.store)
    shop.state.refresh()
    assert {shop.ask(user).bundle for user in USERS} == {shop.champion.sha256}
    assert shop.state._follower.held == {}
    arms = read_observations(shop.store, "r1").step("canary-50").arms
    assert sum(arm.requests for arm in arms.values()) == 1


def test_a_barred_challenger_is_routed_to_by_nobody_whoever_writes_the_rollout(shop: Shop) -> None:
    bar(shop.store, shop.challenger.sha256, reason="clicks")
    shop.stage("canary", 0.5)
    assert {shop.ask(user).bundle for user in USERS} == {shop.champion.sha256}


def test_the_pointer_is_followed_while_a_challenger_is_still_loading(
    shop: Shop, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_bundle(shop.settings, "c")
    is_awaited, has_arrived, has_ended = threading.Event(), threading.Event(), threading.Event()
    original = shop.state._load

    def load(where: str, sha256: str | None) -> Any:
        if sha256 != shop.challenger.sha256:
            return original(where, sha256)
        is_awaited.set()
        has_arrived.wait(60)
        has_ended.set()
        return original(where, sha256)

    monkeypatch.setattr(shop.state, "_load", load)
    shop.stage("canary", 0.5, has_time=False)
    assert is_awaited.wait(60)
    assert {shop.ask(user).bundle for user in USERS} == {shop.champion.sha256}

    move_pointer(shop.store, other, previous=shop.champion, run_id="run-2")
    end_rollout(shop.store)
    shop.state.look()
    assert {shop.ask(user).bundle for user in USERS} == {other.sha256}
    (worker,) = live_workers(shop.store, now=datetime.now(UTC))
    assert (worker.bundle, worker.rollout) == (other.sha256, None)
    assert not has_ended.is_set()

    # And when it comes after all, it is taken up, if it is wanted still.
    has_arrived.set()
    shop.stage("canary", 0.5, champion=other)
    assert {shop.ask(user).bundle for user in USERS} == {other.sha256, shop.challenger.sha256}


def test_a_torn_rollout_changes_nothing(shop: Shop) -> None:
    shop.stage("canary", 0.5)
    before = {user: shop.ask(user).bundle for user in USERS}
    Path(shop.store.path("deploy/rollout.json")).write_text("{")
    shop.state.refresh()
    assert {user: shop.ask(user).bundle for user in USERS} == before


def test_sums_survive_a_workers_death(shop: Shop) -> None:
    """Each start of a worker has a file of its own; the dead one's stays."""
    shop.stage("canary", 0.5)
    for user in USERS[:30]:
        shop.ask(user)
    assert shop.state._follower.recorder is not None
    shop.state._follower.recorder.flush(at_once=True)
    second = ServiceState(shop.settings)
    second._follower._worker = "another"
    second.refresh()
    shop.state = second
    for user in USERS[:12]:
        shop.ask(user)
    seen = [shop.counts("canary-50", arm).requests for arm in ("challenger", "control")]
    assert sum(seen) == 42
    assert read_observations(shop.store, "r1").workers == 2


def test_workers_say_in_the_store_what_they_answer_with(shop: Shop) -> None:
    (worker,) = live_workers(shop.store, now=datetime.now(UTC))
    assert (worker.bundle, worker.rollout) == (shop.champion.sha256, None)
    shop.stage("canary", 0.1)
    (worker,) = live_workers(shop.store, now=datetime.now(UTC))
    assert worker.rollout == "r1"
    shop.state.leave()
    assert live_workers(shop.store, now=datetime.now(UTC)) == []
