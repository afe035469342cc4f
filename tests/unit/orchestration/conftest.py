"""The definitions as a code location loads them, with no service at hand."""

from __future__ import annotations

import pytest

from pipelines.orchestration.definitions import defs


@pytest.fixture(scope="session")
def jobs():
    return {job.name: job for job in defs.resolve_all_job_defs()}


@pytest.fixture(scope="session")
def graph():
    return defs.resolve_asset_graph()
