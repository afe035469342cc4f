"""Ends that are told in words instead of a traceback."""

from __future__ import annotations

from flightdeck.cluster.champion import NoChampion
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.deploy import DeployRefused
from flightdeck.cluster.manifests import ManifestError
from flightdeck.cluster.readiness import NotReady
from flightdeck.cluster.target import Refused

EXPECTED = (CommandFailed, DeployRefused, ManifestError, NoChampion, NotReady, Refused, ValueError, OSError)
