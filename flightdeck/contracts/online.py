"""What the writers of the online store and its readers agree on, beside Feast's own keys."""

from __future__ import annotations


def registry_version_key(project: str) -> str:
    """The key that names the version of the feature registry which the project's rows were last materialized with."""
    return f"flightdeck:registry_version:{project}"
