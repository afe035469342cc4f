from __future__ import annotations

import os
import socket

from flightdeck.lab.ports import HOST, STEADY, choose, free_port, is_free, steady_port


def test_a_held_port_is_replaced_by_a_free_one_and_its_holder_is_named():
    with socket.socket() as held:
        held.bind((HOST, 0))
        held.listen()
        port = held.getsockname()[1]
        assert not is_free(port)
        chosen, said = choose({"gateway": port, "mlflow": 0})
    assert chosen["gateway"] != port
    assert len(said) == 1
    assert str(port) in said[0]
    assert "gateway" in said[0]
    assert str(os.getpid()) in said[0] or "another program" in said[0]


def test_a_port_that_another_program_holds_on_all_interfaces_is_not_free():
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        assert not is_free(held.getsockname()[1])


def test_no_two_names_get_one_port():
    port = free_port()
    chosen, _ = choose({"a": port, "b": port, "c": 0})
    assert len(set(chosen.values())) == 3
    assert chosen["a"] == port


def test_a_steady_port_is_none_that_the_system_gives_to_outgoing_connections():
    taken = {steady_port() for _ in range(5)}
    port = steady_port(taken)
    assert port not in taken
    assert STEADY[0] <= port <= STEADY[1] < 32_768
