"""What holds for every Dockerfile of ours, read as text; `flightdeck images build` and the cluster's tests run them."""

import re
from pathlib import Path

import pytest
import yaml

from flightdeck.cluster.images import INPUTS, pinned
from flightdeck.cluster.names import IMAGES

ROOT = Path(__file__).resolve().parents[3]
FILES = {path.parent.name: path.read_text() for path in sorted((ROOT / "images").glob("*/Dockerfile"))}
every_image = pytest.mark.parametrize("name", FILES)


def copied(text: str) -> set[str]:
    """What the COPY lines take out of the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", text.replace("\\\n", " "), re.MULTILINE)
    return {source.rstrip("/") for line in lines for source in line.split()[:-1]}


def test_every_image_of_the_stack_has_a_dockerfile():
    assert set(IMAGES) <= set(FILES)


@every_image
def test_the_tag_depends_on_exactly_what_the_dockerfile_copies(name):
    own = f"images/{name}/"
    assert {it for it in copied(FILES[name]) if not it.startswith(own)} == set(INPUTS[name])


@every_image
def test_all_begin_with_the_same_layers(name):
    def beginning(text: str) -> str:
        return text[text.index("ARG BASE") : text.index("COPY requirements")]

    assert beginning(FILES[name]) == beginning(FILES["mlflow"])


@every_image
def test_what_runs_is_a_numeric_user_without_compiler_or_cache(name):
    last = FILES[name].rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last
    assert not re.search(r"^RUN .*\b(pip|apt-get|gcc)\b", last, re.MULTILINE)
    assert not re.search(r"^ARG .*PIP_", last, re.MULTILINE), (
        "an index, perhaps with a password, would be in the history"
    )
    for label in ("source", "revision", "version", "created"):
        assert f"org.opencontainers.image.{label}=" in last


@every_image
def test_packages_come_from_a_hashed_lock_and_the_built_in_frontend_builds_it(name):
    text = FILES[name]
    assert len(re.findall(r"\binstall\b", text)) == text.count("install --require-hashes")
    assert "# syntax=" not in text
    assert "latest" not in text


def test_the_bento_is_packed_from_what_is_copied_and_from_nothing_else():
    packed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    inputs = set(INPUTS["predictor"])
    missing = [it for it in packed if it not in inputs and it.removesuffix("/*.py") not in inputs]
    assert missing == []


def test_budgets_are_for_the_images_there_are_and_the_predictor_stays_small():
    budget = yaml.safe_load((ROOT / "images" / "budget.yaml").read_text())
    assert set(budget["above_base_mb"]) >= set(IMAGES)
    assert budget["above_base_mb"]["predictor"] <= 330
    assert f"ARG BASE={budget['base']}\nFROM ${{BASE}} AS base" in FILES["predictor"]


def test_what_is_pinned_by_digest_is_the_very_tag_that_is_built_on():
    base = yaml.safe_load((ROOT / "images" / "budget.yaml").read_text())["base"]
    assert pinned("base").partition("@")[0] == base
