"""The checkout's model specs, for the gates that read them."""

from __future__ import annotations

from flightdeck.contracts.model_spec import ModelSpec, model_specs, specs_folder
from flightdeck.delivery.outcome import Finding


def shipped() -> tuple[list[ModelSpec], tuple[Finding, ...]]:
    """Every model spec, or why they cannot be read."""
    try:
        return model_specs(specs_folder()), ()
    except ValueError as error:
        return [], (Finding(what=str(error), do="mend the file; docs/model-spec.md says what each field may be"),)
