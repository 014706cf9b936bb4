"""Who may list what, and how the baselines' settings are chosen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from components.evaluate.contest import (
    ALL_ITEMS,
    NEW_ITEMS,
    BaselineEntrant,
    Entrant,
    ModelEntrant,
    rank_users,
)
from components.evaluate.tuning import choose_baselines, describe, new_targets, sample_rows
from components.measures.baselines import AllTimePopularity, OwnFrequency
from components.measures.interactions import Interactions
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.ranking import top_k
from components.model.rules import ListRules
from components.model.score import ScoreWeights

NUM_ITEMS = 6
# User 0 had 5, user 1 had 4 and 5, user 2 nothing. Item 5 is the most popular, then 4, then 3.
EVENTS = [(0, 5), (1, 5), (1, 4), (3, 5), (3, 4), (3, 3)]


def interactions(events: list[tuple[int, int]], *, ages_days: float | list[float] = 1.0) -> Interactions:
    users, items = zip(*events, strict=True)
    return Interactions.of(
        users=users,
        items=items,
        weights=np.ones(len(events)),
        ages_days=np.broadcast_to(ages_days, len(events)),
        category=[0] * NUM_ITEMS,
        num_users=4,
    )


def no_bar(items: Iterable[object], _: int) -> Iterable[object]:
    return items


class Scorer:
    """Scores items by their number, has no use for what was had before, and remembers in which way it was asked."""

    weights = ScoreWeights(terms={}, repeat_scale=0.0)

    def __init__(self, *, is_shared: bool = False) -> None:
        self.asked: list[bool] = []
        self.is_shared = is_shared

    def score(self, histories: Histories, statistics: Tensor, *, include_seen: bool) -> Tensor:
        self.asked.append(include_seen)
        score_1I = torch.arange(NUM_ITEMS).float()[None, :]
        return score_1I.expand(len(histories), -1) if self.is_shared else score_1I.repeat(len(histories), 1)


@pytest.fixture
def known() -> Interactions:
    return interactions(EVENTS)


def test_new_items_leave_out_what_the_user_had_and_all_items_do_not(known: Interactions) -> None:
    popularity = AllTimePopularity()
    popularity.fit(known)
    lists = rank_users([BaselineEntrant(popularity)], rows=np.array([0, 1, 2]), seen=known.seen, k=1, track=no_bar)
    assert lists[ALL_ITEMS]["popularity"].tolist() == [[5]] * 3
    assert lists[NEW_ITEMS]["popularity"].tolist() == [[4], [3], [5]]


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_model_is_asked_for_each_setting_and_masked_by_the_whole_log(known: Interactions, is_shared: bool) -> None:
    scorer = Scorer(is_shared=is_shared)
    model = ModelEntrant(scorer, histories=Histories.empty(4), statistics=torch.zeros(4, 1))  # type: ignore[arg-type]
    lists = rank_users([model], rows=np.array([0, 1, 2]), seen=known.seen, k=2, track=no_bar)
    assert sorted(scorer.asked) == [False, True]
    assert lists[ALL_ITEMS]["model"].tolist() == [[5, 4]] * 3
    assert lists[NEW_ITEMS]["model"].tolist() == [[4, 3], [3, 2], [5, 4]]


def test_the_models_lists_keep_the_rules_and_a_baselines_do_not(known: Interactions) -> None:
    """Of 5 and 4, which never stand together, the better stays."""
    scorer = Scorer(is_shared=False)
    model = ModelEntrant(scorer, histories=Histories.empty(4), statistics=torch.zeros(4, 1))  # type: ignore[arg-type]
    popularity = AllTimePopularity()
    popularity.fit(known)
    entrants: list[Entrant] = [model, BaselineEntrant(popularity)]
    rules = ListRules({4: frozenset({5}), 5: frozenset({4})})
    asked = {"rows": np.array([0, 1, 2]), "seen": known.seen, "k": 2, "track": no_bar}
    lists, free = rank_users(entrants, **asked, rules=rules), rank_users(entrants, **asked)
    assert lists[ALL_ITEMS]["model"].tolist() == [[5, 3]] * 3
    assert lists[NEW_ITEMS]["model"].tolist() == [[4, 3], [3, 2], [5, 3]]
    assert lists[ALL_ITEMS]["popularity"].tolist() == free[ALL_ITEMS]["popularity"].tolist()


def test_own_frequency_takes_no_part_where_own_items_are_left_out(known: Interactions) -> None:
    frequency = OwnFrequency(is_decayed=False)
    frequency.fit(known)
    lists = rank_users([BaselineEntrant(frequency)], rows=np.array([1]), seen=known.seen, k=2, track=no_bar)
    assert lists[NEW_ITEMS] == {}
    assert lists[ALL_ITEMS]["own frequency"].tolist() == [[5, 4]]


def test_no_users_give_empty_lists(known: Interactions) -> None:
    popularity = AllTimePopularity()
    popularity.fit(known)
    lists = rank_users([BaselineEntrant(popularity)], rows=np.array([], dtype=int), seen=known.seen, k=2, track=no_bar)
    assert lists[NEW_ITEMS]["popularity"].shape == (0, 2)


def test_ranking_leaves_the_number_of_threads_as_it_was(known: Interactions) -> None:
    popularity = AllTimePopularity()
    popularity.fit(known)
    before = torch.get_num_threads()
    rank_users([BaselineEntrant(popularity)], rows=np.array([0]), seen=known.seen, k=2, track=no_bar)
    assert torch.get_num_threads() == before


def test_new_targets_are_those_not_had_before_unknown_items_among_them(known: Interactions) -> None:
    taken = sp.csr_matrix(([1, 1, 1, 1], ([0, 0, 1, 2], [5, 7, 4, 5])), shape=(4, 8))
    assert [sorted(row.indices.tolist()) for row in new_targets(taken, known.seen)] == [[7], [], [5], []]


def test_a_sample_of_rows_has_targets_only_and_repeats_under_its_seed() -> None:
    targets = sp.csr_matrix(np.arange(40)[:, None] % 2)
    drawn = sample_rows(targets, most=5, seed=3)
    assert len(set(drawn.tolist())) == 5
    assert (drawn % 2 == 1).all()
    assert drawn.tolist() == sample_rows(targets, most=5, seed=3).tolist()
    assert sample_rows(targets, most=99, seed=3).tolist() == list(range(1, 40, 2))


@pytest.mark.parametrize(("taken_item", "chosen"), [(1, ""), (2, "half life 84 days")])
def test_each_baseline_gets_the_setting_that_was_best_on_validation(taken_item: int, chosen: str) -> None:
    """The user had item 1 three times long ago and item 2 twice of late; a list of one can hold one of them."""
    events = [(0, 1), (0, 1), (0, 1), (0, 2), (0, 2)]
    known = interactions(events, ages_days=[400, 400, 400, 1, 1])
    taken = sp.csr_matrix(([1.0], ([0], [taken_item])), shape=(4, NUM_ITEMS))
    choices = {choice.baseline.name: choice for choice in choose_baselines(known, taken, k=1, seed=0, track=no_bar)}
    assert describe(choices["own frequency"].baseline) == chosen
    assert sorted(choices["own frequency"].recall_by_parameters.values()) == [0.0, 1.0]
    # Nobody took anything new: nothing to choose by, so the first setting stands.
    assert describe(choices["RP3"].baseline) == "beta 0"


def test_one_pass_over_the_terms_ranks_as_the_score_itself_does(planted_bundle: Bundle) -> None:
    generator = np.random.default_rng(1)
    items = [sorted(generator.choice(400, size, replace=False).tolist()) for size in (0, 1, 7, 30)]
    histories = Histories.from_lists(
        items, [generator.uniform(0.2, 4, len(row)).tolist() for row in items], [[3.0] * len(row) for row in items]
    )
    statistics = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [30.0, 4.0], [2.0, 50.0]])
    seen = sp.csr_matrix((np.ones(len(histories.items)), histories.items.numpy(), histories.indptr.numpy()), (4, 400))
    model = ModelEntrant(planted_bundle.scorer, histories=histories, statistics=statistics)
    lists = rank_users([model], rows=np.arange(4), seen=seen, k=10, track=no_bar)
    on_all = top_k(planted_bundle.scorer.score(histories, statistics, include_seen=True), k=10)[0]
    on_new = top_k(planted_bundle.scorer.score(histories, statistics), k=10, histories=histories)[0]
    assert lists[ALL_ITEMS]["model"].tolist() == on_all.tolist()
    assert lists[NEW_ITEMS]["model"].tolist() == on_new.tolist()
