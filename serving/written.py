"""Answers, written as they are found: what a model's own JSON is, without a model for each of its items."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from serving.known import Facts
from serving.lists import Ranked
from serving.schemas import Item, Source

if TYPE_CHECKING:
    from components.model.explain import Reasons

NO_REASONS = '"reasons":[],"shares":{}'


class Written(NamedTuple):
    """An answer as JSON, and what of it is counted and logged: under the names of `RecommendAnswer`."""

    text: str
    list_id: str
    rows: Sequence[int]  # of the bundle: the items
    scores: Sequence[float]
    item_ids: Sequence[str]  # by row
    bundle: str
    source: Source
    propensity: float
    feature_age_seconds: float | None
    degraded: Sequence[str]

    @property
    def items(self) -> list[tuple[str, float]]:
        """With their scores."""
        return [*zip(map(self.item_ids.__getitem__, self.rows), self.scores, strict=True)]


class _Beginnings(dict[int, str]):
    """Of the items that were listed yet, as they are written: few are, over and over."""

    def __init__(self, item_of: Callable[[int], Item]) -> None:
        super().__init__()
        self._item_of = item_of

    def __missing__(self, row: int) -> str:
        self[row] = beginning = self._item_of(row).model_dump_json()[:-1] + ',"score":'
        return beginning


class Writer:
    """Writes answers. Safe to share between threads."""

    def __init__(self, item_ids: Sequence[str], item_of: Callable[[int], Item], *, bundle: str) -> None:
        self._item_ids, self._bundle = item_ids, bundle
        self._shares: dict[tuple[str, ...], str] = {}  # how shares of terms are written, by the terms
        self._beginnings = _Beginnings(item_of)

    def written(
        self,
        facts: Facts,
        ranked: Ranked,
        list_id: str,
        degraded: Sequence[str],
        why: Reasons | None = None,
    ) -> Written:
        """What `RecommendAnswer` writes of the same list. Scores are finite. `why`: None writes no reasons."""
        beginnings = self._beginnings
        if why is None:
            scored = zip(ranked.items, ranked.scores, strict=True)
            rows = [f"{beginnings[item]}{score!r},{NO_REASONS}}}" for item, score in scored]
        else:
            scored_for = zip(ranked.items, ranked.scores, self._reasons(why), strict=True)
            rows = [f"{beginnings[item]}{score!r},{reason}}}" for item, score, reason in scored_for]
        age = facts.feature_age_seconds
        age_json = "null" if age is None else repr(age)
        text = (
            f'{{"list_id":"{list_id}","items":[{",".join(rows)}],"bundle":"{self._bundle}","source":"{facts.source}",'
            f'"propensity":{ranked.propensity!r},"fresh_events":{facts.fresh_events},'
            f'"feature_age_seconds":{age_json},"unknown_items":{_json(facts.unknown_items)},'
            f'"degraded":{_json(degraded)}}}'
        )
        return Written(
            text=text,
            list_id=list_id,
            rows=ranked.items,
            scores=ranked.scores,
            item_ids=self._item_ids,
            bundle=self._bundle,
            source=facts.source,
            propensity=ranked.propensity,
            feature_age_seconds=age,
            degraded=degraded,
        )

    def _reasons(self, why: Reasons) -> list[str]:
        form = self._shares.get(why.terms)
        if form is None:
            form = ",".join([_text(name).replace("%", "%%") + ":%r" for name in why.terms])
            form = self._shares[why.terms] = f'"reasons":[%s],"shares":{{{form}}}'
        return [
            form % (_text(sentence), *shares) if any(shares) else f'"reasons":[{_text(sentence)}],"shares":{{}}'
            for sentence, shares in zip(why.sentences, why.shares_kT.tolist(), strict=True)
        ]


def batch_json(answers: Sequence[Written]) -> str:
    """As `BatchAnswer` writes them."""
    return f'{{"lists":[{",".join([answer.text for answer in answers])}]}}'


def _json(texts: Sequence[str]) -> str:
    return f"[{','.join(map(_text, texts))}]" if texts else "[]"


_text = json.encoder.encode_basestring  # of the library's own encoder, which takes longer to start than to write
