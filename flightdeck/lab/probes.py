"""Adapter: is it well? Each probe answers None or what is wrong, within a second."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path

from flightdeck.lab.ports import HOST

TIMEOUT_S = 1.0


def http_ok(port: int, path: str) -> Callable[[], str | None]:
    """Healthy when GET `path` answers 200."""

    def probe() -> str | None:
        connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status == 200:
                return None
            return f"GET {path} answered {answer.status} {answer.read(200).decode(errors='replace')!r}"
        except (OSError, http.client.HTTPException) as error:
            return f"GET {path} on port {port}: {error or type(error).__name__}"
        finally:
            connection.close()

    return probe


def redis_pong(port: int) -> Callable[[], str | None]:
    """Healthy when PING answers PONG; a Redis that still reads its append-only file answers LOADING."""

    def probe() -> str | None:
        try:
            with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(200)
        except OSError as error:
            return f"PING on port {port}: {error}"
        return None if answer.startswith(b"+PONG") else f"PING answered {answer!r}"

    return probe


def touched(path: Path, within_s: float) -> Callable[[], str | None]:
    """Healthy when the process touched the file `path` not long ago."""

    def probe() -> str | None:
        try:
            age_s = time.time() - path.stat().st_mtime
        except OSError:
            return f"{path.name} is not there yet"
        return None if age_s < within_s else f"{path.name} was not touched for {age_s:.0f} s"

    return probe
