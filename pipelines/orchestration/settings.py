"""What the code location reads from its environment, once: the model specs and how people reach MLflow's pages."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from flightdeck.contracts.model_spec import ModelSpec, load_model_spec

SPECS_ENV = "FLIGHTDECK_SPECS"
PAGE_ENV = "FLIGHTDECK_MLFLOW_PAGE"  # where a browser finds MLflow; pods know it by another name
CHECKOUT = Path(__file__).resolve().parents[2]


def specs_folder() -> Path:
    """`$FLIGHTDECK_SPECS`, else the checkout's own."""
    return Path(os.environ.get(SPECS_ENV) or CHECKOUT / "specs")


def model_specs(folder: Path) -> list[ModelSpec]:
    """Every model spec of a folder, by name; its other YAML files (rollouts, the first run) have no estimator.

    Raises:
        ValueError: there is none, two have one name, or one is broken.
    """
    found: dict[str, ModelSpec] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {error}") from error
        if not (isinstance(content, dict) and "estimator" in content):
            continue
        spec = load_model_spec(path)
        if spec.name in found:
            raise ValueError(f"{path}: a second spec of the model {spec.name}; rename one")
        found[spec.name] = spec
    if not found:
        raise ValueError(f"{folder}: no model spec (a YAML file with `estimator`); {SPECS_ENV} names the folder")
    return [found[name] for name in sorted(found)]


def mlflow_run_url(tracking_uri: str, run_id: str) -> str | None:
    """The page of a run, None when the tracking store has no pages."""
    page = os.environ.get(PAGE_ENV) or tracking_uri
    return f"{page.rstrip('/')}/#/runs/{run_id}" if page.startswith("http") else None
