"""Entry point: the real predictor with one planted fault, `bentoml serve flightdeck.lab.faulty:Predictor`.

The image in the environment names the fault (see faults.py); on a cluster, where an image's name is a digest, the
image holds a variable that does. Everything else is the predictor's own code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from feature_repo import request as use_case
from feature_repo.rowwise import LOCAL_TIME
from flightdeck.lab.faults import MARK, Fault, fault_of, with_fault
from services.predictor import schema
from services.predictor.app import Routes
from services.predictor.features import FeaturePlan, StoredValues
from services.predictor.model import Matrix, Model
from services.predictor.online_store import OnlineStore
from services.predictor.runtime import Runtime
from services.predictor.service import Parts, Predictor
from services.predictor.settings import PredictorSettings

__all__ = ["FaultyRoutes", "FaultyRuntime", "Predictor", "plant"]

FAULT_ENV = "FLIGHTDECK_FAULT"
KM_PER_MILE = 1.609344
SLOWER_S = {"slow-50ms": 0.05, "slow-2s": 2.0}
SHIFT = 0.05
ERROR_SHARE = 0.05
CRASH_AFTER = 100
_COPY = re.compile(rb"-shadow(?::\d+)?$")  # Envoy marks a mirrored request so in its host header, before the port


class PlantedError(RuntimeError):
    """What the fault raises; the predictor answers 500."""


def planted_in(image: str) -> Fault | None:
    """The fault of this process.

    Raises:
        UnknownFault: the environment or the image names one that is not in the catalogue.
    """
    name = os.environ.get(FAULT_ENV, "")
    return fault_of(with_fault(image, name) if name else image)


class FaultyRuntime(Runtime):
    """Answers as the predictor does, but for the fault that the settings' image or the environment names."""

    def __init__(self, settings: PredictorSettings) -> None:
        super().__init__(settings)
        fault = planted_in(settings.image)
        self.fault = fault.name if fault else ""
        if self.fault == "constant":
            self.model = _SameScore(self.model, self.manifest.fallback_score)
        elif self.fault == "nan":
            self.model = _SameScore(self.model, math.nan)
        elif self.fault == "shift-005":
            self.model = _Shifted(self.model)
        elif self.fault == "code-bad":
            self.on_demand = on_demand_in_utc
        elif self.fault == "unit":
            name = unit_feature(self.plan)
            right = self.on_demand
            self.on_demand = lambda row: _converted(right(row), name)

    async def start(self) -> None:
        """As the predictor; stored values come in another unit when that is the fault."""
        await super().start()
        if self.fault == "unit":
            self.store = _OtherUnit(self.store, self.plan, unit_feature(self.plan))  # type: ignore[assignment]

    async def predict(
        self, rows: list[use_case.Request], request_id: str, started_s: float
    ) -> tuple[list[schema.Prediction], bool]:
        """As the predictor, late or not at all when that is the fault."""
        await self._hinder(request_id)
        return await super().predict(rows, request_id, started_s)

    async def score(
        self, vectors: list[tuple[float | None, ...]], request_id: str, started_s: float
    ) -> list[schema.Score]:
        """As the predictor, late or not at all when that is the fault."""
        await self._hinder(request_id)
        return await super().score(vectors, request_id, started_s)

    async def _hinder(self, request_id: str) -> None:
        if self.fault in SLOWER_S:
            await asyncio.sleep(SLOWER_S[self.fault])
        elif self.fault == "errors-5pct" and fails(self.replica, request_id):
            raise PlantedError(f"planted fault {self.fault}")


class FaultyRoutes(Routes):
    """The predictor's routes. With `crash-100` the process ends at the user request after the hundredth."""

    def __init__(self, app: Any, *, runtime: Runtime, die: Callable[[int], Any] = os._exit) -> None:
        super().__init__(app, runtime=runtime)
        fault = planted_in(runtime.settings.image)
        self._crashes = fault is not None and fault.name == "crash-100"
        self._never_ready = fault is not None and fault.name == "never-ready"
        self._users, self._die = 0, die

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """ASGI."""
        if self._crashes and scope["type"] == "http" and is_users(scope):
            self._users += 1
            if self._users > CRASH_AFTER:
                self._die(70)
                return
        if self._never_ready and scope["type"] == "http" and scope["path"] == "/readyz":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"ready":false}'})
            return
        await super().__call__(scope, receive, send)


class _SameScore(Model):
    """A model that gives each row the same score."""

    def __init__(self, real: Model, value: float) -> None:
        self.manifest, self._value = real.manifest, value

    def score(self, rows: Matrix) -> list[float]:
        return [self._value] * len(rows)


class _Shifted(Model):
    """A model whose scores are all a little higher, and at most 1."""

    def __init__(self, real: Model) -> None:
        self.manifest, self._real = real.manifest, real

    def score(self, rows: Matrix) -> list[float]:
        return [min(1.0, score + SHIFT) for score in self._real.score(rows)]


class _OtherUnit:
    """The online store, with one feature in another unit; all else is the real one's."""

    def __init__(self, real: OnlineStore, plan: FeaturePlan, name: str) -> None:
        self._real = real
        self._places = {view.name: view.features.index(name) for view in plan.views if name in view.features}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def fetch(self, rows: Sequence[Mapping[str, str]]) -> list[dict[str, StoredValues | None]]:
        """As the real one."""
        found = await self._real.fetch(rows)
        for one in found:
            for view, at in self._places.items():
                if (stored := one.get(view)) is not None:
                    values = list(stored.values)
                    value = values[at]
                    values[at] = None if value is None else value * KM_PER_MILE
                    one[view] = dataclasses.replace(stored, values=tuple(values))
        return found


def unit_feature(plan: FeaturePlan) -> str:
    """The feature that comes in another unit: a distance, computed on demand or stored, else the first stored one."""
    stored = [name for view in plan.views for name in view.features]
    distances = [name for name in (*(name for _, name in plan.on_demand), *stored) if "distance" in name]
    return (distances or stored or [plan.names[0]])[0]


def _converted(values: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: value * KM_PER_MILE if key == name else value for key, value in values.items()}


def on_demand_in_utc(row: use_case.Request) -> dict[str, float]:
    """The request's features with the clock of UTC read as New York's, as when a time zone gets lost on the way."""
    misread = row.sched_dep_utc.replace(tzinfo=LOCAL_TIME)
    return use_case.on_demand(use_case.Request(**{**_fields(row), "sched_dep_utc": misread}))


def _fields(row: use_case.Request) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def fails(replica: str, request_id: str) -> bool:
    """Whether this replica fails this request: one in twenty, always the same."""
    digest = hashlib.blake2b(f"{replica} {request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < ERROR_SHARE * 2**64


def is_users(scope: Mapping[str, Any]) -> bool:
    """Whether a request asks for a prediction and a user waits for it: no health check, no mirrored copy."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return str(scope["path"]).startswith("/v1/") and not _COPY.search(headers.get(b"host", b""))


def plant(image: str) -> None:
    """Put the fault of `image` into the service of this process.

    Raises:
        PlantedError: when the fault is not to start at all.
    """
    fault = planted_in(image)
    if fault is not None and fault.name == "crash-at-start":
        raise PlantedError(f"planted fault {fault.name}")
    Parts.runtime, Parts.routes = FaultyRuntime, FaultyRoutes


if MARK in (_image := os.environ.get("PREDICTOR_IMAGE", "")) or os.environ.get(FAULT_ENV):
    plant(_image)

if __name__ == "__main__":  # in an image: `python -m flightdeck.lab.faulty`
    from services.predictor.__main__ import main

    main()
