"""The lab's processes: two Redis, MLflow, predictor replicas, Envoy; what each is started with and when it is well."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab import envoy, faults, probes
from flightdeck.lab.environment import child_environment
from flightdeck.lab.ports import HOST, is_free, steady_port
from flightdeck.lab.programs import find
from flightdeck.lab.rollout.gateway import Gateway
from flightdeck.lab.rollout.replicas import OBSERVED, ReplicaKeeper
from flightdeck.lab.supervisor import ProcessSpec, Supervisor

REPLICAS = 3
WORKERS = 2
CHECKOUT = Path(__file__).resolve().parents[2]
STORES = ("redis-online", "redis-streams")
ALIVE = "rollouts.alive"  # the controller touches it at each of its ticks
HONEST, FAULTY = "services.predictor.service:Predictor", "flightdeck.lab.faulty:Predictor"


@dataclasses.dataclass(frozen=True)
class Replica:
    """One predictor process of a release; the port is its own until it is stopped."""

    release: Release
    number: int
    port: int

    @property
    def name(self) -> str:
        """`<model>-<release id>-<number>`: in the prediction log it tells whose answer it was."""
        return f"{self.release.model.name}-{self.release.id}-{self.number}"


class Stack:
    """Knows how to start each process of the lab under a supervisor, and which replicas it started."""

    def __init__(self, layout: StateLayout, ports: Mapping[str, int], supervisor: Supervisor) -> None:
        self.layout, self.ports, self.supervisor = layout, dict(ports), supervisor
        self.gateway = Gateway(layout.run / "envoy", self.ports["gateway-admin"])
        self._replicas: dict[str, Replica] = {}
        self._choosing = threading.Lock()

    def start_stores(self) -> None:
        """The online store and the streams."""
        self.supervisor.start(*(self._redis(name) for name in STORES))

    def start_tracking(self) -> None:
        """MLflow: SQLite, proxied artefacts, one worker, no job execution."""
        port = self.ports["mlflow"]
        self.layout.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
        argv = (
            str(find("mlflow")), "server", "--host", HOST, "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.layout.mlflow_db}",
            "--artifacts-destination", str(self.layout.mlflow_artifacts), "--serve-artifacts",
            "--allowed-hosts", f"{HOST}:{port},localhost:{port}",
        )  # fmt: skip
        self._start("mlflow", argv, probe=probes.http_ok(port, "/health"), ready_s=300)

    def start_predictors(self, release: Release, replicas: int = REPLICAS) -> tuple[str, ...]:
        """The replicas of one release; returns their names."""
        return tuple(self.start_replica(release, number).name for number in range(1, replicas + 1))

    def start_replica(self, release: Release, number: int) -> Replica:
        """One replica of a release; returns at once.

        Raises:
            ValueError: it is there already, or the release names a fault that does not exist.
        """
        with self._choosing:
            taken = {replica.port for replica in self._replicas.values()}
            preferred = [port for name, port in self.ports.items() if name.startswith("predictor-")]
            free = (port for port in preferred if port not in taken and is_free(port))
            port = next(free, None) or steady_port({*taken, *self.ports.values()})
            replica = Replica(release, number, port)
            self.supervisor.start(self._predictor(replica))
            self._replicas[replica.name] = replica
        return replica

    def stop_replica(self, name: str) -> None:
        """End one replica; returns when it has answered what it had and is gone."""
        self.supervisor.stop(name)
        self._replicas.pop(name, None)

    def replicas(self) -> tuple[Replica, ...]:
        """All replicas that were started and not yet stopped to the end."""
        return tuple(self._replicas.values())

    def start_serving(self) -> None:
        """Gateway, rollout controller, and what starts and stops replicas: from here on rollouts say what serves."""
        self.start_gateway()
        (self.layout.run / OBSERVED).unlink(missing_ok=True)
        self.keeper = ReplicaKeeper(self)
        self.keeper.start()
        alive = self.layout.run / ALIVE
        alive.unlink(missing_ok=True)
        argv = (sys.executable, "-m", "flightdeck.lab.rollout.controller")
        more = {"FLIGHTDECK_GATEWAY_ADMIN_PORT": str(self.ports["gateway-admin"])}
        self._start("rollouts", argv, more=more, probe=probes.touched(alive, 10.0), sick_s=30.0)

    def start_gateway(self, names: tuple[str, ...] = ()) -> None:
        """Envoy in front of the replicas `names`; without any it says that nobody serves."""
        self.gateway.clear()
        if names:
            self.route(names)
        folder = self.layout.run / "envoy"
        path = envoy.write_bootstrap(folder, self.ports["gateway"], self.ports["gateway-admin"])
        argv = (
            str(find("envoy")), "-c", str(path), "--concurrency", "1", "--log-level", "warning",
            "--base-id", str(self.ports["gateway"]), "--drain-time-s", "1", "--parent-shutdown-time-s", "2",
            "--disable-hot-restart",
        )  # fmt: skip
        probe = probes.http_ok(self.ports["gateway-admin"], "/ready")
        self._start("gateway", argv, probe=probe, ready_s=20, stop_s=3)

    def route(self, names: tuple[str, ...]) -> None:
        """All user traffic to the replicas `names` of one release; effective at once, without a dropped connection."""
        chosen = [self._replicas[name] for name in names]
        endpoints = [envoy.Endpoint(replica.name, replica.port) for replica in chosen]
        self.gateway.route(chosen[0].release.id, endpoints)

    def start_workers(self) -> tuple[str, ...]:
        """A worker per core that the lab counts on; returns their names."""
        workers = tuple(f"worker-{index}" for index in range(1, WORKERS + 1))
        for name in workers:
            folder = self.worker_folder(name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            # One thread each: more would only wait for the other worker's.
            self.start_once(name, (sys.executable, "-m", "flightdeck.lab.worker", str(folder)), OMP_NUM_THREADS="1")
        return workers

    def worker_folder(self, name: str) -> Path:
        """Where the requests to a worker lie."""
        return self.layout.run / "jobs" / name

    def start_once(self, name: str, argv: tuple[str, ...], **more: str) -> None:
        """Start any program that comes to an end by itself; see `Supervisor.join`."""
        self.supervisor.start(self._spec(name, argv, more=more, once=True))

    def urls(self) -> dict[str, str]:
        """Every address a person may open."""
        gateway, admin, mlflow = (self.ports[name] for name in ("gateway", "gateway-admin", "mlflow"))
        return {
            "API": f"http://{HOST}:{gateway}/v1/predict",
            "API docs": f"http://{HOST}:{gateway}/docs",
            "MLflow": f"http://{HOST}:{mlflow}",
            "Envoy admin": f"http://{HOST}:{admin}",
            "Redis (online features)": f"redis://{HOST}:{self.ports['redis-online']}",
            "Redis (streams)": f"redis://{HOST}:{self.ports['redis-streams']}",
        }

    def _redis(self, name: str) -> ProcessSpec:
        port, folder = self.ports[name], self.layout.root / name
        folder.mkdir(parents=True, exist_ok=True)
        # Every write is in the file before it is answered, so a SIGKILL loses nothing. The streams survive a power cut
        # too; the online store can be built anew from the lake and spares the disk.
        fsync = "always" if name == "redis-streams" else "everysec"
        argv = (
            str(find("redis-server")), "--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--daemonize", "no",
        )  # fmt: skip
        return self._spec(name, argv, probe=probes.redis_pong(port), ready_s=30, layer=0)

    def _predictor(self, replica: Replica) -> ProcessSpec:
        name, port, release = replica.name, replica.port, replica.release
        service = FAULTY if faults.fault_of(release.image) else HONEST
        argv = (
            str(find("bentoml")), "serve", service, "--host", HOST, "--port", str(port), "--working-dir", str(CHECKOUT),
        )  # fmt: skip
        model = release.model
        more = {
            "PREDICTOR_MODEL_NAME": model.name,
            "PREDICTOR_MODEL_VERSION": model.version,
            "PREDICTOR_MODEL_SHA256": model.sha256,
            "PREDICTOR_ARTEFACTS": str(self.layout.artefacts),
            "PREDICTOR_TRACKING_URI": f"http://{HOST}:{self.ports['mlflow']}",
            "PREDICTOR_ONLINE_REDIS_URL": f"redis://{HOST}:{self.ports['redis-online']}/0",
            "PREDICTOR_STREAMS_REDIS_URL": f"redis://{HOST}:{self.ports['redis-streams']}/0",
            "PREDICTOR_REPLICA": name,
            "PREDICTOR_IMAGE": release.image,
            "PREDICTOR_RELEASE": release.id,
            "BENTOML_HOME": str(self.layout.run / "bentoml" / name),
            # As in the image: no dead worker is replaced behind the supervisor's back, who is to see and count it.
            "BENTOML_CONTAINERIZED": "true",
        }
        return self._spec(
            name,
            argv,
            probe=probes.http_ok(port, "/readyz"),
            live=probes.http_ok(port, "/healthz"),
            more=more,
            ready_s=240,
            workers=True,
        )

    def _start(self, name: str, argv: tuple[str, ...], **settings: Any) -> None:
        self.supervisor.start(self._spec(name, argv, **settings))

    def _spec(
        self, name: str, argv: tuple[str, ...], more: Mapping[str, str] | None = None, **settings: Any
    ) -> ProcessSpec:
        env = child_environment(self.layout, self.ports, **(more or {}))
        return ProcessSpec(name, argv, env, cwd=CHECKOUT, **settings)
