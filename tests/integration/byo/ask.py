"""Runs in a process of its own: the predictor's ASGI application, asked the requests on standard input.

Reads JSON lines `[method, path, body]`, prints one JSON line `[status, body]` for each, then the loaded modules.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx

from services.predictor.app import Routes
from services.predictor.runtime import Runtime
from services.predictor.settings import PredictorSettings


async def main() -> None:
    runtime = Runtime(PredictorSettings())
    await runtime.start()
    transport = httpx.ASGITransport(app=Routes(None, runtime=runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://predictor") as client:
        for line in sys.stdin:
            method, path, body = json.loads(line)
            answer = await client.request(method, path, json=body)
            print(json.dumps([answer.status_code, answer.json()]))
    await runtime.stop()
    print(json.dumps({name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}))


if __name__ == "__main__":
    asyncio.run(main())
