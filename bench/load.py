"""Asks a server on this machine again and again, on so many connections that it keeps: ``python -m bench.load``.

It answers each line of JSON, such as ``{"port": 5000, "path": "/", "headers": {}, "connections": 16, "seconds": 3}``,
with what it found. A process of its own, which looks at no more of a reply than it must: what it needs of the processor
the server has not.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until = request, until
        self._received, self._length, self._asked_at = b"", -1, 0.0
        self.times: list[float] = []
        self.head, self._chunked = b"", False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._received, self._length, self._asked_at = b"", -1, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._length < 0 and (end := self._received.find(b"\r\n\r\n") + 4) >= 4:
            self.head = self._received[:end]
            self._chunked = _header(self.head, b"transfer-encoding") == b"chunked"
            self._length = end + int(_header(self.head, b"content-length") or 0)
        if 0 <= self._length <= len(self._received) and (not self._chunked or self._received.endswith(b"0\r\n\r\n")):
            self.times.append(time.perf_counter() - self._asked_at)
            if self.head[9:12] not in (b"200", b"304"):
                self._end(ValueError(self.head.decode("latin-1")))
            elif time.perf_counter() > self._until:
                self._end(None)
            else:
                self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
            self._transport.close()


def _header(head: bytes, name: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return next((value.strip() for found, _, value in lines if found.lower() == name), b"")


async def _load(port: int, path: str, headers: Mapping[str, str], connections: int, seconds: float) -> dict[str, Any]:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    request = "\r\n".join([*lines, "", ""]).encode()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Connection(request, started + seconds), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(one.done for one in made))
    times = [one_time for one in made for one_time in one.times]
    return {
        "requests": len(times),
        "seconds": time.perf_counter() - started,
        "p95": statistics.quantiles(times, n=20)[-1],
        "status": int(made[0].head[9:12]),
        "etag": _header(made[0].head, b"etag").decode("latin-1"),
        "size": int(_header(made[0].head, b"content-length") or 0),
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_load(**json.loads(line)))), flush=True)
