"""Why an item is recommended, and what is like it."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.sparse as sp
import torch
from six_items import committed_bundle, scorer

from components.model.bundle import Bundle
from components.model.explain import explain, explain_listed, similar
from components.model.histories import Histories
from components.model.linear_filter import FilterRows
from components.model.retrieval import Retrieval
from components.model.rules import ListRules
from components.model.score import ScoreWeights

NO_STATISTICS = torch.full((1, 2), torch.nan)
MILK, BUTTER, BREAD, ROLLS, SOAP, CANDLE = range(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed_bundle(tmp_path_factory.mktemp("explained"), scorer())


def weighed(folder: Path, **terms: float) -> Bundle:
    """The bundle whose score holds these terms alone."""
    bundle = Bundle.load(folder)
    bundle.scorer = bundle.scorer.with_weights(ScoreWeights(terms=terms, repeat=5.0, repeat_scale=0.1))
    return bundle


@pytest.fixture
def buyer() -> Histories:
    """Bread now and twice as strong as milk, which is half a life old."""
    return Histories.from_lists([[BREAD, MILK]], [[1.0, 1.0]], [[0.0, 56.0]])


def test_shares_are_of_what_lifts_the_item_and_sum_to_one(folder: Path, buyer: Histories) -> None:
    bundle = Bundle.load(folder)
    explained = explain(bundle, buyer, NO_STATISTICS, ROLLS)
    assert sum(explained.shares.values()) == pytest.approx(1)
    terms = bundle.scorer.terms(buyer, NO_STATISTICS)
    lifts = {name: max(float(term[0, ROLLS] - term.mean()), 0) for name, term in terms.items()}
    assert explained.shares == pytest.approx({name: lift / sum(lifts.values()) for name, lift in lifts.items()})


def test_an_item_goes_with_what_leads_to_it(folder: Path, buyer: Histories) -> None:
    """The filter leads from bread to rolls, and from milk to butter and bread."""
    bundle = weighed(folder, filter=1.0)
    to_rolls, to_butter = (explain(bundle, buyer, NO_STATISTICS, item) for item in (ROLLS, BUTTER))
    assert (to_rolls.because, to_rolls.sentence) == ([(BREAD, 1.0)], "Goes with Bread")
    assert (to_butter.because, to_butter.sentence) == ([(MILK, 1.0)], "Goes with Milk")


def test_the_reason_is_not_what_leads_everywhere_but_what_leads_there(folder: Path) -> None:
    """Milk adds a little more to rolls than soap does, and more still to all else; soap leads to rolls above all."""
    bundle = weighed(folder, filter=1.0)
    leads = sp.csr_matrix(
        ([0.5, 0.5, 0.5, 0.5, 0.4, 0.1], ([MILK] * 4 + [SOAP] * 2, [BUTTER, BREAD, ROLLS, CANDLE, ROLLS, CANDLE])),
        (6, 6),
    )
    bundle.scorer.counted.filter_rows = FilterRows.from_scipy(leads)
    history = Histories.from_lists([[MILK, SOAP]], [[1.0, 1.0]], [[0.0, 0.0]])

    explained = explain(bundle, history, NO_STATISTICS, ROLLS)

    assert explained.sentence == "Goes with Soap"
    # The parts are still of what was added: .4 and .5.
    assert explained.because == [(SOAP, pytest.approx(4 / 9)), (MILK, pytest.approx(5 / 9))]


def test_where_the_filter_leads_nowhere_the_vectors_say_what_is_near(folder: Path, buyer: Histories) -> None:
    bundle = weighed(folder, similarity=1.0)
    bundle.scorer.history_ID = torch.eye(6, 4)
    bundle.scorer.target_ID = bundle.scorer.target_ID.clone()
    bundle.scorer.target_ID[CANDLE] = torch.tensor([0.6, 0.0, 0.8, 0.0])
    explained = explain(bundle, buyer, NO_STATISTICS, CANDLE)
    # strengths 1 and ½ times cosines 0.8 and 0.6
    assert [item for item, _ in explained.because] == [BREAD, MILK]
    assert [share for _, share in explained.because] == pytest.approx([0.8 / 1.1, 0.3 / 1.1])


def test_a_taste_is_said_by_its_value(folder: Path) -> None:
    """Bread alone: the filter leads to rolls alone, so the milk is here for nothing but its name."""
    baker = Histories.from_lists([[BREAD, ROLLS]], [[1.0, 1.0]], [[0.0, 0.0]])
    explained = explain(weighed(folder, affinity_category=1.0), baker, NO_STATISTICS, ROLLS)
    assert explained.sentence == "You often choose bakery"


def test_a_user_without_history_is_told_that_it_is_popular(folder: Path) -> None:
    explained = explain(weighed(folder, popularity=1.0), Histories.empty(1), NO_STATISTICS, MILK)
    assert (explained.because, explained.shares["popularity"]) == ([], 1)
    assert explained.sentence == "Popular with other customers"


def test_a_repeat_is_called_one(folder: Path, buyer: Histories) -> None:
    explained = explain(weighed(folder, popularity=0.1), buyer, NO_STATISTICS, BREAD, include_seen=True)
    assert explained.sentence == "You buy this often"


def test_similar_items_are_the_nearest_by_cosine_and_never_the_item_itself(folder: Path) -> None:
    bundle = Bundle.load(folder)
    bundle.scorer.target_ID = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0], [1, 0.1], [1, 1], [0, 1], [-1, 0], [1, -0.5]]), dim=1
    )
    found = similar(bundle, MILK, k=3)
    assert [item for item, _ in found] == [BUTTER, CANDLE, BREAD]
    assert [value for _, value in found] == pytest.approx([0.995, 0.894, 0.707], abs=1e-3)
    assert len(similar(bundle, MILK, k=99)) == 5


def test_similar_items_keep_the_merchandisers_rules(folder: Path) -> None:
    """What may not stand beside the item is left out, and of two that may not stand together the better one stays."""
    bundle = weighed(folder, similarity=1.0)
    first, second, third, *_ = [item for item, _ in similar(bundle, MILK, k=5)]
    bundle.rules = ListRules({MILK: frozenset({first}), first: frozenset({MILK})})
    assert [item for item, _ in similar(bundle, MILK, k=2)] == [second, third]
    bundle.rules = ListRules({first: frozenset({second}), second: frozenset({first})})
    assert [item for item, _ in similar(bundle, MILK, k=2)] == [first, third]


@pytest.mark.parametrize("include_seen", [False, True])
@pytest.mark.parametrize("history", [[BREAD, MILK], [SOAP, MILK, CANDLE], [CANDLE], []])
def test_a_whole_lists_reasons_are_those_of_each_item(folder: Path, history: list[int], *, include_seen: bool) -> None:
    bundle = Bundle.load(folder)
    buyer = Histories.from_lists([history], [[1.0, 0.4, 1.0][: len(history)]], [[0.0, 20.0, 56.0][: len(history)]])
    ranked = Retrieval(bundle.scorer).rank(buyer, NO_STATISTICS, k=6, include_seen=include_seen)
    listed = explain_listed(bundle, ranked)
    each = [explain(bundle, buyer, NO_STATISTICS, item, include_seen=include_seen) for item in ranked.items.tolist()]
    assert len(each) >= 3
    assert listed.sentences == [one.sentence for one in each]
    for shares, because, one in zip(listed.shares_kT.tolist(), listed.because, each, strict=True):
        expected = one.shares or dict.fromkeys(listed.terms, 0.0)
        assert dict(zip(listed.terms, shares, strict=True)) == pytest.approx(expected, abs=1e-4)
        assert because[:1] == [(item, pytest.approx(share, abs=1e-5)) for item, share in one.because[:1]]
    kept = [2, 0]
    fewer = explain_listed(bundle, ranked.only(kept))
    assert fewer.sentences == [listed.sentences[place] for place in kept]
    assert fewer.because == [listed.because[place] for place in kept]
    assert fewer.shares_kT.tolist() == listed.shares_kT[kept].tolist()
