"""Ends that are told in words instead of a traceback."""

from __future__ import annotations

from flightdeck.cluster.champion import NoChampion
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.dagster_client import DagsterError
from flightdeck.cluster.deploy import DeployRefused
from flightdeck.cluster.manifests import ManifestError
from flightdeck.cluster.readiness import NotReady
from flightdeck.cluster.target import Refused
from services.rollout_operator.workloads import NotPlaceable

EXPECTED = (
    CommandFailed,
    DagsterError,
    DeployRefused,
    ManifestError,
    NoChampion,
    NotPlaceable,
    NotReady,
    Refused,
    ValueError,
    OSError,
)
