"""The relational convolution: R-GCN (Schlichtkrull et al., ESWC 2018), dgl.nn.RelGraphConv with basis decomposition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.model.encoders.base import EncoderConfig, ItemEncoder, ItemGraph
from components.model.propagation import propagate

# Deviation of what the first basis, the identity, is not: small, so that training starts near the light convolution.
SMALL = 0.1


class RelationalEncoder(ItemEncoder):
    """h^(l+1) = σ(Σ_r g_r Â_r h^(l) W_r + h^(l) W_0 + b), W_r = Σ_k a_rk V_k, σ = tanh.

    L layers, R relations, K bases: `bases_LKDD`, `coefficients_LRK`, `self_LDD` (W_0), `bias_LD`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        layers, dim = config.num_layers, config.dim
        self.bases_LKDD = nn.Parameter(torch.zeros(layers, config.num_bases, dim, dim))
        self.coefficients_LRK = nn.Parameter(torch.zeros(layers, len(config.relations), config.num_bases))
        self.self_LDD = nn.Parameter(torch.zeros(layers, dim, dim))
        self.bias_LD = nn.Parameter(torch.zeros(layers, dim))
        self.start(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """The first basis is the identity and every relation's; the others are small and counted little."""
        dim = self.config.dim
        self.bases_LKDD.copy_(_drawn(self.bases_LKDD, generator) * SMALL * dim**-0.5)
        self.coefficients_LRK.copy_(_drawn(self.coefficients_LRK, generator) * SMALL)
        self.bases_LKDD[:, 0] = torch.eye(dim)
        self.coefficients_LRK[:, :, 0] = 1

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        weights_RDD = torch.einsum("rk,kde->rde", self.coefficients_LRK[layer], self.bases_LKDD[layer])
        total_ID = item_ID @ self.self_LDD[layer] + self.bias_LD[layer]
        for name, gate in self.gates(graph).items():
            weight_DD = weights_RDD[self.relations.index(name)]
            total_ID = total_ID + propagate(graph[name], item_ID) @ (gate * weight_DD)
        return torch.tanh(total_ID)


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal values; on the generator's device first, so that every device starts alike."""
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)
