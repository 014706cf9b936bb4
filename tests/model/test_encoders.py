"""One suite over every encoder, pooling and normalisation; each encoder's own arithmetic by hand or against DGL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dgl
import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from six_items import DIM, NUM_ITEMS, dense, item_graph
from torch import Tensor

from components.core.errors import SettingsError
from components.model.encoders import (
    ENCODERS,
    AttentionEncoder,
    EncoderConfig,
    ItemEncoder,
    ItemGraph,
    RelationalEncoder,
    UserItemEncoder,
    WeightedEncoder,
    build_encoder,
    num_user_features,
)
from components.model.item_graph import to_torch
from components.model.propagation import Relation, SparseMatrix, TwoHop

SOAP, CANDLE = 4, 5
NAMES, POOLINGS, NORMALISATIONS = sorted(ENCODERS), ("mean", "max", "learnt"), ("none", "layer", "l2")
RELATIONS = ("together", "alike", "user_item")
# Four users: milk and butter; milk, bread and rolls; bread; nothing. Of the last nothing is known either.
HAD = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=np.float32)
FEATURES = torch.tensor([[1.0, -1.0], [0.5, 2.0], [torch.nan, 0.3], [torch.nan, torch.nan]])


@pytest.fixture
def item_ID() -> Tensor:
    return torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(1))


def had(matrix: np.ndarray = HAD, features: Tensor | None = FEATURES) -> TwoHop:
    """Users (U, I) as a relation between items."""
    gather = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    spread = matrix.T / np.maximum(matrix.T.sum(axis=1, keepdims=True), 1)
    return TwoHop(
        SparseMatrix.from_scipy(sp.csr_matrix(gather)), SparseMatrix.from_scipy(sp.csr_matrix(spread)), features
    )


def whole_graph() -> dict[str, Relation]:
    return {**item_graph(), "user_item": had()}


def encoder(name: str, **changes: Any) -> ItemEncoder:
    given: dict[str, Any] = {"relations": RELATIONS, "num_layers": 2, "num_heads": 2, "num_node_features": 2}
    return build_encoder(name, EncoderConfig(dim=DIM, **(given | changes)))


def trained(name: str, **changes: Any) -> ItemEncoder:
    """Every weight drawn, as after training."""
    built = encoder(name, **changes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
    return built.eval()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", NAMES)
class TestEveryEncoder:
    @pytest.mark.parametrize("num_layers", [0, 1, 3])
    def test_gives_one_finite_vector_an_item(
        self, name: str, pooling: str, normalisation: str, num_layers: int, item_ID: Tensor
    ) -> None:
        built = trained(name, pooling=pooling, normalisation=normalisation, num_layers=num_layers)
        out = built(item_ID, whole_graph())
        assert (out.shape, out.dtype) == ((NUM_ITEMS, DIM), torch.float32)
        assert torch.isfinite(out).all()
        assert torch.equal(out, item_ID) == (num_layers == 0)

    def test_every_weight_learns(self, name: str, pooling: str, normalisation: str, item_ID: Tensor) -> None:
        """From where training starts, not only once every weight is drawn."""
        built = encoder(name, pooling=pooling, normalisation=normalisation)
        # Everybody hears from everybody, or a maximum would pass over the one item with a choice of neighbours.
        weights = np.random.default_rng(0).random((NUM_ITEMS, NUM_ITEMS))
        everybody = SparseMatrix.from_scipy(sp.csr_matrix(weights / weights.sum(axis=1, keepdims=True)))
        pull_ID = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(2))
        (built(item_ID, {**whole_graph(), "together": everybody}) * pull_ID).sum().backward()
        assert [key for key, weight in built.named_parameters() if weight.grad is None or not weight.grad.any()] == []

    def test_the_order_of_items_does_not_matter(
        self, name: str, pooling: str, normalisation: str, item_ID: Tensor
    ) -> None:
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        built = trained(name, pooling=pooling, normalisation=normalisation)
        shuffled: dict[str, Relation] = {
            key: SparseMatrix.from_scipy(sp.csr_matrix(dense(item_graph(), key).numpy()[order][:, order]))
            for key in item_graph()
        }
        shuffled["user_item"] = had(HAD[:, order])
        torch.testing.assert_close(built(item_ID[order], shuffled), built(item_ID, whole_graph())[order])

    def test_an_isolated_item_keeps_its_own_vector(
        self, name: str, pooling: str, normalisation: str, item_ID: Tensor
    ) -> None:
        built = encoder(name, pooling=pooling, normalisation=normalisation)
        out = built(item_ID, whole_graph()).detach()
        own = F.layer_norm(item_ID, (DIM,)) if normalisation == "layer" else item_ID
        assert torch.cosine_similarity(out, own)[SOAP] == pytest.approx(1, abs=1e-6)
        assert torch.cosine_similarity(out, own)[CANDLE] < 0.999
        others = item_ID + 1
        others[SOAP] = item_ID[SOAP]
        torch.testing.assert_close(built(others, whole_graph())[SOAP].detach(), out[SOAP])

    def test_a_relation_without_an_edge_takes_no_weight(
        self, name: str, pooling: str, normalisation: str, item_ID: Tensor
    ) -> None:
        built = trained(name, pooling=pooling, normalisation=normalisation)
        nobody = had(np.zeros_like(HAD))
        with_empty = {**whole_graph(), "together": to_torch({"x": sp.csr_matrix((6, 6), dtype=np.float32)})["x"]}
        out = built(item_ID, with_empty)
        with torch.no_grad():
            built.gate_logits[0] += 5
        torch.testing.assert_close(built(item_ID, with_empty), out)
        gates = built.relation_gates(with_empty)
        assert gates["together"] == 0
        assert sum(gates.values()) == pytest.approx(1)
        assert built.relation_gates({**with_empty, "user_item": nobody})["alike"] == pytest.approx(1)
        assert torch.equal(
            built(item_ID, {**with_empty, "user_item": nobody, "alike": with_empty["together"]}), item_ID
        )

    def test_the_same_seed_gives_the_same_vectors(
        self, name: str, pooling: str, normalisation: str, item_ID: Tensor
    ) -> None:
        def once() -> Tensor:
            torch.manual_seed(3)
            built = encoder(name, pooling=pooling, normalisation=normalisation, dropout=0.5)
            built.start(torch.Generator().manual_seed(4))
            out: Tensor = built(item_ID, whole_graph())
            return out

        assert torch.equal(once(), once())

    def test_dropout_is_of_training_alone(self, name: str, pooling: str, normalisation: str, item_ID: Tensor) -> None:
        torch.manual_seed(0)
        built = trained(name, pooling=pooling, normalisation=normalisation, dropout=0.5)
        without = build_encoder(name, replace(built.config, dropout=0.0)).eval()
        without.load_state_dict(built.state_dict())
        assert torch.equal(built(item_ID, whole_graph()), without(item_ID, whole_graph()))
        assert not torch.equal(built.train()(item_ID, whole_graph()), without(item_ID, whole_graph()))


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"user_item"}))
def test_an_item_hears_from_its_neighbours_and_from_nobody_else(name: str, item_ID: Tensor) -> None:
    one_layer = trained(name, num_layers=1, relations=("together", "alike"))
    before = one_layer(item_ID, item_graph())
    changed = item_ID.clone()
    changed[1] += 1  # the milk alone hears from the butter
    moved = (one_layer(changed, item_graph()) - before).abs().sum(dim=1) > 1e-6
    assert torch.nonzero(moved).ravel().tolist() == [0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_gates_say_what_each_relation_counts(name: str) -> None:
    built = encoder(name)
    assert built.relation_gates(whole_graph()) == pytest.approx(dict.fromkeys(RELATIONS, 1 / 3))
    with torch.no_grad():
        built.gate_logits[0] = np.log(3)
    assert built.relation_gates(whole_graph()) == pytest.approx({"together": 0.6, "alike": 0.2, "user_item": 0.2})


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"user_item"}))
def test_without_relations_an_item_is_what_it_is(name: str, item_ID: Tensor) -> None:
    assert torch.equal(encoder(name, relations=())(item_ID, {}), item_ID)


def test_layers_are_pooled_by_mean_maximum_or_a_learnt_share(item_ID: Tensor) -> None:
    graph = item_graph()
    milk = item_ID[0], dense(graph, "together")[0] @ item_ID

    def pooled(pooling: str, **weights: Tensor) -> Tensor:
        light = encoder("light", relations=("together",), num_layers=1, pooling=pooling)
        light.load_state_dict(light.state_dict() | weights)
        out: Tensor = light(item_ID, graph)
        return out[0]

    torch.testing.assert_close(pooled("mean"), (milk[0] + milk[1]) / 2)
    torch.testing.assert_close(pooled("max"), torch.maximum(*milk))
    torch.testing.assert_close(pooled("learnt"), (milk[0] + milk[1]) / 2)
    logits = torch.tensor([0.0, np.log(3)])
    torch.testing.assert_close(pooled("learnt", layer_logits=logits), 0.25 * milk[0] + 0.75 * milk[1])


def test_normalisation_is_of_every_layer_the_input_included(item_ID: Tensor) -> None:
    graph = item_graph()
    heard_ID = dense(graph, "together") @ F.normalize(item_ID, dim=1)
    light = encoder("light", relations=("together",), num_layers=1, normalisation="l2")
    expected = (F.normalize(item_ID, dim=1) + F.normalize(heard_ID, dim=1)) / 2
    torch.testing.assert_close(light(item_ID, graph), expected)


def test_the_light_convolution_worked_out_by_hand() -> None:
    """Items a, b, c of one number each; a hears from b (¾) and c (¼), b from a, c from nobody."""
    graph = to_torch({"together": sp.csr_matrix([[0, 0.75, 0.25], [1, 0, 0], [0, 0, 0]], dtype=np.float32)})
    light = build_encoder("light", EncoderConfig(relations=("together",), dim=1, num_layers=2))
    out = light(torch.tensor([[4.0], [8.0], [12.0]]), graph)
    # layer 1: 9, 4, 0; layer 2: 3, 9, 0
    assert out.ravel().tolist() == pytest.approx([16 / 3, 21 / 3, 4])


def test_relations_add_up_by_their_gates(item_ID: Tensor) -> None:
    light = encoder("light", num_layers=1, relations=("together", "alike"))
    with torch.no_grad():
        light.gate_logits[0] = np.log(3)
    graph = item_graph()
    expected = (item_ID + (0.75 * dense(graph, "together") + 0.25 * dense(graph, "alike")) @ item_ID) / 2
    torch.testing.assert_close(light(item_ID, graph), expected)


EDGES = torch.tensor([1, 2, 3, 0, 2, 0, 5]), torch.tensor([0, 0, 0, 1, 3, 5, 2])  # source, target


def mean_of_neighbours(source: Tensor, target: Tensor) -> SparseMatrix:
    share = 1 / np.bincount(target, minlength=NUM_ITEMS)[target]
    return SparseMatrix.from_scipy(
        sp.csr_matrix((share, (target.numpy(), source.numpy())), shape=(NUM_ITEMS, NUM_ITEMS))
    )


def test_the_weighted_encoder_is_dgls_graph_convolution_with_right_norm(item_ID: Tensor) -> None:
    convolution = dgl.nn.GraphConv(DIM, DIM, norm="right", activation=torch.tanh, allow_zero_in_degree=True)
    torch.nn.init.normal_(convolution.bias)
    expected = convolution(dgl.graph(EDGES, num_nodes=NUM_ITEMS), item_ID)

    weighted = encoder("weighted", num_layers=1, relations=("together",))
    assert isinstance(weighted, WeightedEncoder)
    linear = weighted.layers[0]
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.T)
        linear.bias.copy_(convolution.bias)
    graph: ItemGraph = {"together": mean_of_neighbours(*EDGES)}
    torch.testing.assert_close(weighted.convolve(item_ID, graph, layer=0), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weighted(item_ID, graph), (item_ID + expected) / 2, atol=1e-6, rtol=0)


def test_the_relational_encoder_is_dgls_relational_convolution_with_bases(item_ID: Tensor) -> None:
    torch.manual_seed(0)
    other = torch.tensor([4, 3, 1]), torch.tensor([0, 2, 2])
    kind_E = torch.tensor([0] * len(EDGES[0]) + [1] * len(other[0]))
    graph: ItemGraph = {"together": mean_of_neighbours(*EDGES), "alike": mean_of_neighbours(*other)}
    in_degree_E = torch.cat([torch.bincount(target, minlength=NUM_ITEMS)[target] for _, target in (EDGES, other)])
    both = dgl.graph((torch.cat([EDGES[0], other[0]]), torch.cat([EDGES[1], other[1]])), num_nodes=NUM_ITEMS)
    convolution = dgl.nn.RelGraphConv(DIM, DIM, 2, regularizer="basis", num_bases=3, activation=torch.tanh)
    torch.nn.init.normal_(convolution.h_bias)
    expected = convolution(both, item_ID, kind_E, norm=1 / in_degree_E[:, None])

    relational = encoder("relational", num_layers=1, relations=("together", "alike"), num_bases=3)
    assert isinstance(relational, RelationalEncoder)
    with torch.no_grad():
        relational.bases_LKDD[0] = convolution.linear_r.W
        relational.coefficients_LRK[0] = 2 * convolution.linear_r.coeff  # the gates are ½ each
        relational.self_LDD[0] = convolution.loop_weight
        relational.bias_LD[0] = convolution.h_bias
    torch.testing.assert_close(relational.convolve(item_ID, graph, layer=0), expected, atol=1e-6, rtol=0)


def test_attention_worked_out_over_dense_matrices(item_ID: Tensor) -> None:
    attention = trained("attention", num_layers=1, relations=("together", "alike"))
    assert isinstance(attention, AttentionEncoder)
    graph = item_graph()
    gates = attention.relation_gates(graph)
    query_ID, key_ID = attention.queries[0](item_ID), attention.keys[0](item_ID)
    expected = torch.zeros(NUM_ITEMS, DIM)
    for place, name in enumerate(("together", "alike")):
        weight_II = dense(graph, name)
        for head, part in enumerate((slice(0, 2), slice(2, 4))):
            cosine_II = F.normalize(query_ID[:, part], dim=1) @ F.normalize(key_ID[:, part], dim=1).T
            raised_II = weight_II * torch.exp(attention.sharpness_LRH[0, place, head] * cosine_II)
            alpha_II = raised_II / raised_II.sum(dim=1, keepdim=True).clamp(min=1e-9)
            expected[:, part] += gates[name] * (alpha_II @ item_ID[:, part])
    torch.testing.assert_close(attention.convolve(item_ID, graph, layer=0), expected)


def test_attention_that_sees_no_difference_is_the_light_convolution(item_ID: Tensor) -> None:
    attention = encoder("attention")
    assert isinstance(attention, AttentionEncoder)
    with torch.no_grad():
        attention.sharpness_LRH.zero_()
    torch.testing.assert_close(attention(item_ID, whole_graph()), encoder("light")(item_ID, whole_graph()))


def test_heads_that_do_not_divide_a_vector_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"train\.attention_heads is 3, which does not divide .* 4"):
        encoder("attention", num_heads=3)


def test_users_and_their_features_are_among_the_nodes(item_ID: Tensor) -> None:
    built = trained("user_item", num_layers=1)
    assert isinstance(built, UserItemEncoder)
    graph = whole_graph()
    gates = built.relation_gates(graph)
    features_UD = torch.nan_to_num(FEATURES) @ built.features_LFD[0]
    gather, spread = (torch.from_numpy(one / np.maximum(one.sum(axis=1, keepdims=True), 1)) for one in (HAD, HAD.T))
    user_UD = torch.tanh(built.layers[0](gather @ item_ID + features_UD))
    expected = gates["user_item"] * spread @ user_UD
    expected += sum(gates[name] * dense(graph, name) @ item_ID for name in ("together", "alike"))
    torch.testing.assert_close(built.convolve(item_ID, graph, layer=0), expected)
    # Whoever had the bread alone is known a little better: the bread hears of it, and those who met it through bread.
    known = FEATURES.clone()
    known[2] = torch.tensor([3.0, 3.0])
    moved = built.convolve(item_ID, {**graph, "user_item": had(features=known)}, layer=0) - expected
    assert torch.nonzero(moved.abs().sum(dim=1) > 1e-6).ravel().tolist() == [2]


def test_users_without_features_still_pass_on_what_they_had(item_ID: Tensor) -> None:
    built = encoder("user_item", num_node_features=0)
    assert [name for name, _ in built.named_parameters() if "features" in name] == []
    graph = {**item_graph(), "user_item": had(features=None)}
    assert (num_user_features(graph), num_user_features(whole_graph()), num_user_features(item_graph())) == (0, 2, 0)
    small_ID = item_ID * 1e-3  # where tanh is the identity
    torch.testing.assert_close(built(small_ID, graph), encoder("light")(small_ID, graph), atol=1e-8, rtol=1e-4)


def test_user_item_says_which_relation_it_lacks() -> None:
    with pytest.raises(SettingsError, match=r"graph\.relations names no 'user_item'\. Add it there"):
        encoder("user_item", relations=("together",))


def test_an_unknown_encoder_names_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"train\.encoder is 'heavy'; known: attention, light, relational, user_item"
    ):
        encoder("heavy")
