"""A TCP relay that can be cut, in its own process: a client that waits with Python's lock held cannot stop it."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import threading
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized

OPEN = -1  # parcels left: as many as come


class Wire:
    """Relay to `target`: what a client sees when a server dies."""

    def __init__(self, target: tuple[str, int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._left = context.Value("i", OPEN)
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(target, self._left, theirs), daemon=True)
        self._process.start()
        self.endpoint = f"http://127.0.0.1:{ours.recv()}"

    def cut_after(self, parcels: int | None) -> None:
        """Pass so many more parcels of clients, then break every connection; None mends it."""
        with self._left.get_lock():
            self._left.value = OPEN if parcels is None else parcels

    def close(self) -> None:
        """End the relay."""
        self._process.kill()
        self._process.join()


def _serve(target: tuple[str, int], left: Synchronized[int], said: Connection) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    said.send(server.getsockname()[1])
    while True:
        client, _ = server.accept()
        if left.value == 0:
            client.close()
            continue
        store = socket.create_connection(target)
        for pair in ((client, store, True), (store, client, False)):
            threading.Thread(target=_relay, args=(*pair, left), daemon=True).start()


def _passes(left: Synchronized[int], counted: bool) -> bool:
    with left.get_lock():
        if left.value == 0:
            return False
        if counted and left.value > 0:
            left.value -= 1
        return True


def _relay(source: socket.socket, sink: socket.socket, counted: bool, left: Synchronized[int]) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(1 << 16)) and _passes(left, counted):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):  # the other thread may have done it
            end.shutdown(socket.SHUT_RDWR)
        end.close()
