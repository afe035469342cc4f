"""Processes under one supervisor: own process groups, health checks, restart with back-off, logs, orphan cleanup.

The supervisor is two threads of the process that owns it. Every child leads a process group of its own, so that ctrl-C
reaches the lab alone and a dead leader's workers are found. A guard (see guard.py) ends the groups should the owner
itself be killed with SIGKILL; on the next start `clean_up` ends what even that left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flightdeck.lab import logs
from flightdeck.lab.processes import Record, children_of, end_group, read_records, start_time, write_records

RECORDS = "processes.json"
EVENTS = "events.jsonl"
STEADY_S = 30.0  # after so long without a death the back-off starts anew

Probe = Callable[[], str | None]
"""None when healthy, else what is wrong. Must return within about a second."""


def back_off_s(deaths: int) -> float:
    """Seconds before restart number `deaths` (1 is the first): 0.2, 0.4, 0.8 ... at most 10."""
    return float(min(10.0, 0.2 * 2 ** (max(deaths, 1) - 1)))


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
    """One process: how to start it, how to know that it is well, how to end it.

    Args:
        probe: ready to work. live: still alive, although not ready (say, while it waits for another process);
            the same as `probe` when None.
        ready_s: it is started anew when it is not healthy within so many seconds of its start.
        sick_s: it is killed and started anew when unhealthy for so long (a hung process answers nothing); None: never.
        stop_s: SIGTERM, then SIGKILL after so many seconds.
        once: a job that comes to an end by itself; it is not started anew. See `join`.
        workers: its children do the work, so it is dead when one of them is, although its own process goes on.
        layer: lower layers are stopped after higher ones, which may still have something to write there.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    probe: Probe | None = None
    live: Probe | None = None
    ready_s: float = 60.0
    sick_s: float | None = 15.0
    stop_s: float = 10.0
    layer: int = 1
    once: bool = False
    workers: bool = False


@dataclasses.dataclass(frozen=True)
class Status:
    """One line of `lab status`.

    Args:
        deaths: since its first start. last_death: how it died; empty when it never did. age_s: since its last start.
    """

    name: str
    pid: int | None
    healthy: bool
    problem: str | None
    restarts: int
    deaths: int = 0
    last_death: str = ""
    age_s: float = 0.0


@dataclasses.dataclass
class _Child:
    spec: ProcessSpec
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    healthy_since: float | None = None
    sick_since: float | None = None
    was_ready: bool = False
    problem: str | None = "not started"
    deaths: int = 0  # since the last steady time: the back-off grows with it
    all_deaths: int = 0
    last_death: str = ""
    restarts: int = 0
    restart_at: float | None = None
    workers: tuple[Record, ...] = ()  # in groups of their own

    def end_workers(self) -> None:
        for worker in (worker for worker in self.workers if worker.is_alive()):
            end_group(worker.pid)
        self.workers = ()

    def status(self) -> Status:
        pid = self.popen.pid if self.popen and self.popen.poll() is None else None
        age_s = time.monotonic() - self.started
        healthy, deaths = self.healthy_since is not None, self.all_deaths
        return Status(self.spec.name, pid, healthy, self.problem, self.restarts, deaths, self.last_death, age_s)


class StartFailed(RuntimeError):
    """A process did not become healthy in time."""


class Closing(RuntimeError):
    """The supervisor ends everything and starts nothing more."""


class JobFailed(RuntimeError):
    """A job did not come to a good end."""


class Supervisor:
    """Starts, watches, restarts and ends processes. Use as a context manager; leaving it ends them all."""

    def __init__(self, run: Path, logs: Path) -> None:
        self.run, self.logs = run, logs
        run.mkdir(parents=True, exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._threads = [
            threading.Thread(target=self._watch, name="lab-watch", daemon=True),
            threading.Thread(target=self._probe_all, name="lab-probe", daemon=True),
        ]

    def __enter__(self) -> Supervisor:
        write_records(self.run / RECORDS, [])
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "flightdeck.lab.guard", str(self.run / RECORDS)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(self, *specs: ProcessSpec) -> None:
        """Start the processes; returns at once. See `wait`.

        Raises:
            Closing: too late. ValueError: there is one of that name. OSError: it cannot be started.
        """
        with self._lock:
            for spec in specs:
                if self._closing.is_set():
                    raise Closing(f"{spec.name} is not started any more")
                if spec.name in self._children:
                    raise ValueError(f"{spec.name} is already supervised; stop it first")
                child = _Child(spec)
                self._spawn(child)
                self._children[spec.name] = child
                self._save()

    def wait(self, names: Iterable[str], timeout_s: float = 60.0) -> None:
        """Return when all of `names` are healthy.

        Raises:
            StartFailed: one is not within `timeout_s`; the message ends with its log's last lines.
        """
        deadline = time.monotonic() + timeout_s
        for name in names:
            while True:
                with self._lock:
                    child = self._children[name]
                    problem = child.problem
                    if child.healthy_since is not None:
                        break
                if time.monotonic() > deadline or self._closing.is_set():
                    raise StartFailed(
                        f"{name} is not ready after {timeout_s:.0f} s: {problem}\n"
                        f"last lines of {self.log_path(name)}:\n{self.log_tail(name)}"
                    )
                time.sleep(0.05)

    def running(self, name: str) -> bool:
        """Whether the process is alive now."""
        with self._lock:
            child = self._children.get(name)
            return child is not None and child.popen is not None and child.popen.poll() is None

    def join(self, name: str, timeout_s: float) -> None:
        """Wait for the end of a job (`once`), then forget it.

        Raises:
            JobFailed: it ended with another code than 0, or is not done within `timeout_s` and was ended.
        """
        deadline = time.monotonic() + timeout_s
        while self.running(name) and time.monotonic() < deadline and not self._closing.is_set():
            time.sleep(0.05)
        popen = self._children[name].popen
        code = None if popen is None else popen.poll()
        self.stop(name)
        if code != 0:
            what = f"not done after {timeout_s:.0f} s" if code is None else f"ended with {code}"
            raise JobFailed(f"{name}: {what}; last lines of {self.log_path(name)}:\n{self.log_tail(name)}")

    def stop(self, *names: str) -> None:
        """End the processes, all at the same time: TERM, wait, KILL."""
        with self._lock:
            children = [self._children.pop(name) for name in names if name in self._children]
        started = [(child, child.popen) for child in children if child.popen is not None]
        for _, popen in started:
            if popen.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(popen.pid, signal.SIGTERM)
        for child, popen in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(child.spec.stop_s)
            end_group(popen.pid)
            child.end_workers()
            popen.wait()
            self.note(child.spec.name, "stopped")
        self._save()

    def stop_all(self) -> None:
        """End everything, last started first; then the guard. Safe to repeat."""
        if not self._closing.is_set():
            with self._lock:  # so that nobody is in the middle of a start
                self._closing.set()
            for thread in self._threads:
                if thread.is_alive() and thread is not threading.current_thread():
                    thread.join(5)
        with self._lock:
            layers = {name: child.spec.layer for name, child in self._children.items()}
        for layer in sorted(set(layers.values()), reverse=True):
            self.stop(*(name for name, its in layers.items() if its == layer))
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.write(b"q")
                self._guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(5)
            self._guard = None

    @property
    def closing(self) -> bool:
        """Whether it ends everything, or has."""
        return self._closing.is_set()

    def status(self) -> list[Status]:
        """What is known of each process now."""
        with self._lock:
            return [child.status() for child in self._children.values()]

    def log_path(self, name: str) -> Path:
        """Where the output of process `name` goes."""
        return self.logs / f"{name}.log"

    def log_tail(self, name: str, lines: int = 12) -> str:
        """The newest lines of a process's output."""
        return logs.tail(self.log_path(name), lines)

    def note(self, name: str, what: str) -> None:
        """Append one event to run/events.jsonl; the report tells deaths and restarts from it."""
        line = json.dumps({"at": dt.datetime.now(dt.UTC).isoformat(), "process": name, "event": what})
        with contextlib.suppress(OSError), (self.run / EVENTS).open("a") as out:  # a full disk must not end the watch
            out.write(line + "\n")

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        with self.log_path(spec.name).open("ab") as log:
            child.popen = subprocess.Popen(
                list(spec.argv), env=dict(spec.env), cwd=spec.cwd,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        child.started, child.restart_at = time.monotonic(), None
        child.healthy_since = child.sick_since = None
        child.was_ready, child.problem = False, "starting"
        if spec.probe is None:
            child.healthy_since, child.problem, child.was_ready = child.started, None, True
        self._save()
        self.note(spec.name, f"started, pid {child.popen.pid}")

    def _save(self) -> None:
        with self._lock:
            records = [
                Record(child.spec.name, child.popen.pid, start_time(child.popen.pid), tuple(child.spec.argv))
                for child in self._children.values()
                if child.popen is not None and child.popen.poll() is None
            ] + [worker for child in self._children.values() for worker in child.workers]
        with contextlib.suppress(OSError):
            write_records(self.run / RECORDS, [record for record in records if record.started is not None])

    def _watch(self) -> None:
        """Deaths and due restarts, ten times a second."""
        for look in itertools.count(1):
            if self._closing.wait(0.1):
                return
            with self._lock:
                for child in self._children.values():
                    self._look_at(child)
            if look % 100 == 0:
                with contextlib.suppress(OSError):
                    logs.shorten(self.logs)

    def _look_at(self, child: _Child) -> None:
        now = time.monotonic()
        if child.restart_at is not None:
            if now >= child.restart_at:
                child.restarts += 1
                try:
                    self._spawn(child)
                except OSError as error:
                    self._bury(child, f"could not be started: {error}")
            return
        if child.popen is None or child.popen.poll() is None:
            if child.sick_since is not None:
                limit_s = child.spec.sick_s if child.was_ready else child.spec.ready_s
                if limit_s is not None and now - child.sick_since > limit_s:
                    self._bury(child, f"unhealthy for {limit_s:.0f} s ({child.problem})")
            # Its socket would still take connections, and nobody answer them.
            if child.was_ready and not all(worker.is_alive() for worker in child.workers):
                self._bury(child, "its worker died")
            return
        code = child.popen.returncode
        if not child.spec.once:
            self._bury(child, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}")

    def _bury(self, child: _Child, why: str) -> None:
        now = time.monotonic()
        if child.healthy_since is not None and now - child.healthy_since > STEADY_S:
            child.deaths = 0
        child.deaths += 1
        child.all_deaths += 1
        child.last_death = why
        wait_s = back_off_s(child.deaths)
        if child.popen is not None:
            end_group(child.popen.pid)  # workers of a dead leader would hold its port
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.popen.wait(2)
        child.end_workers()
        child.healthy_since, child.problem = None, f"{why}; restart in {wait_s:.1f} s"
        child.restart_at = now + wait_s
        self.note(child.spec.name, child.problem)

    def _probe_all(self) -> None:
        """Health of all, one after the other; not under the lock, since a probe may take a second."""
        while not self._closing.wait(0.1):
            with self._lock:
                due = [
                    child for child in self._children.values()
                    if child.spec.probe and child.popen and child.restart_at is None
                    and (child.healthy_since is None or int(time.monotonic() * 10) % 10 == 0)
                ]  # fmt: skip
            for child in due:
                popen, probe = child.popen, child.spec.probe
                problem = probe() if probe else None
                live = child.spec.live
                alive = problem is not None and live is not None and child.was_ready and live() is None
                with self._lock:
                    if child.popen is popen and child.restart_at is None:
                        if child.spec.workers and child.popen is not None and child.healthy_since is None:
                            child.workers = children_of(child.popen.pid, child.spec.name) or child.workers
                        self._heard(child, problem, alive)

    def _heard(self, child: _Child, problem: str | None, alive: bool) -> None:
        now = time.monotonic()
        child.problem = problem
        if problem is None:
            if child.healthy_since is None:
                child.healthy_since = now
                self._save()
                self.note(child.spec.name, f"healthy after {now - child.started:.1f} s")
            child.sick_since, child.was_ready = None, True
        else:
            child.healthy_since = None
            child.sick_since = None if alive else child.sick_since or now


def clean_up(run: Path) -> list[str]:
    """End what an earlier, half-dead lab left running under `run`; returns a sentence for each.

    A process is ended only when its start time and command line are those that were recorded: a pid is reused.
    """
    said = []
    for record in read_records(run / RECORDS):
        if record.is_alive():
            end_group(record.pid)
            said.append(f"ended {record.name} (pid {record.pid}), left by an earlier lab")
    (run / RECORDS).unlink(missing_ok=True)
    return said
