"""From a checked request to answers: whom the rollout lets answer, what is known of the users, what is counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from components.core.errors import WouldWaitError
from serving import metrics
from serving.behaviour import Behaviour
from serving.errors import RequestError
from serving.fresh import FreshEvent, FreshStoreError
from serving.online import OnlineStoreError, OnlineUser, UserReader
from serving.recommend import Recommender, new_list_id
from serving.rollout import count_of_batch
from serving.schemas import BatchRequest, ListConditions, RecommendRequest
from serving.served_log import ServedList
from serving.state import ServiceState
from serving.written import Written

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]

AT_ONCE_ITEMS = 1_000  # of a stock list: more take longer to look up than all else does
NOT_LOGGED = {"user_id", "user_ids", "items", "reasons"}


class Asking:
    """Answers requests for lists. There must be a bundle."""

    def __init__(self, state: ServiceState, reader: UserReader, behaviour: Behaviour) -> None:
        self._state = state
        self._reader = reader
        self._behaviour = behaviour

    def one(self, request: RecommendRequest, *, at_once: bool = False) -> Written:
        """Raises RequestError where the request asks for what the bundle does not offer; and WouldWaitError, with
        nothing done, where the answer is wanted at once but has to wait for a store or for long work."""
        user_id = request.user_id
        missing: list[str] = []
        fresh: Sequence[FreshEvent] = ()
        users: dict[datetime, OnlineUser | None] = {}  # by the clock that they were read at: two bundles may have two
        if at_once and request.in_stock is not None and len(request.in_stock) > AT_ONCE_ITEMS:
            raise WouldWaitError
        moments: dict[Clock, datetime] = {}

        def user_for(recommender: Recommender, *, at_once: bool = False) -> OnlineUser | None:
            if user_id is None:
                return None
            now = moments.setdefault(recommender.clock, recommender.clock())  # the wall's is another at each look
            if now not in users:
                users[now] = self._users([user_id], now, missing, at_once=at_once)[0]
            return users[now]

        if user_id is not None:
            fresh = self._fresh([user_id], missing, at_once=at_once)[0]
            # Before anybody is asked to answer: whoever may not wait is told so, and nothing is counted.
            user_for(self._state.route(user_id).recommender, at_once=at_once)
        list_id = new_list_id()

        def call(recommender: Recommender, degraded: Sequence[str]) -> Written:
            user = user_for(recommender)
            return recommender.recommend(
                request, user, fresh=fresh, degraded=[*missing, *degraded] if missing else degraded, list_id=list_id
            )

        answer = self._state.answer(user_id, call)
        self._count([answer], missing, has_user=user_id is not None)
        self._log(request, [user_id], [answer])
        return answer

    def many(self, request: BatchRequest) -> list[Written]:
        """One list a user, in the order asked; users of an arm are answered together."""
        most = self._state.settings.serve.max_batch_users
        if len(request.user_ids) > most:
            raise RequestError(f"'user_ids' may have at most {most} entries.")
        missing: list[str] = []
        fresh = self._fresh(request.user_ids, missing)
        groups: dict[int, tuple[Recommender, list[int]]] = {}
        routed = self._state.route_many(request.user_ids)
        for place, route in enumerate(routed):
            groups.setdefault(id(route.recommender), (route.recommender, []))[1].append(place)
        answers: dict[int, Written] = {}
        for recommender, places in groups.values():
            try:
                found = self._group(recommender, request, places, fresh, missing)
            except RequestError:
                raise
            except Exception:
                champion = self._state.current
                if champion is None or recommender is champion:
                    raise
                # As a single request: a broken challenger costs nobody an answer.
                logger.exception("A batch is answered by the champion, since the challenger failed.")
                metrics.FALLBACKS.labels("challenger").inc()
                found = self._group(champion, request, places, fresh, [*missing, "challenger"])
            answers |= dict(zip(places, found, strict=True))
        in_order = [answers[place] for place in range(len(request.user_ids))]
        for route, answer in zip(routed, in_order, strict=True):
            count_of_batch(route, answer)
        self._count(in_order, missing, has_user=True)
        self._log(request, request.user_ids, in_order)
        return in_order

    def _group(
        self,
        recommender: Recommender,
        request: BatchRequest,
        places: Sequence[int],
        fresh: Sequence[Sequence[FreshEvent]],
        missing: list[str],
    ) -> list[Written]:
        users = self._users([request.user_ids[place] for place in places], recommender.clock(), missing)
        return recommender.recommend_many(request, users, fresh=[fresh[place] for place in places], degraded=missing)

    def _users(
        self, user_ids: Sequence[str], now: datetime, missing: list[str], *, at_once: bool = False
    ) -> Sequence[OnlineUser | None]:
        try:
            if len(user_ids) == 1:
                read = self._reader.read_at_once if at_once else self._reader.read
                return [read(user_ids[0], now=now)]
            return self._reader.read_many(user_ids, now=now)
        except OnlineStoreError:
            if "online_store" not in missing:
                missing.append("online_store")
            return [None] * len(user_ids)

    def _fresh(
        self, user_ids: Sequence[str], missing: list[str], *, at_once: bool = False
    ) -> Sequence[Sequence[FreshEvent]]:
        pseudonym = self._behaviour.pseudonyms.of
        try:
            if len(user_ids) == 1:
                return [self._behaviour.fresh.of(pseudonym(user_ids[0]), at_once=at_once)]
            return self._behaviour.fresh.of_many([pseudonym(user_id) for user_id in user_ids])
        except FreshStoreError:
            missing.append("fresh_store")
            return [()] * len(user_ids)

    def _count(self, answers: Sequence[Written], missing: Sequence[str], *, has_user: bool) -> None:
        for store in missing:
            metrics.FALLBACKS.labels(store).inc(len(answers))
        # Counted together first: a counter's lock is most of what counting costs.
        lists = Counter((answer.source, answer.bundle[:12]) for answer in answers)
        for labels, count in lists.items():
            metrics.RECOMMENDATIONS.labels(*labels).inc(count)
        if has_user and (count := sum(answer.source == "popularity" and not answer.degraded for answer in answers)):
            metrics.FALLBACKS.labels("unknown_user").inc(count)
        if count := sum(not answer.rows for answer in answers):
            metrics.EMPTY_LISTS.inc(count)
        for answer in answers:
            if answer.feature_age_seconds is not None:
                metrics.FEATURE_AGE.observe(answer.feature_age_seconds)

    def _log(self, request: ListConditions, user_ids: Sequence[str | None], answers: Sequence[Written]) -> None:
        served = self._behaviour.served
        conditions: dict[str, Any] | None = None  # of all the answers
        for user_id, answer in zip(user_ids, answers, strict=True):
            if not served.chooses(answer.list_id):
                continue
            if conditions is None:
                conditions = request.model_dump(exclude=NOT_LOGGED, exclude_defaults=True)
            routed = self._state.route(user_id)
            served.offer(
                ServedList(
                    list_id=answer.list_id,
                    at=routed.recommender.clock(),
                    arm=routed.arm,
                    bundle=answer.bundle,
                    user=None if user_id is None else self._behaviour.pseudonyms.of(user_id),
                    source=answer.source,
                    items=answer.items,
                    propensity=answer.propensity,
                    request=conditions,
                )
            )
            if answer.bundle == routed.recommender.bundle.sha256:  # else the champion stood in
                for name, value in routed.recommender.lists.of(answer.rows).items():
                    metrics.LIST_STATISTIC.labels(name).observe(value)
