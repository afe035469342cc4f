"""Entry point: the rollout operator, `python -m services.rollout_operator.kube.operator`.

kopf watches the ModelRollouts, keeps the finalizer and runs one task per object; each task ticks (tick.py) once a
second while a rollout is under way. An idle one ticks when its object or its route changes, else now and then.

One replica is enough and two do no harm: a decision is only kept over the version of the object that it was made on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import kopf

from services.rollout_operator.crd import GROUP, PLURAL, VERSION
from services.rollout_operator.kube import counters, registry, routes, warnings
from services.rollout_operator.kube.api import Api, Kubernetes
from services.rollout_operator.kube.crosschecks import CountedRecords, CrossChecks
from services.rollout_operator.kube.platform import KubePlatform
from services.rollout_operator.kube.store import KubeStore
from services.rollout_operator.plan import ENDED
from services.rollout_operator.ports import Records, Unavailable
from services.rollout_operator.records import connect
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import owner_reference

logger = logging.getLogger("flightdeck.rollout")
TICK_S, SETTLING_S, IDLE_S = 1.0, 30.0, 150.0
LEAVE_S = 60.0  # for the Gateway to take the last route of a deleted rollout; a Gateway that is gone takes none
NAMESPACE_ENV, STREAMS_ENV = "OPERATOR_NAMESPACE", "OPERATOR_STREAMS_REDIS_URL"
PORT = 8080


def rollout_of(
    name: str, api: Api, valkey: Any, records: Records, fetch: Callable[[str], str] = counters.fetch
) -> Rollout:
    """A rollout of the cluster, as it was left."""
    store = KubeStore(api, valkey, name)
    platform = KubePlatform(api, name, lambda: owner_reference(store.object), fetch)
    return Rollout(name, store, platform, CountedRecords(records))


class Loop:
    """Ticks one ModelRollout; after any failure it begins from what is kept, as a new process would."""

    def __init__(self, name: str, make: Callable[[], Rollout]) -> None:
        self.name, self.make = name, make
        self.rollout: Rollout | None = None
        self.changed_s = time.monotonic()
        self.phase: object = None
        self.crosschecks = CrossChecks()

    def tick(self) -> float:
        """Once; returns the seconds until the next one."""
        try:
            self.rollout = self.rollout or self.make()
            self.rollout.tick(time.time())
            self._refusal(self.rollout)
            self.crosschecks.after(self.rollout, time.time())
        except Unavailable as error:
            logger.info("%s: this tick did not count: %s", self.name, error)
            self.rollout = None
            return TICK_S
        except Exception:
            logger.exception("%s: a tick failed; the next one begins from what is kept", self.name)
            self.rollout = None
            return SETTLING_S / 3
        state = self.rollout.status.state
        phase = state.phase if state else None
        if phase != self.phase:
            self.phase, self.changed_s = phase, time.monotonic()
        settled = time.monotonic() - self.changed_s > SETTLING_S
        return IDLE_S if settled and (phase is None or phase in ENDED) else TICK_S

    @staticmethod
    def _refusal(rollout: Rollout) -> None:
        """A tick that never had a spec writes no status; why is told all the same."""
        store = rollout.store
        if isinstance(store, KubeStore) and store.refusal and rollout.status.state is None:
            store.write_refusal(time.time())


_api: list[Kubernetes] = []  # one pool of connections, made when the process starts
_wake: dict[str, asyncio.Event] = {}
_copies: list[registry.Copies] = []  # none where no MLflow is named


def _made(name: str) -> Rollout:
    records = connect(os.environ[STREAMS_ENV])
    return rollout_of(name, _api[0], records.client, records)


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """kopf as small as it goes: one namespace, its notes in annotations, our own Events."""
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{GROUP}/champion-stays"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"operator.{GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"operator.{GROUP}")
    settings.watching.server_timeout = 240
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 10
    _api.append(Kubernetes(os.environ[NAMESPACE_ENV]))
    if tracking_uri := os.environ.get(registry.TRACKING_ENV):
        mlflow = registry.Mlflow(tracking_uri)
        _copies.append(registry.Copies(mlflow, lambda it, words: warnings.tell(_api[0], it, "RegistryCopy", words)))
        _copies[0].start()


@kopf.daemon(GROUP, VERSION, PLURAL, cancellation_timeout=10)
async def run(name: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
    """Until the object goes or the process ends."""
    loop, wake = Loop(name, lambda: _made(name)), _wake.setdefault(name, asyncio.Event())
    while not stopped:
        wake.clear()
        pause_s = await asyncio.to_thread(loop.tick)
        _keep_copy(loop)
        ended = asyncio.ensure_future(stopped.wait(pause_s))
        woken = asyncio.ensure_future(_woken(wake))
        _done, left = await asyncio.wait({ended, woken}, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()


def _keep_copy(loop: Loop) -> None:
    if loop.rollout and isinstance(store := loop.rollout.store, KubeStore):
        for copies in _copies:
            copies.keep(loop.name, store.object)


async def _woken(wake: asyncio.Event) -> None:
    """Not before a tick's time has passed: the tick's own writes wake it as well."""
    await asyncio.sleep(TICK_S)
    await wake.wait()


@kopf.on.event(GROUP, VERSION, PLURAL)
@kopf.on.event("gateway.networking.k8s.io", "v1", "httproutes")
async def changed(name: str, **_: Any) -> None:
    """The object, or the HTTPRoute of its name: an idle rollout looks at once."""
    if name in _wake:
        _wake[name].set()


@kopf.on.delete(GROUP, VERSION, PLURAL, backoff=2)
async def leave(name: str, **_: Any) -> None:
    """The champion keeps serving, as nobody's."""
    try:
        await asyncio.to_thread(_leave, name)
    except Unavailable as error:
        raise kopf.TemporaryError(str(error), delay=1) from error
    _wake.pop(name, None)
    for copies in _copies:
        copies.forget(name)


def _leave(name: str) -> None:
    made = _made(name)
    store, platform, state = made.store, made.platform, made.status.state
    assert isinstance(store, KubeStore) and isinstance(platform, KubePlatform)
    began = store.object["metadata"].get("deletionTimestamp", "")
    if state is not None:
        platform.leave(state.champion)
        if platform.route is not None and not routes.taken(platform.route) and not _late(began):
            raise Unavailable("the Gateway has not taken the champion's route yet")
    store.forget_evidence()


def _late(began: str) -> bool:
    now = dt.datetime.now(dt.UTC)
    return bool(began) and now - dt.datetime.fromisoformat(began) > dt.timedelta(seconds=LEAVE_S)


def main() -> None:
    """Until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for loud in ("httpx", "kopf", "aiohttp.access"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    kopf.run(
        registry=kopf.get_default_registry(), namespaces=[os.environ[NAMESPACE_ENV]],
        liveness_endpoint=f"http://0.0.0.0:{PORT}/healthz",
    )  # fmt: skip


if __name__ == "__main__":
    main()
