"""An open-loop load generator: requests leave at a fixed rate whether answers come or not, so that a server that stalls
is charged for everybody who waits (coordinated omission: Tene, 2015). Plain asyncio over keep-alive connections.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONNECTIONS = 32


@dataclass(frozen=True, kw_only=True)
class Load:
    """What became of the requests; latencies run from the moment that a request was due."""

    statuses: Counter[int]
    """By status; 0: no answer."""
    latencies_ms: Sequence[float]
    seconds: float
    answer_bytes: int

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms else float("nan")


def offer(port: int, bodies: Sequence[bytes], *, rate: float, seconds: float, path: str = "/recommend") -> Load:
    """So many requests a second for so long; the bodies in turn."""
    # A collection through every module of this process takes tenths of a second, which would be charged to the server.
    gc.collect()
    gc.freeze()
    return asyncio.run(_offer(port, bodies, rate, seconds, path))


def one_by_one(port: int, bodies: Sequence[bytes], *, count: int, path: str = "/recommend") -> Load:
    """A closed loop of one caller: the next request leaves when the answer to the last is there."""
    return asyncio.run(_one_by_one(port, bodies, count, path))


class Connection:
    """One keep-alive connection to 127.0.0.1."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """-> status and answer; status 0 where none came."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            head = f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            return int(lines[0].split()[1]), await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            self.close()
            return 0, b""

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _offer(port: int, bodies: Sequence[bytes], rate: float, seconds: float, path: str) -> Load:
    free: asyncio.Queue[Connection] = asyncio.Queue()
    connections = [Connection(port, path) for _ in range(CONNECTIONS)]
    for connection in connections:
        free.put_nowait(connection)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    sizes: list[int] = []

    async def ask(body: bytes, due: float) -> None:
        connection = await free.get()
        status, answer = await connection.post(body)
        free.put_nowait(connection)
        statuses[status] += 1
        latencies.append((time.perf_counter() - due) * 1000)
        sizes.append(len(answer))

    started = time.perf_counter()
    asked = set()
    for number, body in enumerate(itertools.cycle(bodies)):
        due = started + number / rate
        if due > started + seconds:
            break
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        asked.add(asyncio.ensure_future(ask(body, due)))
    await asyncio.gather(*asked)
    took = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return Load(
        statuses=statuses, latencies_ms=latencies, seconds=took, answer_bytes=int(np.median(sizes)) if sizes else 0
    )


async def _one_by_one(port: int, bodies: Sequence[bytes], count: int, path: str) -> Load:
    connection = Connection(port, path)
    statuses: Counter[int] = Counter()
    latencies, sizes = [], []
    started = time.perf_counter()
    for body in itertools.islice(itertools.cycle(bodies), count):
        due = time.perf_counter()
        status, answer = await connection.post(body)
        latencies.append((time.perf_counter() - due) * 1000)
        statuses[status] += 1
        sizes.append(len(answer))
    connection.close()
    took = time.perf_counter() - started
    return Load(statuses=statuses, latencies_ms=latencies, seconds=took, answer_bytes=int(np.median(sizes)))
