"""One suite over every encoder; the light one by hand, the weighted one against DGL's graph convolution."""

from __future__ import annotations

import dgl
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from six_items import DIM, NUM_ITEMS, dense, item_graph
from torch import Tensor

from components.core.errors import SettingsError
from components.model.encoders import ENCODERS, ItemEncoder, WeightedEncoder, build_encoder
from components.model.item_graph import to_torch

SOAP, CANDLE = 4, 5


@pytest.fixture
def item_ID() -> Tensor:
    return torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(1))


def encoder(name: str, *, num_layers: int = 2, relations: tuple[str, ...] = ("together", "alike")) -> ItemEncoder:
    return build_encoder(name, relations=relations, dim=DIM, num_layers=num_layers)


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_an_encoder_gives_one_finite_vector_an_item(name: str, num_layers: int, item_ID: Tensor) -> None:
    out = encoder(name, num_layers=num_layers)(item_ID, item_graph())
    assert out.shape == (NUM_ITEMS, DIM)
    assert torch.isfinite(out).all()
    if num_layers == 0:
        assert torch.equal(out, item_ID)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_isolated_item_keeps_the_direction_of_its_own_vector(name: str, item_ID: Tensor) -> None:
    out = encoder(name)(item_ID, item_graph())
    cosine_I = torch.cosine_similarity(out, item_ID).detach()
    assert cosine_I[SOAP] == pytest.approx(1, abs=1e-6)
    assert cosine_I[CANDLE] < 0.999


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_item_hears_from_its_neighbours_and_from_nobody_else(name: str, item_ID: Tensor) -> None:
    one_layer = encoder(name, num_layers=1)
    before = one_layer(item_ID, item_graph())
    changed = item_ID.clone()
    changed[1] += 1  # the milk alone hears from the butter
    moved = (one_layer(changed, item_graph()) - before).abs().sum(dim=1) > 1e-6
    assert torch.nonzero(moved).ravel().tolist() == [0, 1]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_weight_of_an_encoder_learns(name: str, item_ID: Tensor) -> None:
    built = encoder(name)
    (built(item_ID, item_graph()) ** 2).sum().backward()
    assert [key for key, weight in built.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_gates_say_what_each_relation_counts(name: str) -> None:
    built = encoder(name)
    assert built.relation_gates() == {"together": 0.5, "alike": 0.5}
    with torch.no_grad():
        built.gate_logits[0] = np.log(3)
    assert built.relation_gates() == pytest.approx({"together": 0.75, "alike": 0.25})


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_without_relations_an_item_is_what_it_is(name: str, item_ID: Tensor) -> None:
    assert torch.equal(encoder(name, relations=())(item_ID, {}), item_ID)


def test_the_light_convolution_worked_out_by_hand() -> None:
    """Items a, b, c of one number each; a hears from b (¾) and c (¼), b from a, c from nobody."""
    graph = to_torch({"together": sp.csr_matrix([[0, 0.75, 0.25], [1, 0, 0], [0, 0, 0]], dtype=np.float32)})
    light = build_encoder("light", relations=("together",), dim=1, num_layers=2)
    out = light(torch.tensor([[4.0], [8.0], [12.0]]), graph)
    # layer 1: 9, 4, 0; layer 2: 3, 9, 0
    assert out.ravel().tolist() == pytest.approx([16 / 3, 21 / 3, 4])


def test_relations_add_up_by_their_gates(item_ID: Tensor) -> None:
    light = encoder("light", num_layers=1)
    with torch.no_grad():
        light.gate_logits[0] = np.log(3)
    graph = item_graph()
    expected = (item_ID + (0.75 * dense(graph, "together") + 0.25 * dense(graph, "alike")) @ item_ID) / 2
    torch.testing.assert_close(light(item_ID, graph), expected)


def test_the_weighted_encoder_is_dgls_graph_convolution_with_right_norm(item_ID: Tensor) -> None:
    source, target = torch.tensor([1, 2, 3, 0, 2, 0, 5]), torch.tensor([0, 0, 0, 1, 3, 5, 2])
    convolution = dgl.nn.GraphConv(DIM, DIM, norm="right", activation=torch.tanh, allow_zero_in_degree=True)
    torch.nn.init.normal_(convolution.bias)
    expected = convolution(dgl.graph((source, target), num_nodes=NUM_ITEMS), item_ID)

    share = 1 / np.bincount(target, minlength=NUM_ITEMS)[target]
    matrix = sp.csr_matrix((share, (target.numpy(), source.numpy())), shape=(NUM_ITEMS, NUM_ITEMS))
    weighted = encoder("weighted", num_layers=1, relations=("together",))
    assert isinstance(weighted, WeightedEncoder)
    linear = weighted.layers[0]
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.T)
        linear.bias.copy_(convolution.bias)
    graph = to_torch({"together": matrix})
    torch.testing.assert_close(weighted.convolve(item_ID, graph, layer=0), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weighted(item_ID, graph), (item_ID + expected) / 2, atol=1e-6, rtol=0)


def test_an_unknown_encoder_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"train\.encoder is 'heavy'; known: light, weighted"):
        encoder("heavy")
