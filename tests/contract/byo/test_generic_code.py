"""The generic code knows no flights: no word of them stands in its names, texts or comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
GENERIC = (
    *("pipelines/data", "pipelines/features", "pipelines/training", "pipelines/gates", "pipelines/registry"),
    *("pipelines/monitoring", "pipelines/governor", "pipelines/batch"),
    *("pipelines/use_case.py", "services/predictor", "services/ingestor", "flightdeck/contracts"),
    *("feature_repo/sources.py", "feature_repo/view_build.py"),
)
WORDS = frozenset([
    "flight", "flights", "nycflights", "carrier", "carriers", "airline", "airlines", "airport", "airports", "origin",
    "origins", "dest", "destination", "destinations", "tailnum", "tailnums", "plane", "planes", "route", "routes",
    "weather", "congestion", "departure", "departures", "departed", "dep", "arrival", "arrivals", "arr", "landing",
    "landings", "landed", "diverted", "diversion", "iata", "faa", "ewr", "jfk", "lga",
])  # fmt: skip  # the brand is one word, `flightdeck`
# Words that mean something else there, or name the use case that is the default; each with the file that may.
ALLOWED = {
    "pipelines/use_case.py": {"flights"},  # DEFAULT_USE_CASE
    "services/ingestor/settings.py": {"flight"},  # the default fold
    "services/predictor/metrics.py": {"flight", "route"},  # requests in flight; a route of HTTP
    "services/predictor/app.py": {"flight", "route", "routes"},
    "services/predictor/service.py": {"routes"},
    "services/predictor/openapi.py": {"routes"},
}


def files() -> list[Path]:
    found = []
    for name in GENERIC:
        path = REPOSITORY / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def words(line: str) -> set[str]:
    """Lower-case words of names in snake_case and CamelCase and of running text."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", line)}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_generic_code_speaks_of_no_flight(path):
    allowed = ALLOWED.get(str(path.relative_to(REPOSITORY)), set())
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {', '.join(sorted(hits))}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (hits := words(line) & (WORDS - allowed))
    ]
    assert not found, "the use case belongs behind the seam (docs/bring-your-own.md):\n" + "\n".join(found)


def test_every_exception_is_still_needed():
    unused = {
        f"{name}: {word}"
        for name, allowed in ALLOWED.items()
        for word in allowed - set().union(*map(words, (REPOSITORY / name).read_text().splitlines()))
    }
    assert not unused


@pytest.mark.parametrize(
    "line", ["class FlightRequest:", "sched_dep_utc", "ORIGINS", '"carrier"', "# flights leave late", "parts/Weather"]
)
def test_the_words_are_found_in_any_spelling(line):
    assert words(line) & WORDS


def test_the_brand_is_no_flight():
    assert not words("from flightdeck.contracts.layout import StateLayout  # FLIGHTDECK_STATE") & WORDS
