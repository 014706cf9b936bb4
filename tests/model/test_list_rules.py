"""What a merchandiser keeps apart never stands in one list."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from components.model.ranking import NO_ITEM, top_k
from components.model.rules import RULES, ListRules, ruled_top_k

INDEX = {name: place for place, name in enumerate("abcdef")}


def rules(*pairs: str, rule: str = "never_together") -> ListRules:
    rows = [{"item_id": pair[0], "other_item_id": pair[1], "rule": rule} for pair in pairs]
    return ListRules.of(pa.Table.from_pylist(rows, RULES), INDEX)


def lists(scores: list[list[float]], apart: ListRules, *, k: int) -> list[list[int]]:
    items_Bk, _ = ruled_top_k(torch.tensor(scores), apart, k=k)
    return items_Bk.tolist()


def test_the_better_one_stays_and_the_next_best_moves_up() -> None:
    scores = [[6.0, 5, 4, 3, 2, 1], [1.0, 2, 3, 4, 5, 6]]
    assert lists(scores, rules("ab"), k=3) == [[0, 2, 3], [5, 4, 3]]
    assert lists(scores, rules("ba"), k=3) == [[0, 2, 3], [5, 4, 3]]  # the rule has no direction
    assert lists(scores, rules("ab"), k=5) == [[0, 2, 3, 4, 5], [5, 4, 3, 2, 1]]


def test_who_was_left_out_bars_nobody() -> None:
    """a bars b, so b cannot bar c."""
    assert lists([[6.0, 5, 4, 3, 2, 1]], rules("ab", "bc"), k=3) == [[0, 2, 3]]


def test_scores_go_with_their_items_and_a_short_list_is_filled_with_no_item() -> None:
    scores = torch.tensor([[6.0, 5, 4, 3, 2, 1]])
    items_Bk, values_Bk = ruled_top_k(scores, rules("ab", "ac", "ad", "ae", "af"), k=3)
    assert items_Bk.tolist() == [[0, NO_ITEM, NO_ITEM]]
    assert values_Bk.tolist() == [[6, -torch.inf, -torch.inf]]


def test_masks_hold_under_rules() -> None:
    scores = torch.tensor([[6.0, 5, 4, 3, 2, 1]])
    allowed = torch.tensor([False, True, True, True, True, True])
    items_Bk, _ = ruled_top_k(scores, rules("ab", "bc"), k=2, allowed=allowed)
    assert items_Bk.tolist() == [[1, 3]]


def test_without_rules_a_list_is_the_best_k() -> None:
    scores = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    for apart in (rules(), rules("ab", rule="always_with"), rules("az")):
        assert not apart
        assert ruled_top_k(scores, apart, k=4)[0].tolist() == top_k(scores, k=4)[0].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_no_list_ever_holds_both(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(50, 40, generator=generator)
    index = {str(item): item for item in range(40)}
    pairs = torch.randint(0, 40, (60, 2), generator=generator).tolist()
    rows = [{"item_id": str(a), "other_item_id": str(b), "rule": "never_together"} for a, b in pairs]
    apart = ListRules.of(pa.Table.from_pylist(rows, RULES), index)
    found = ruled_top_k(scores, apart, k=8)[0].tolist()
    for ranked in found:
        assert not any(a != b and a in ranked and b in ranked for a, b in pairs)
        assert len(set(ranked) - {NO_ITEM}) == len([item for item in ranked if item != NO_ITEM])
    # Whoever is missing from a list and better than its last has a better one in it that bars them.
    for row, ranked in enumerate(found):
        for item in range(40):
            if item not in ranked and scores[row, item] > scores[row, ranked[-1]]:
                barring = [other for other in apart.excluded_by[item] if other in ranked]
                assert any(scores[row, other] > scores[row, item] for other in barring)
