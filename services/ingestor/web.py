"""The ingestor's page for Prometheus and the kubelet, in a thread of its own."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.ingestor.metrics import Metrics

STUCK_S = 60.0  # the loop's longest silence: a server that is away is asked again within seconds


def serve(metrics: Metrics, port: int) -> ThreadingHTTPServer:
    """Answer `/metrics`, `/healthz` (the loop turns) and `/readyz` (and the streams server answers)."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            alive = time.monotonic() - metrics.beat_s < STUCK_S
            answers = {
                "/metrics": (200, metrics.text),
                "/healthz": (200 if alive else 503, lambda: b"ok\n" if alive else b"the loop stands still\n"),
                "/readyz": (
                    200 if alive and metrics.streams_up else 503,
                    lambda: b"ok\n",
                ),
            }
            status, body = answers.get(self.path, (404, lambda: b"not found\n"))
            content = body()
            self.send_response(status)
            self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """A probe is no news."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Page)  # noqa: S104  a pod's network is its own
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    return server
