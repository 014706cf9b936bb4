"""The load generator counts what it claims to, and the bare handler's arithmetic is the score's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_score import NO_STATISTICS, random_history, random_scorer

from benchmarks.serving.bare import Dense
from benchmarks.serving.load import offer, one_by_one
from benchmarks.serving.servers import free_port
from components.model.ranking import top_k


@contextmanager
def answering(status: int, *, seconds: float = 0.0) -> Iterator[int]:
    """A server of one answer, a thread a connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65_536):
                time.sleep(seconds)
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nfine".encode())

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_every_request_of_the_rate_is_offered_and_answered() -> None:
    with answering(200) as port:
        load = offer(port, [b"a", b"b"], rate=50, seconds=0.5)
    assert load.statuses == {200: 26}
    assert (load.failed, load.answer_bytes, len(load.latencies_ms)) == (0, 4, 26)


def test_a_refusal_is_a_failure_and_so_is_no_answer() -> None:
    with answering(503) as port:
        assert one_by_one(port, [b"a"], count=3).failed == 3
    assert one_by_one(free_port(), [b"a"], count=2).statuses == {0: 2}


def test_who_waits_behind_a_slow_answer_is_charged_for_it() -> None:
    with answering(200, seconds=0.2) as port:
        load = offer(port, [b"a"], rate=320, seconds=0.5)  # ten times what 32 connections of 0.2 s can do at a time
    assert load.percentile(99) > 300, "a closed loop would say 200"


@pytest.mark.parametrize("length", [0, 40])
def test_the_bare_handlers_list_is_the_scores_list(length: int) -> None:
    scorer, history = random_scorer(3), random_history(3, length=length)
    bare = Dense(SimpleNamespace(scorer=scorer))
    with torch.inference_mode():
        items, scores = bare(history, NO_STATISTICS, 20)
    expected, values = top_k(scorer.score(history, NO_STATISTICS), k=20, histories=history)
    assert items.tolist() == expected[0].tolist()
    assert np.allclose(scores, values[0].numpy(), atol=1e-4)
