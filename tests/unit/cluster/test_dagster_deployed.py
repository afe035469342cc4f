"""Runs start with the image that is deployed, or not at all."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flightdeck.cluster.dagster_client import DagsterError
from flightdeck.cluster.dagster_deployed import image_of, until_read

NEW, OLD = "registry/pipelines@sha256:new", "registry/pipelines@sha256:old"


class Dagster:
    """A page that tells an older image until it has read the location anew so many times."""

    def __init__(self, reads: float) -> None:
        self.reads = reads

    def images(self) -> dict[str, str]:
        return {"pipelines": NEW if self.reads <= 0 else OLD}

    def reload(self, location: str) -> None:
        assert location == "pipelines"
        self.reads -= 1

    def trouble(self) -> str:
        return ""


def test_a_location_that_tells_an_older_image_is_read_anew_until_it_tells_the_deployed_one():
    page = Dagster(reads=2)
    until_read(cast(Any, page), NEW, within_s=5, poll_s=0)
    assert page.reads == 0


def test_nothing_is_started_with_an_older_image():
    with pytest.raises(DagsterError, match=f"another image than {NEW}.*pipelines: {OLD}.*nothing was started"):
        until_read(cast(Any, Dagster(reads=float("inf"))), NEW, within_s=0, poll_s=0)


def test_the_deployed_image_is_what_the_code_location_gives_its_runs():
    class Kubectl:
        def get(self, *words: str) -> dict[str, Any]:
            assert words[:2] == ("deployment", "dagster-code")
            env = [{"name": "DAGSTER_HOME", "value": "/opt"}, {"name": "DAGSTER_CURRENT_IMAGE", "value": NEW}]
            return {"spec": {"template": {"spec": {"containers": [{"env": env}]}}}}

    assert image_of(cast(Any, Kubectl())) == NEW
