"""Answers are the model's own JSON, byte by byte."""

from __future__ import annotations

import numpy as np
from fastapi.testclient import TestClient

from components.model.explain import Reasons
from serving.known import Facts
from serving.lists import Ranked
from serving.schemas import BatchAnswer, Item, RecommendAnswer, RecommendedItem
from serving.written import Writer, batch_json

ITEMS = [
    Item(item_id="a", title='"Jam"\\ \n\t\x07 <é€🍓>', category=None, brand="B", price=None),
    Item(item_id="é", title="Tea", category="C/d", brand=None, price=2.99),
    Item(item_id="c", title="", category="", brand="", price=0.0),
]
SCORES = np.array([12.5, 1 / 3, -0.0], np.float32).tolist()


def facts(**others: object) -> Facts:
    given = {"source": "both", "feature_age_seconds": 86400.5, "fresh_events": 3, "unknown_items": ['x"y', "ü"]}
    return Facts(**{**given, **others})  # type: ignore[arg-type]


WHY = Reasons(
    terms=("similarity", "affinity_100%"),
    shares_kT=np.array([[0.3333, 0.6667], [0.0, 0.0]]),
    because=[[(1, 1.0)], []],
    sentences=['Goes with "é"\n', "Popular with other customers"],
)


def by_model(facts: Facts, ranked: Ranked, degraded: list[str], why: Reasons | None = None) -> RecommendAnswer:
    reasons: list[list[str]] = [[] for _ in ranked.items]
    shares: list[dict[str, float]] = [{} for _ in ranked.items]
    if why is not None:
        reasons = [[sentence] for sentence in why.sentences]
        shares = [dict(zip(why.terms, row, strict=True)) if any(row) else {} for row in why.shares_kT.tolist()]
    rows = zip(ranked.items, ranked.scores, reasons, shares, strict=True)
    return RecommendAnswer(
        list_id="0f" * 16,
        items=[
            RecommendedItem(
                **ITEMS[item].model_dump(),
                score=score,
                reasons=why_listed,
                shares=parts,
            )
            for item, score, why_listed, parts in rows
        ],
        bundle="b" * 64,
        source=facts.source,
        propensity=ranked.propensity,
        fresh_events=facts.fresh_events,
        feature_age_seconds=facts.feature_age_seconds,
        unknown_items=facts.unknown_items,
        degraded=degraded,
    )


def test_an_answer_is_written_as_its_model_writes_it() -> None:
    writer = Writer([item.item_id for item in ITEMS], ITEMS.__getitem__, bundle="b" * 64)
    stranger = facts(source="popularity", feature_age_seconds=None, fresh_events=0, unknown_items=[])
    cases = [
        (facts(), Ranked([2, 0, 1], SCORES), ["online_store", "challenger"]),
        (stranger, Ranked([0, 1], SCORES[1:], 0.25), []),
        (stranger, Ranked([], []), []),
        (facts(), Ranked([0, 1], SCORES[1:]), [], WHY),
    ]
    models = [by_model(*case) for case in cases]
    answers = [writer.written(*case[:2], "0f" * 16, *case[2:]) for case in cases]
    assert [answer.text for answer in answers] == [model.model_dump_json() for model in models]
    for answer, model in zip(answers, models, strict=True):
        assert answer.items == [(item.item_id, item.score) for item in model.items]
        counted = ("list_id", "bundle", "source", "propensity", "feature_age_seconds", "degraded")
        assert {name: getattr(answer, name) for name in counted} == {name: getattr(model, name) for name in counted}
    assert batch_json(answers) == BatchAnswer(lists=models).model_dump_json()


def test_a_served_batch_is_what_its_model_writes(worker: TestClient) -> None:
    for conditions in ({}, {"reasons": True}, {"include_seen": True}):
        answer = worker.post("/recommend/batch", json={"user_ids": ["1", "2", "nobody"], "k": 4, **conditions})
        assert answer.status_code == 200, answer.text
        assert BatchAnswer.model_validate_json(answer.content).model_dump_json() == answer.text


def test_a_served_list_is_what_its_model_writes(worker: TestClient) -> None:
    for conditions in ({}, {"reasons": False}, {"items": ["dairy-0", "gone"]}, {"diversity": 0.5}):
        answer = worker.post("/recommend", json={"user_id": "1", "k": 4, **conditions})
        assert answer.status_code == 200, answer.text
        assert RecommendAnswer.model_validate_json(answer.content).model_dump_json() == answer.text
