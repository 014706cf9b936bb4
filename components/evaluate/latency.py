"""What one request costs with one bundle beside another, measured in this process, in turns.

CPU time of the thread, not time on the wall: it does not move with what else the machine does. What a request costs in
the service, with its network and its reasons, is measured there; this is the part that a bundle decides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from components.evaluate.contest import one_thread
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.rules import ruled_top_k

PERCENTILE = 0.99
_WARM_UP = 10


def request_latency(
    bundles: Sequence[Bundle], *, histories: Sequence[Histories], requests: int, k: int, seed: int
) -> list[float]:
    """99th percentile, in seconds, of a request for one user to each bundle: score all items, list the k best.

    Args:
        histories: one a bundle, over its own items; the same users in the same order.
        requests: how many each is asked, for users drawn with replacement. Who is asked first alternates.
    """
    num_users = len(histories[0])
    if not num_users:
        return [float("nan")] * len(bundles)
    drawn = np.random.default_rng(seed).integers(num_users, size=_WARM_UP + requests)
    seconds = np.empty((len(drawn), len(bundles)))
    with one_thread():
        for number, user in enumerate(drawn.tolist()):
            for place in range(len(bundles)):
                one = (place + number) % len(bundles)
                history = histories[one].rows(torch.tensor([user]))
                seconds[number, one] = _ask(bundles[one], history, k=k)
    return [float(value) for value in np.quantile(seconds[_WARM_UP:], PERCENTILE, axis=0)]


def _ask(bundle: Bundle, history: Histories, *, k: int) -> float:
    statistics = torch.full((1, len(bundle.statistics_names)), torch.nan)
    started = time.thread_time()
    scores = bundle.scorer.score(history, statistics)
    ruled_top_k(scores, bundle.rules, k=k, histories=history)
    return time.thread_time() - started
