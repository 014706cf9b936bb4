"""Answers, written as they are found: what a model's own JSON is, without a model for each of its items."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from serving.known import Known
from serving.lists import Ranked
from serving.schemas import Item, Source

if TYPE_CHECKING:
    from components.model.explain import Reasons

NO_REASONS = '"reasons":[],"shares":{}'


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


class Writer:
    """Writes answers. Safe to share between threads."""

    def __init__(self, item_ids: Sequence[str], item_of: Callable[[int], Item], *, bundle: str) -> None:
        self._item_ids, self._item_of, self._bundle = item_ids, item_of, bundle
        self._shares: dict[tuple[str, ...], str] = {}  # how shares of terms are written, by the terms
        self._beginnings: dict[int, str] = {}  # of the items that were listed yet: few are, over and over

    def written(
        self,
        known: Known,
        ranked: Ranked,
        list_id: str,
        degraded: Sequence[str],
        why: Reasons | None = None,
    ) -> Written:
        """What `RecommendAnswer` writes of the same list. Scores are finite. `why`: None writes no reasons."""
        beginnings = self._beginnings
        rows = []
        reasons = [NO_REASONS] * len(ranked.items) if why is None else self._reasons(why)
        for item, score, reason in zip(ranked.items, ranked.scores, reasons, strict=True):
            beginning = beginnings.get(item)
            if beginning is None:
                beginning = beginnings[item] = self._item_of(item).model_dump_json()[:-1]
            rows.append(f'{beginning},"score":{score!r},{reason}}}')
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
    return f"[{','.join(map(_text, texts))}]"


_text = json.encoder.encode_basestring  # of the library's own encoder, which takes longer to start than to write
