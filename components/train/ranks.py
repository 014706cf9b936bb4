"""Several processes as one training: torchrun starts them, each takes its share of every batch's users.

    torchrun --nproc-per-node 2 -m components.train

Each process holds the whole model and draws the same random numbers; gradients are summed before a step, so that N
processes follow the path of one with the same batch. Rank 0 alone validates, keeps checkpoints, tracks and writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among `size`."""

    rank: int
    size: int

    @classmethod
    def here(cls) -> Ranks:
        """One of one, unless `joined` is around."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` users; over all ranks each stands once."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, value: Tensor) -> Tensor:
        """Over all ranks, equal to the last bit on each."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over ranks; a parameter that no rank had one for keeps none."""
        if self.size == 1:
            return
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        device = wanted[0].device
        has_gradient = torch.tensor([float(parameter.grad is not None) for parameter in wanted], device=device)
        dist.all_reduce(has_gradient)
        for parameter, ranks_with_one in zip(wanted, has_gradient.tolist(), strict=True):
            if ranks_with_one:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def told(self, message: Any, device: torch.device) -> Any:
        """Rank 0's JSON-able message, on every rank."""
        if self.size == 1:
            return message
        data = json.dumps(message).encode() if self.is_first else b""
        length = torch.tensor([len(data)], device=device)
        dist.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.is_first:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, src=0)
        return json.loads(bytes(content.cpu().tolist()))

    def given(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Rank 0's tensors, on every rank, on the CPU."""
        if self.size == 1:
            return dict(tensors)
        described = {name: (str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in tensors.items()}
        out = {}
        for name, (dtype, shape) in self.told(described, device).items():
            kept = tensors[name] if self.is_first else torch.empty(shape, dtype=getattr(torch, dtype))
            moved = kept.to(device).contiguous()
            dist.broadcast(moved, src=0)
            out[name] = moved.cpu()
        return out


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did; gloo on the CPU, NCCL on GPUs."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Ranks(0, 1)
        return
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(dist.get_node_local_rank(fallback_rank=0) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo")
    try:
        yield Ranks.here()
    finally:
        dist.destroy_process_group()
