"""Entry point of the image: `python -m services.predictor` serves the service of service.py in this one process.

`bentoml serve` starts a supervisor that imports and checks everything, and a worker that does it again: twice the CPU
until ready and twice the memory, for a worker that in a container only the kubelet may replace. `to_asgi` is BentoML's
public way to hand its application to another server.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Any

import uvicorn

from services.predictor.service import Predictor, prepare

LONGEST_IDLE_S = 75  # a connection closed while the gateway sends on it costs a retry: close few


def main() -> None:
    """Serve until SIGTERM; the drain before it closes is the service's own."""
    arguments = argparse.ArgumentParser(prog="python -m services.predictor", description="Serve one model version.")
    arguments.add_argument("--host", default="0.0.0.0")  # noqa: S104  a pod's network is its own
    arguments.add_argument("--port", type=int, default=3000)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # started, finished
    prepare()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(0)
    )  # before uvicorn's own, and after it: it raises the signal again
    service: Any = Predictor  # BentoML's decorator makes a service of the class
    uvicorn.run(
        service.to_asgi(),
        host=chosen.host,
        port=chosen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=LONGEST_IDLE_S,
    )


if __name__ == "__main__":
    main()
