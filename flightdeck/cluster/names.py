"""Names that manifests and code share; k8s/ is where they are declared."""

from __future__ import annotations

from pathlib import Path

PLATFORM, SERVING = "flightdeck-platform", "flightdeck-serving"
GATEWAY_NAMESPACE = "envoy-gateway-system"
IMAGES = ("predictor", "pipelines", "mlflow", "operator")
MANAGER = "flightdeck"  # field manager of what Git says
RELEASER = "flightdeck-release"  # field manager of what a release sets
CHECKOUT = Path(__file__).resolve().parents[2]
K8S = CHECKOUT / "k8s"
