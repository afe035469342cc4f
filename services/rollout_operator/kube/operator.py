"""Entry point: the rollout operator, `python -m services.rollout_operator.kube.operator`.

kopf watches the ModelRollouts, keeps the finalizer and runs one task per object; each task ticks (tick.py) once a
second while a rollout is under way. An idle one ticks when its object or its route changes, else now and then.

One replica is enough and two do no harm: a decision is only kept over the version of the object that it was made on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from services.rollout_operator.crd import GROUP, PLURAL, VERSION
from services.rollout_operator.gate import Trust
from services.rollout_operator.kube import counters, gatekeeper, registry, replicas, routes, stops, warnings
from services.rollout_operator.kube.api import Api, Conflict, Kubernetes, login
from services.rollout_operator.kube.crosschecks import CountedRecords, CrossChecks
from services.rollout_operator.kube.platform import KubePlatform
from services.rollout_operator.kube.rate import Rate
from services.rollout_operator.kube.store import KubeStore
from services.rollout_operator.plan import ENDED
from services.rollout_operator.ports import Records, Unavailable
from services.rollout_operator.records import connect
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import owner_reference

logger = logging.getLogger("flightdeck.rollout")
TICK_S, BROKEN_S, IDLE_S = 1.0, 10.0, 180.0
CONFLICT_S = 0.05
THREADS, WORKERS = 24, 16  # ticks, and objects whose events kopf handles, at once
LEAVE_S = 60.0  # for the Gateway to take the last route of a deleted rollout; a Gateway that is gone takes none
NAMESPACE_ENV, STREAMS_ENV = "OPERATOR_NAMESPACE", "OPERATOR_STREAMS_REDIS_URL"
PORT_ENV, PORT = "OPERATOR_PORT", 8080  # of /healthz


def rollout_of(
    name: str, api: Api, valkey: Any, records: Records, fetch: Callable[[str], str] = counters.fetch, *,
    trust: Callable[[], Trust] = gatekeeper.key_file, rate: Rate | None = None,
) -> Rollout:  # fmt: skip
    """A rollout of the cluster, as it was left. `rate`: of the users, as measured so far."""
    store = KubeStore(api, valkey, name, trust)
    platform = KubePlatform(api, name, lambda: owner_reference(store.object), fetch, rate)
    store.rate = lambda: platform.rate.per_s
    return Rollout(name, store, platform, CountedRecords(records))


class NothingRemembered(kopf.DiffBaseStorage):
    """kopf keeps no copy of a spec on the object: our ticks compare by themselves.

    Its note came right after each change of a spec, and the tick that followed the change had decided on an older
    version of the object: a conflict, and a second tick, for each.
    """

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """As if the object had always been as it is."""
        return self.build(body=body)

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing."""


class Loop:
    """Ticks one ModelRollout; after any failure it begins from what is kept, as a new process would."""

    def __init__(self, name: str, make: Callable[[], Rollout]) -> None:
        self.name, self.make = name, make
        self.rollout: Rollout | None = None
        self.waits = False  # for the stop of all rollouts to be lifted
        self.crosschecks = CrossChecks()

    def tick(self) -> float:
        """Once; returns the seconds until the next one."""
        try:
            self.rollout = self.rollout or self.make()
            self.rollout.tick(time.time())
            self._refusal(self.rollout)
            self.crosschecks.after(self.rollout, time.time())
        except Conflict as error:  # somebody wrote first, often kopf its notes of the very change: decide anew, at once
            logger.info("%s: this tick did not count: %s", self.name, error)
            self.rollout = None
            return CONFLICT_S
        except Unavailable as error:
            logger.info("%s: this tick did not count: %s", self.name, error)
            self.rollout = None
            return TICK_S
        except Exception:
            logger.exception("%s: a tick failed; the next one begins from what is kept", self.name)
            self.rollout = None
            return BROKEN_S
        state, platform = self.rollout.status.state, self.rollout.platform
        self.waits = state is not None and state.phase in ENDED and state.queued is not None
        # A thousand idle ones must not ask for anything each second, also not after a restart: who found all as it
        # shall be is done until something changes.
        left = isinstance(platform, KubePlatform) and platform.left > 0 and self.rollout.followed
        # What waits begins at the next look, unless all rollouts are stopped.
        store = self.rollout.store
        begins = self.waits and isinstance(store, KubeStore) and store.stop is None
        if state is not None and (state.phase not in ENDED or left or begins):
            return TICK_S
        self.rollout.collector = None  # it is kept in Valkey, as this rollout's
        if isinstance(platform, KubePlatform):
            platform.forget()
        return IDLE_S

    @staticmethod
    def _refusal(rollout: Rollout) -> None:
        """A tick that never had a spec writes no status; why is told all the same."""
        store = rollout.store
        if isinstance(store, KubeStore) and store.refusal and not rollout.followed:
            store.write_refusal(time.time())


_api: list[Kubernetes] = []  # one pool of connections, made when the process starts
_stops: list[stops.Stops] = []
_wake: dict[str, asyncio.Event] = {}
_waiting: set[str] = set()  # rollouts that begin when the stop of all is lifted
_rates: dict[str, Rate] = {}  # measured over minutes, while a Rollout is made anew after each conflict
_copies: list[registry.Copies] = []  # none where no MLflow is named


def _made(name: str) -> Rollout:
    records = connect(os.environ[STREAMS_ENV])
    rate = _rates.setdefault(name, Rate(f"{_api[0].namespace}/{name}"))
    made = rollout_of(name, _api[0], records.client, records, rate=rate)
    if isinstance(made.store, KubeStore):
        made.store.stops = _stops[0]  # one for all: it is asked for once, not by each
    return made


@kopf.on.login()
def authenticate(**_: Any) -> kopf.ConnectionInfo:
    """kopf's own requests go where ours go; asked again when a token is no longer taken."""
    return login()


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """kopf as small as it goes: one namespace, its notes in annotations, our own Events."""
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{GROUP}/champion-stays"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"operator.{GROUP}")
    settings.persistence.diffbase_storage = NothingRemembered()
    settings.watching.server_timeout = 240
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 10
    # Whoever starts before a thousand objects would write to all of them at once, and time out before an API server
    # that has other work. A worker that waits for more of its object's events keeps others from theirs.
    settings.queueing.worker_limit, settings.queueing.idle_timeout = WORKERS, 0.1
    # asyncio's own pool has six threads on two cores: six ticks that wait for a hanging API server stop all others.
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(THREADS, "tick"))
    _api.append(Kubernetes(os.environ[NAMESPACE_ENV]))
    _stops.append(stops.Stops(_api[0]))
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
        (_waiting.add if loop.waits else _waiting.discard)(name)
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


@kopf.on.event("apps", "v1", "deployments", labels={replicas.MODEL: kopf.PRESENT})
async def workload_changed(labels: Mapping[str, str], **_: Any) -> None:
    """A release's Deployment: taken away by hand it comes back, and figures follow pods that come up or go."""
    if labels[replicas.MODEL] in _wake:
        _wake[labels[replicas.MODEL]].set()


@kopf.on.event("v1", "configmaps", when=lambda name, **_: name == stops.NAME)
async def stopped(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
    """What runs looks by itself each second; what waits is woken, and nobody else: a thousand idle ones cost time."""
    _stops[0].told(None if type == "DELETED" else body)
    for name in _waiting & set(_wake):
        _wake[name].set()


@kopf.on.delete(GROUP, VERSION, PLURAL, backoff=2)
async def leave(name: str, **_: Any) -> None:
    """The champion keeps serving, as nobody's."""
    try:
        await asyncio.to_thread(_leave, name)
    except Unavailable as error:
        raise kopf.TemporaryError(str(error), delay=1) from error
    _wake.pop(name, None)
    _rates.pop(name, None)
    _waiting.discard(name)
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
        liveness_endpoint=f"http://0.0.0.0:{os.environ.get(PORT_ENV, PORT)}/healthz",
    )  # fmt: skip


if __name__ == "__main__":
    main()
