"""What the gate of images stops: a vulnerable pin before any build; one too big, with a secret, that does not start."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.planted.checkout import Checkout

ADVISORIES = Path(__file__).parent / "advisories"
OSV = {"FLIGHTDECK_SCANNER": "osv", "FLIGHTDECK_ADVISORIES": str(ADVISORIES)}
LOCK, POLICY = "requirements/service.txt", "images/vulnerabilities.yaml"
WAIVER = """
exceptions:
  - id: CVE-0000-0001
    reason: never called by us
    owner: platform
    expires: {expires}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path)


def pin_vulnerable(checkout: Checkout) -> None:
    path = checkout.root / LOCK
    path.write_text(path.read_text() + f"vulnerable-example==2.0.0 \\\n    --hash=sha256:{'0' * 64}\n")


def except_until(checkout: Checkout, expires: str) -> None:
    checkout.edit(POLICY, "exceptions: []\n", WAIVER.format(expires=expires))


def test_a_known_vulnerable_pin_is_refused_before_any_image_is_built(checkout: Checkout):
    pin_vulnerable(checkout)
    ran = checkout.gate("images", **OSV)
    assert ran.code == 1, ran.text
    assert "REFUSED: vulnerable-example 2.0.0 in requirements/service.txt: FIXTURE-2026-0001 (critical" in ran.text
    assert "do: require vulnerable-example>=2.0.1 in pyproject.toml and run `make lock`" in ran.text
    assert "NOT RUN: no image was built" in ran.text


def test_an_expired_exception_saves_nobody_and_is_refused_itself(checkout: Checkout):
    pin_vulnerable(checkout)
    except_until(checkout, "2026-01-31")
    ran = checkout.gate("images", **OSV)
    assert ran.code == 1, ran.text
    assert "REFUSED: vulnerable-example 2.0.0" in ran.text
    assert (
        "REFUSED: the exception for CVE-0000-0001 expired on 2026-01-31 (owner platform: never called by us)"
        in ran.text
    )


def test_an_exception_with_owner_and_date_lets_it_stay_and_is_told(checkout: Checkout):
    pin_vulnerable(checkout)
    except_until(checkout, (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)).isoformat())
    ran = checkout.gate("images", "operator", PATH=str(checkout.root), **OSV)
    assert "REFUSED: vulnerable-example" not in ran.text
    assert "FIXTURE-2026-0001 in vulnerable-example 2.0.0 may stay until" in ran.text
    assert "REFUSED: operator: docker is not on the PATH" in ran.text


def test_a_scan_that_was_asked_for_and_cannot_run_is_red(checkout: Checkout):
    ran = checkout.gate(
        "images", "operator", FLIGHTDECK_SCANNER="osv", FLIGHTDECK_ADVISORIES="/nowhere", PATH=str(checkout.root)
    )
    assert ran.code == 1, ran.text
    assert "REFUSED: the scan that images/vulnerabilities.yaml requires could not run" in ran.text


needs_docker = pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(("docker", "info"), capture_output=True, check=False).returncode != 0,
    reason="NOT TESTED: no Docker, so no image was built, weighed, read or started",
)


@pytest.fixture
def thin(checkout: Checkout) -> Checkout:
    """The operator's image without its packages: seconds to build, and the gate sees the same kind of thing."""
    checkout.edit("images/operator/Dockerfile", (
        "RUN --mount=type=cache,target=/var/cache/pip \\\n"
        "    pip --cache-dir /var/cache/pip --disable-pip-version-check --python /venv/bin/python install "
        "--require-hashes \\\n"
        "        --only-binary :all: --no-deps --no-compile -r /lock.txt\n"
    ), "")  # fmt: skip
    return checkout


@pytest.fixture
def built(thin: Checkout):
    """Takes the images away that a test builds."""
    yield thin
    from flightdeck.cluster.images import content_of

    tag = f"flightdeck/operator:{content_of('operator', thin.root)}"
    subprocess.run(("docker", "image", "rm", "--force", tag), capture_output=True, check=False)


@needs_docker
@pytest.mark.slow
def test_an_image_beyond_its_budget_with_a_key_in_it_that_does_not_start_is_refused_three_times(built: Checkout):
    """One build for all three: a fat file, a key that a later step hides, and no package to import."""
    built.edit("images/operator/Dockerfile", "RUN python -m compileall -q --invalidation-mode unchecked-hash /app", (
        "RUN head -c 12000000 /dev/urandom > /app/fat && echo AWS_SECRET=1 > /app/.env\n"
        "RUN python -m compileall -q --invalidation-mode unchecked-hash /app"
    ))  # fmt: skip
    budget = built.root / "budget.yaml"
    budget.write_text("base: python:3.11-slim-bookworm\nabove_base_mb: {operator: 10}\n")
    ran = built.gate("images", "operator", "--budget", str(budget), **_pip(), **OSV)
    assert ran.code == 1, ran.text
    assert "MB above its base" in ran.text and "more than its budget of 10" in ran.text
    assert "find what grew with `docker history flightdeck/operator:" in ran.text
    assert "REFUSED: operator holds /app/.env: settings of a machine" in ran.text
    assert "REFUSED: operator does not work read-only as user 65532:65532" in ran.text
    assert "ModuleNotFoundError" in ran.text
    assert (built.root / ".flightdeck" / "ci" / "sbom" / "operator.cdx.json").is_file()


def _pip() -> dict[str, str]:
    """Where packages come from, if not from pip's default."""
    return {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
