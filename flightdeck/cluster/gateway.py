"""Adapter: Gateway API and Envoy Gateway, installed by Helm where they are missing; whoever has them keeps theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from flightdeck.cluster.commands import CommandFailed, Kubectl, run
from flightdeck.cluster.names import GATEWAY_NAMESPACE, SERVING

CHART, VERSION = "oci://docker.io/envoyproxy/gateway-helm", "v1.9.1"
CHART_ENV = "GATEWAY_CHART"  # a folder with the chart instead
RELEASE = "eg"


def ensure_gateway(kubectl: Kubectl, tell: Callable[[str], None]) -> bool:
    """Install Envoy Gateway unless its CRDs and controller are there; returns whether it was installed now.

    Raises:
        CommandFailed: Helm fails, or the controller does not become ready.
    """
    there = kubectl.find("crd", "envoyproxies.gateway.envoyproxy.io") is not None
    if there and kubectl.find("deployment", "envoy-gateway", GATEWAY_NAMESPACE) is not None:
        return False
    chart = os.environ.get(CHART_ENV) or CHART
    version = () if os.environ.get(CHART_ENV) else ("--version", VERSION)
    tell("install Envoy Gateway")
    run(
        (
            "helm", "--kube-context", kubectl.context, "upgrade", "--install", RELEASE, chart, *version,
            "--namespace", GATEWAY_NAMESPACE, "--create-namespace",
        ),
        timeout_s=300,
    )  # fmt: skip
    kubectl("-n", GATEWAY_NAMESPACE, "rollout", "status", "deployment/envoy-gateway", "--timeout=240s", timeout_s=260)
    return True


def remove_gateway(kubectl: Kubectl) -> None:
    """What `ensure_gateway` installed; the CRDs stay, since others' routes may need them."""
    run(
        ("helm", "--kube-context", kubectl.context, "uninstall", RELEASE, "--namespace", GATEWAY_NAMESPACE),
        timeout_s=180,
    )


def service(kubectl: Kubectl) -> dict[str, Any]:
    """The Service that Envoy Gateway made for our Gateway.

    Raises:
        CommandFailed: there is none yet.
    """
    owner = "gateway.envoyproxy.io/owning-gateway"
    selector = f"{owner}-name=flightdeck,{owner}-namespace={SERVING}"
    found = kubectl.get("service", "-n", GATEWAY_NAMESPACE, "-l", selector)["items"]
    if not found:
        raise CommandFailed(f"no Service in {GATEWAY_NAMESPACE} belongs to the Gateway flightdeck; run `make up` first")
    return dict(found[0])


def inside_url(kubectl: Kubectl) -> str:
    """Its address for pods.

    Raises:
        CommandFailed: there is none yet.
    """
    return f"http://{service(kubectl)['metadata']['name']}.{GATEWAY_NAMESPACE}.svc"


def url(kubectl: Kubectl) -> str:
    """Where users of the cluster reach it from this machine.

    Raises:
        CommandFailed: it has no address yet.
    """
    found = service(kubectl)
    published = _published(kubectl, node_port(found))
    return published or url_of(found, kubectl.get("nodes")["items"])


def node_port(found: dict[str, Any]) -> int | None:
    """The port of every node that leads to port 80 of the Service."""
    return next((it.get("nodePort") for it in found["spec"]["ports"] if it["port"] == 80), None)


def url_of(found: dict[str, Any], nodes: list[dict[str, Any]]) -> str:
    """A load balancer's address, or port and address of a node.

    Raises:
        CommandFailed: there is neither.
    """
    for given in found.get("status", {}).get("loadBalancer", {}).get("ingress") or ():
        return f"http://{given.get('hostname') or given['ip']}"
    port = node_port(found)
    for address in (it for node in nodes for it in node["status"]["addresses"]) if port else ():
        if address["type"] == "InternalIP":
            return f"http://{address['address']}:{port}"
    raise CommandFailed("the Gateway flightdeck has no address yet: does the cluster give addresses to LoadBalancers?")


def _published(kubectl: Kubectl, port: int | None) -> str | None:
    """kind's nodes are containers: a port of theirs that Docker publishes on this machine, when there is one."""
    if port is None or not kubectl.context.startswith("kind-"):
        return None
    node = f"{kubectl.context.removeprefix('kind-')}-control-plane"
    with contextlib.suppress(CommandFailed):  # not published, or kind on another engine
        return f"http://{run(('docker', 'port', node, f'{port}/tcp')).split()[0]}"
    return None
