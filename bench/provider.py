"""A provider that costs the machine next to nothing: fixed replies, after 200 ms. ``python -m bench.provider PORT``.

The sandbox works out each account's year and takes milliseconds of processor for a reply; with a thousand accounts it
would be what is measured. Here every account has the same 150 rows, three API keys, and nothing new since.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

LATENCY = 0.2
KEYS = 3
ROWS = 150


def _replies() -> dict[str, bytes]:
    today = datetime.now(UTC).date()
    rows = [
        {
            "date": f"{today - timedelta(days=1 + number % 30)} 00:00:00",
            "model_permaslug": f"vendor/model-{number // 30}",
            "endpoint_id": f"703f11d6-5f20-473e-b2ba-{number // 30:012x}",
            "usage": 0.0125,
            "byok_usage_inference": 0,
            "requests": 10 + number,
            "prompt_tokens": 1000 + number,
            "completion_tokens": 100,
            "reasoning_tokens": 0,
            "byok_requests": 0,
            "cached_tokens": 0,
            "model": f"vendor/model-{number // 30}",
            "provider_name": "Host",
        }
        for number in range(ROWS)
    ]
    days = sorted({row["date"] for row in rows})
    totals = [
        {"date__day": f"{day[:10]}T00:00:00.000Z", "credits_usage": 0.0625, "byok_usage": 0, "total_usage": 0.0625}
        for day in days
    ]
    keys = [
        {
            "hash": f"{number:064x}",
            "name": f"Key {number}",
            "disabled": False,
            "usage": 1,
            "byok_usage": 0,
            "last_used_at": days[0],
        }
        for number in range(KEYS)
    ]
    names = ("total_usage", "credits_usage", "byok_usage", "request_count", "tokens_prompt", "tokens_completion")
    meta = {
        "metrics": [{"name": name} for name in names],
        "dimensions": [{"name": "model"}],
        "granularities": [{"name": "day"}],
    }
    query = {"data": totals, "metadata": {"truncated": False, "row_count": len(totals), "query_time_ms": 1}}
    replies = {
        "/auth/key": {"label": "bench", "is_management_key": True},
        "/activity": rows,
        "/activity?api_key_hash": [row for row in rows if str(row["model_permaslug"]).endswith("-0")],
        "/credits": {"total_credits": 100, "total_usage": 1.875},
        "/keys": keys,
        "/workspaces": [{"id": "11111111-1111-1111-1111-111111111111"}],
        "/analytics/meta": meta,
        "/analytics/query": query,
    }
    return {path: json.dumps({"data": data}).encode() for path, data in replies.items()}


REPLIES = _replies()
count = 0


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    global count
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0)
            await reader.readexactly(length)
            parts = urlsplit(lines[0].split()[1])
            path = parts.path.removeprefix("/api/v1")
            body = str(count).encode() if path == "/count" else None
            if body is None:
                count += 1
                await asyncio.sleep(LATENCY)
                query = parse_qs(parts.query)
                body = REPLIES[path + ("?api_key_hash" if "api_key_hash" in query else "")]
                if query.get("offset", ["0"]) != ["0"]:
                    body = b'{"data": []}'
            date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
            headers = f"Date: {date}", "Content-Type: application/json", f"Content-Length: {len(body)}"
            writer.write("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1000)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
