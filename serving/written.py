"""A batch's answers, written as they are found: what a model's own JSON is, without a model for each of its items."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from serving.known import Known
from serving.lists import Ranked
from serving.schemas import Item, RecommendAnswer, Source


class Written(NamedTuple):
    """An answer as JSON, and what of it is counted and logged: under the names of `RecommendAnswer`."""

    text: str
    list_id: str
    items: Sequence[tuple[str, float]]  # with their scores
    bundle: str
    source: Source
    propensity: float
    feature_age_seconds: float | None
    degraded: Sequence[str]

    @classmethod
    def of(cls, answer: RecommendAnswer) -> Written:
        return cls(
            text=answer.model_dump_json(),
            list_id=answer.list_id,
            items=[(item.item_id, item.score) for item in answer.items],
            bundle=answer.bundle,
            source=answer.source,
            propensity=answer.propensity,
            feature_age_seconds=answer.feature_age_seconds,
            degraded=answer.degraded,
        )


class Writer:
    """Writes answers without reasons. Safe to share between threads."""

    def __init__(self, item_ids: Sequence[str], item_of: Callable[[int], Item], *, bundle: str) -> None:
        self._item_ids, self._item_of, self._bundle = item_ids, item_of, bundle
        self._beginnings: dict[int, str] = {}  # of the items that were listed yet: few are, over and over

    def written(self, known: Known, ranked: Ranked, list_id: str, degraded: Sequence[str]) -> Written:
        """What `RecommendAnswer` writes of the same list. Scores are finite."""
        beginnings = self._beginnings
        rows = []
        for item, score in zip(ranked.items, ranked.scores, strict=True):
            beginning = beginnings.get(item)
            if beginning is None:
                beginning = beginnings[item] = self._item_of(item).model_dump_json()[:-1]
            rows.append(f'{beginning},"score":{score!r},"reasons":[],"shares":{{}}}}')
        age = known.feature_age_seconds
        age_json = "null" if age is None else repr(age)
        text = (
            f'{{"list_id":"{list_id}","items":[{",".join(rows)}],"bundle":"{self._bundle}","source":"{known.source}",'
            f'"propensity":{ranked.propensity!r},"fresh_events":{known.fresh_events},'
            f'"feature_age_seconds":{age_json},"unknown_items":{_json(known.unknown_items)},'
            f'"degraded":{_json(degraded)}}}'
        )
        return Written(
            text=text,
            list_id=list_id,
            items=[*zip(map(self._item_ids.__getitem__, ranked.items), ranked.scores, strict=True)],
            bundle=self._bundle,
            source=known.source,
            propensity=ranked.propensity,
            feature_age_seconds=age,
            degraded=degraded,
        )


def batch_json(answers: Sequence[Written]) -> str:
    """As `BatchAnswer` writes them."""
    return f'{{"lists":[{",".join([answer.text for answer in answers])}]}}'


def _json(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False, separators=(",", ":")) if names else "[]"
