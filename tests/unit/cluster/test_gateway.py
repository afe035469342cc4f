"""Where users reach the Gateway, by what the cluster says of its Service."""

from __future__ import annotations

from typing import Any

import pytest

from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.gateway import node_port, url_of


def service(*, node: int | None = None, ingress: list[dict[str, str]] | None = None) -> dict[str, Any]:
    port = {"port": 80} | ({"nodePort": node} if node else {})
    return {"spec": {"ports": [{"port": 19001}, port]}, "status": {"loadBalancer": {"ingress": ingress}}}


NODES = [
    {"status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.7"}]}}
]


@pytest.mark.parametrize(
    ("found", "url"),
    [
        (service(ingress=[{"ip": "203.0.113.7"}], node=30080), "http://203.0.113.7"),
        (service(ingress=[{"hostname": "lb.example.org"}]), "http://lb.example.org"),
        (service(node=30080), "http://10.0.0.7:30080"),
    ],
)
def test_a_load_balancer_comes_before_a_port_of_a_node(found: dict[str, Any], url: str):
    assert url_of(found, NODES) == url


def test_without_either_it_says_what_to_look_for():
    assert node_port(service()) is None
    with pytest.raises(CommandFailed, match="no address yet"):
        url_of(service(), NODES)
