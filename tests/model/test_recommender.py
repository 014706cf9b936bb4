"""Item vectors from ids, content and neighbours; user vectors from histories and statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from six_items import DIM, NUM_ITEMS, SCALING, attributes, dense, item_graph, recommender, three_users

from components.model.encoders import ENCODERS
from components.model.histories import Histories
from components.model.user_vector import StatisticsScaling, UserVector

ALL = torch.ones(NUM_ITEMS, dtype=torch.bool)


def test_an_item_without_id_vector_lives_from_content_and_neighbours() -> None:
    model = recommender(num_layers=1)
    has_id_I = torch.tensor([True, True, True, True, True, False])
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(item_graph(), attributes(), has_id_I=has_id_I)
        content_ID = model.content[0].weight[attributes().codes("category")]  # type: ignore[union-attr, index]
        candle, milk = content_ID[5], model.id_tables[0][0] + content_ID[0]
        # The candle hears from the milk alone, in the second of two relations.
        gate = model.encoder.relation_gates(item_graph())["alike"]
        torch.testing.assert_close(history_ID[5], (candle + gate * milk) / 2)
        # Its id vectors do not matter ...
        model.id_tables[0][5] += 100
        model.id_tables[1][5] += 100
        again = model.item_vectors(item_graph(), attributes(), has_id_I=has_id_I)
        torch.testing.assert_close(again[0], history_ID)
        torch.testing.assert_close(again[1], target_ID)
        # ... unless it has them.
        assert not torch.allclose(model.item_vectors(item_graph(), attributes(), has_id_I=ALL)[0][5], history_ID[5])


def test_an_item_without_anything_has_the_zero_vector_and_no_nan() -> None:
    """Soap: no category, no neighbour, here no id vector either."""
    model = recommender()
    has_id_I = torch.tensor([True, True, True, True, False, True])
    history_ID, target_ID = model.item_vectors(item_graph(), attributes(), has_id_I=has_id_I)
    assert history_ID[4].tolist() == target_ID[4].tolist() == [0] * DIM


def test_targets_are_unit_vectors_of_a_table_of_their_own() -> None:
    model = recommender()
    history_ID, target_ID = model.item_vectors(item_graph(), attributes(), has_id_I=ALL)
    assert target_ID.norm(dim=1).tolist() == pytest.approx([1] * NUM_ITEMS, abs=1e-6)
    assert not torch.allclose(F.normalize(history_ID, dim=1), target_ID, atol=0.1)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("pooling", ["decayed", "attention"])
def test_over_more_items_the_network_says_the_same_of_its_own(encoder: str, pooling: str) -> None:
    own = torch.tensor([1, 2, 4, 6, 7, 8])
    model = recommender(
        encoder=encoder,
        relations=("together", "alike", "user_item"),
        layer_pooling="learnt",
        normalisation="layer",
        num_user_features=3,
        user_pooling=pooling,
    )
    wider = model.over_items(own, num_items=10)
    for table, wide in zip(model.id_tables, wider.id_tables, strict=True):
        torch.testing.assert_close(wide[own], table)
        assert wide[[0, 3, 5, 9]].tolist() == [[0] * DIM] * 4
    assert wider.user_vector.item_degree_I[own].tolist() == model.user_vector.item_degree_I.tolist()
    for name, weight in model.state_dict().items():
        if not name.startswith("id_tables.") and name != "user_vector.item_degree_I":
            torch.testing.assert_close(wider.state_dict()[name], weight)
    assert not wider.training
    histories, statistics_BF = three_users()
    moved = Histories(histories.indptr, own[histories.items], histories.weights, histories.ages_days)
    history_ID = torch.randn(10, DIM, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        wider.user_vectors(moved, statistics_BF, history_ID),
        model.user_vectors(histories, statistics_BF, history_ID[own]),
    )


def test_training_starts_at_the_given_vectors_with_a_readout_that_adds_nothing() -> None:
    model = recommender()
    given = torch.eye(NUM_ITEMS)[:, : DIM - 1]
    model.start(id_vectors=given, generator=torch.Generator().manual_seed(0))
    assert (model.id_tables[0][:, : DIM - 1] - given).abs().max() < 0.1
    histories, statistics_BF = three_users()
    history_ID = torch.eye(NUM_ITEMS, DIM)
    user_BD = model.user_vectors(histories, statistics_BF, history_ID)
    assert user_BD[1].tolist() == [0] * DIM  # neither history nor anything learnt
    degree_I = model.user_vector.item_degree_I
    bread, milk = 1 / degree_I[2].sqrt(), 0.2 * 0.5**0.5 / degree_I[0].sqrt()  # 28 of 56 days old
    expected = F.normalize(torch.stack([milk, torch.tensor(0.0), bread, torch.tensor(0.0)]), dim=0)
    torch.testing.assert_close(user_BD[0], expected)


def test_attention_starts_as_the_decayed_pooling() -> None:
    histories, statistics_BF = three_users()
    history_ID = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(0))
    vectors = []
    for pooling in ("decayed", "attention"):
        model = recommender(user_pooling=pooling)
        model.start(id_vectors=None, generator=torch.Generator().manual_seed(0))
        vectors.append(model.user_vectors(histories, statistics_BF, history_ID))
    torch.testing.assert_close(vectors[1], vectors[0])


def test_attention_over_a_history_worked_out_by_hand() -> None:
    """A view of today and three purchases of a week ago, of items at right angles."""
    vector = UserVector(num_items=2, dim=2, num_statistics=0, half_life_days=7, pooling="attention")
    vector.start(torch.Generator().manual_seed(0))
    vector.item_degree_I.fill_(1)
    with torch.no_grad():
        vector.attention.item_D.copy_(torch.tensor([0.3, -0.2]))
        vector.attention.likeness.fill_(0.5)
        vector.attention.event_3.copy_(torch.tensor([0.1, 0.4, -0.6]))
    history = Histories.from_lists([[0, 1]], [[0.2, 3.0]], [[0.0, 7.0]])
    plain = torch.tensor([0.2, 0.5])  # the purchases count 1, and are a half-life old
    likeness = F.normalize(plain, dim=0)
    logits = torch.stack(
        [
            0.3 + 0.5 * likeness[0] + 0.4 * torch.tensor(0.2).log(),
            -0.2 + 0.5 * likeness[1] + 0.1 * torch.tensor(8.0).log() + 0.4 * torch.tensor(3.0).log() - 0.6,
        ]
    )
    expected = F.normalize(plain * logits.exp(), dim=0)
    torch.testing.assert_close(vector(history, torch.zeros(1, 0), torch.eye(2))[0], expected)


def test_every_weight_of_the_attention_learns_and_none_is_moved_by_an_empty_history() -> None:
    model = recommender(user_pooling="attention")
    model.start(id_vectors=None, generator=torch.Generator().manual_seed(0))
    history_ID = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(0))
    pull_BD = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
    histories, statistics_BF = three_users()
    (model.user_vectors(histories, statistics_BF, history_ID) * pull_BD).sum().backward()
    grads = {name: weight.grad for name, weight in model.user_vector.attention.named_parameters()}
    assert set(grads) == {"item_D", "likeness", "event_3"}
    assert all(grad is not None and torch.isfinite(grad).all() and grad.any() for grad in grads.values())
    model.zero_grad()
    nobody = Histories.empty(3)
    (model.user_vectors(nobody, statistics_BF, history_ID) * pull_BD).sum().backward()
    assert not any(weight.grad is not None and weight.grad.any() for weight in model.user_vector.attention.parameters())


def test_a_popular_item_says_less_of_a_taste() -> None:
    vector = UserVector(num_items=2, dim=2, num_statistics=0, half_life_days=None)
    vector.start(torch.Generator().manual_seed(0))
    vector.item_degree_I.copy_(torch.tensor([100.0, 1.0]))
    both = Histories.from_lists([[0, 1]], [[1.0, 1.0]], [[0.0, 0.0]])
    assert vector(both, torch.zeros(1, 0), torch.eye(2)).tolist() == [pytest.approx([0.0995, 0.995], abs=1e-3)]


def test_an_unknown_statistic_is_an_average_one() -> None:
    model = recommender()
    histories, _ = three_users()
    history_ID = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(0))
    unknown = model.user_vectors(histories, torch.full((3, 2), torch.nan), history_ID)
    torch.testing.assert_close(unknown, model.user_vectors(histories, torch.zeros(3, 2), history_ID))


def test_statistics_are_standardised_over_the_known_ones_and_cut_at_five_deviations() -> None:
    raw = torch.tensor([[0.0, torch.nan], [torch.e - 1, 7.0], [torch.nan, 7.0]], dtype=torch.float64)
    scaling = StatisticsScaling.fit(("recency_days", "frequency"), raw)
    assert scaling.means == pytest.approx((0.5, 2.0794415))
    assert scaling.deviations == pytest.approx((0.5, 1e-6))
    applied = scaling.apply(torch.tensor([[0.0, torch.nan], [1e9, 7.0], [-1e9, 7.0]]))
    assert applied[:, 0].tolist() == [-1, 5, -5]
    assert torch.isnan(applied[0, 1])
    assert applied.dtype == torch.float32


def test_the_user_vector_of_a_batch_is_that_of_each_user_alone() -> None:
    model = recommender()
    histories, statistics_BF = three_users()
    history_ID = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(0))
    scaled = SCALING.apply(statistics_BF)
    together = model.user_vectors(histories, scaled, history_ID)
    for user in range(3):
        alone = model.user_vectors(histories.rows(torch.tensor([user])), scaled[user : user + 1], history_ID)
        torch.testing.assert_close(alone[0], together[user])


def test_a_relations_matrix_is_what_the_tests_take_it_for() -> None:
    assert dense(item_graph(), "together")[0].tolist() == [0, 0.75, 0.25, 0, 0, 0]
