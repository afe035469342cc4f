"""Adapter: ports on the loopback interface, and who holds one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

import psutil

HOST = "127.0.0.1"

# Where people look first; another free port is taken, and said, when one of these is held.
PREFERRED = {
    "gateway": 8080,
    "gateway-admin": 9901,
    "mlflow": 5500,  # not 5000: macOS holds that for AirPlay
    "redis-online": 6390,
    "redis-streams": 6391,
    "predictor-1": 8101,
    "predictor-2": 8102,
    "predictor-3": 8103,
}

STEADY = (20_000, 32_000)  # Linux takes ports for outgoing connections from 32768 on, macOS from 49152


def is_free(port: int) -> bool:
    """Whether nothing listens on `port` of the loopback interface or of all interfaces."""
    for host in (HOST, "0.0.0.0"):  # noqa: S104 - bound for a moment, never listened on
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) != 0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def steady_port(taken: Iterable[int] = ()) -> int:
    """A free port that the system hands to no outgoing connection, for a process that may be started anew on it.

    At random, so that two labs that choose at the same time hardly choose the same.

    Raises:
        OSError: none of many was free.
    """
    avoided = set(taken)
    for _ in range(200):
        port = random.randint(*STEADY)  # noqa: S311 - no secret
        if port not in avoided and is_free(port):
            return port
    raise OSError(f"no free port among 200 tried between {STEADY[0]} and {STEADY[1]}")


def holder(port: int) -> str:
    """Who listens on `port`, as far as this user may see."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass  # macOS shows other users' sockets to root only
    return "another program"


def choose(preferred: dict[str, int] | None = None) -> tuple[dict[str, int], list[str]]:
    """A free port for each name, and a sentence for each that is not the preferred one."""
    chosen: dict[str, int] = {}
    said = []
    for name, port in (PREFERRED if preferred is None else preferred).items():
        if port and port not in chosen.values() and is_free(port):
            chosen[name] = port
            continue
        other = free_port()
        while other in chosen.values():
            other = free_port()
        chosen[name] = other
        if port:
            said.append(f"port {port} for {name} is held by {holder(port)}; using {other}")
    return chosen, said
