"""The score as a sum of named terms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from six_items import NUM_ITEMS, USERS_I, WEIGHTS, recommender, scorer, three_users

from components.model.histories import Histories
from components.model.ranking import top_k
from components.model.score import REPEAT, SIMILARITY, ScoreWeights


@pytest.mark.parametrize("include_seen", [False, True])
def test_the_terms_add_up_to_the_score(include_seen: bool) -> None:
    asked = scorer()
    terms = asked.terms(*three_users(), include_seen=include_seen)
    total = torch.stack([term.expand(3, NUM_ITEMS) for term in terms.values()]).sum(dim=0)
    torch.testing.assert_close(asked.score(*three_users(), include_seen=include_seen), total)
    assert set(terms) == set(asked.term_names) - (set() if include_seen else {REPEAT})


def test_each_term_is_its_weight_times_what_it_is_unweighted() -> None:
    asked = scorer()
    raw = asked.unweighted_terms(*three_users())
    new, every = asked.terms(*three_users()), asked.terms(*three_users(), include_seen=True)
    for name, term in raw.items():
        torch.testing.assert_close(new[name], term * WEIGHTS.terms[name])
        torch.testing.assert_close(every[name], term * WEIGHTS.terms[name] * WEIGHTS.repeat_scale)
    torch.testing.assert_close(every[REPEAT], asked.counted.repeat(three_users()[0]) * WEIGHTS.repeat)


def test_the_similarity_is_a_cosine_over_the_temperature() -> None:
    asked = scorer()
    user_BD = asked.user_vectors(*three_users())
    assert user_BD.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    # The soap has neither category nor neighbour nor id vector, and is near to nobody.
    assert asked.target_ID.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1, 0, 1])
    expected = user_BD @ asked.target_ID.T / 0.1
    torch.testing.assert_close(asked.unweighted_terms(*three_users())[SIMILARITY], expected)


def test_a_weight_that_is_not_named_is_none() -> None:
    bare = scorer().with_weights(ScoreWeights(terms={"popularity": 2.0}))
    expected = 2 * torch.log1p(torch.tensor(USERS_I)).expand(3, NUM_ITEMS)
    torch.testing.assert_close(bare.score(*three_users()), expected)


def test_a_user_without_history_gets_the_popular_items() -> None:
    fresh = recommender()
    fresh.start(id_vectors=None, generator=torch.Generator().manual_seed(0))
    nobody = Histories.empty(1)
    scores = scorer(model=fresh).score(nobody, torch.full((1, 2), torch.nan))
    assert top_k(scores, k=6)[0].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_what_a_user_had_of_late_comes_first_where_seen_items_compete() -> None:
    """A repeat of the soap, which is neither popular nor reached by anything."""
    weights = dataclasses.replace(WEIGHTS, repeat=20.0)
    soap = Histories.from_lists([[4]], [[5.0]], [[1.0]])
    statistics = torch.full((1, 2), torch.nan)
    asked = scorer(weights=weights)
    assert top_k(asked.score(soap, statistics, include_seen=True), k=1)[0].tolist() == [[4]]
    assert 4 not in top_k(asked.score(soap, statistics), k=6, histories=soap)[0].tolist()[0]


def test_one_user_and_many_get_the_same_scores() -> None:
    asked = scorer()
    histories, statistics_BF = three_users()
    together = asked.score(histories, statistics_BF)
    for user in range(3):
        alone = asked.score(histories.rows(torch.tensor([user])), statistics_BF[user : user + 1])
        torch.testing.assert_close(alone[0], together[user], atol=1e-5, rtol=1e-5)
