"""Adapter: Gateway API and Envoy Gateway, installed by Helm where they are missing; whoever has them keeps theirs."""

from __future__ import annotations

import os
from collections.abc import Callable

from flightdeck.cluster.commands import Kubectl, run
from flightdeck.cluster.names import GATEWAY_NAMESPACE

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
