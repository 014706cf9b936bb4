"""Propagation and growth on CUDA, where there is a device; else it prints and writes that there is none.

    python -m benchmarks.training gpu

Target: at least 60 % of the memory bandwidth in propagation. The whole recipe (Gowalla to .1830 in 10 seconds) is not
among them: `benchmarks.quality` has no choice of device.
"""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from benchmarks.machine import write_result
from benchmarks.training import growth, propagation

NO_DEVICE = "no CUDA device"
COPIED_BYTES = 1 << 30


def run(console: Console) -> dict[str, Any]:
    if not torch.cuda.is_available():
        console.print(f"{NO_DEVICE}: nothing was measured")
        result: dict[str, Any] = {"device": NO_DEVICE}
    else:
        copied = copy_bandwidth()
        measured = propagation.run(console, device="cuda")
        result = {
            "device": torch.cuda.get_device_name(),
            "copy_gb_per_second": copied,
            "propagation": measured,
            "share_of_copy_bandwidth": round(measured["ours_gb_per_second"] / copied, 3),
            "growth": growth.run(console, device="cuda"),
        }
        console.print(
            f"{result['device']}: propagation moves {result['share_of_copy_bandwidth']:.2f} of the {copied:,.0f} GB/s "
            "that a copy moves (target .6)"
        )
    write_result("training-gpu", result)
    return result


def copy_bandwidth() -> float:
    """GB a second read and written by a copy on the device."""
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    begin.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return round(20 * 2 * COPIED_BYTES / (begin.elapsed_time(end) / 1000) / 1e9, 1)
