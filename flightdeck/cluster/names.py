"""Names that manifests and code share; k8s/ is where they are declared. A process works on one environment."""

from __future__ import annotations

import os
from pathlib import Path

from flightdeck.contracts import environments

CHECKOUT = Path(__file__).resolve().parents[2]
K8S = CHECKOUT / "k8s"
ENVIRONMENTS = K8S / "environments.yaml"
BASE_PLATFORM, BASE_SERVING = "flightdeck-platform", "flightdeck-serving"  # as the manifests in Git name them
ENVIRONMENT = environments.named(
    ENVIRONMENTS, os.environ.get(environments.ENVIRONMENT_ENV) or environments.DEFAULT
)  # of this process: `flightdeck.cli` chooses it before anything here is imported
CONTEXT = os.environ.get(environments.CONTEXT_ENV) or ENVIRONMENT.context  # empty: the kubeconfig's current one
PLATFORM, SERVING = ENVIRONMENT.platform, ENVIRONMENT.serving
GATEWAY_NAMESPACE = "envoy-gateway-system"
IMAGES = ("predictor", "pipelines", "mlflow", "operator")
MANAGER = "flightdeck"  # field manager of what Git says
RELEASER = "flightdeck-release"  # field manager of what a release sets
