"""Adapter: which predictor replicas shall run, and which do. Two files, so that either side may be killed at any time.

The controller writes what it wants; the process that owns the supervisor makes it true and writes what it sees.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab.envoy import Endpoint
from flightdeck.lab.supervisor import Closing, Status
from flightdeck.lab.users import write_atomically

if TYPE_CHECKING:
    from flightdeck.lab.stack import Replica, Stack

T = TypeVar("T")
WANTED, OBSERVED = "replicas.json", "observed.json"
INTERVAL_S = 0.2
STARTING = 2  # at a time: a start keeps a core busy for some seconds, and the champion's users need one as well
START_S = 20.0  # longer is no reason to make others wait
STALE_S = 10.0
_NAME = re.compile(r".+-([0-9a-f]{8})-\d+")


class WantedRelease(msgspec.Struct, frozen=True):
    """So many replicas of a release; `release` is a `contracts.release.Release` as a mapping."""

    release: dict[str, object]
    replicas: int


class WantedReplicas(msgspec.Struct, frozen=True):
    """The file `replicas.json`: all that shall run. What is not in it shall not."""

    wanted: list[WantedRelease]


class ReplicaSeen(msgspec.Struct, frozen=True):
    """One replica.

    Args:
        pid: None while it is dead and waits for its restart. problem: why it is not ready; empty when it is.
    """

    name: str
    port: int
    pid: int | None
    ready: bool
    problem: str = ""


class ReleaseSeen(msgspec.Struct, frozen=True):
    """The replicas of one release.

    Args:
        running: that exist in any state: starting, ready, waiting for a restart, answering their last requests.
        deaths: of all its replicas since it was first wanted. last_death: how the last one died, or could not start.
    """

    replicas: list[ReplicaSeen] = msgspec.field(default_factory=list)
    running: int = 0
    deaths: int = 0
    last_death: str = ""

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        """Those that may get requests."""
        return tuple(Endpoint(replica.name, replica.port) for replica in self.replicas if replica.ready)


class ObservedReplicas(msgspec.Struct, frozen=True):
    """The file `observed.json`: what is there, by release id; `at_s` in seconds since 1970, real time."""

    at_s: float
    releases: dict[str, ReleaseSeen]


@dataclasses.dataclass(frozen=True)
class ToDo:
    """Replicas to start (release and number) and to stop (names)."""

    start: tuple[tuple[Release, int], ...]
    stop: tuple[str, ...]


def release_id(replica: str) -> str:
    """The release in a replica's name, `<model>-<id>-<number>`; empty when it is no such name."""
    found = _NAME.fullmatch(replica)
    return found[1] if found else ""


def to_do(
    wanted: Sequence[tuple[Release, int]], running: Sequence[Replica], *, room: int, sick: Collection[str] = ()
) -> ToDo:
    """What makes `running` equal to `wanted`. The ready ones stay, of those the ones with the lowest numbers.

    Args:
        wanted: each release once, with its number of replicas. room: start no more than so many now.
        sick: names of replicas that are not ready.
    """
    counts = {release.id: count for release, count in wanted}
    stop: list[str] = []
    kept: dict[str, set[int]] = {}
    for replica in sorted(running, key=lambda replica: (replica.name in sick, replica.number)):
        numbers = kept.setdefault(replica.release.id, set())
        if len(numbers) < counts.get(replica.release.id, 0):
            numbers.add(replica.number)
        else:
            stop.append(replica.name)
    start = []
    for release, count in wanted:
        numbers = kept.get(release.id, set())
        free = (number for number in itertools.count(1) if number not in numbers)
        start += [(release, next(free)) for _ in range(count - len(numbers))]
    return ToDo(tuple(start[: max(0, room)]), tuple(stop))


# -- the controller's side ----------------------------------------------------------------------------------------


def want(layout: StateLayout, pairs: Sequence[tuple[Release, int]]) -> None:
    """Say what shall run. Writes only what is new."""
    content = WantedReplicas(
        [WantedRelease(release.model_dump(mode="json"), count) for release, count in pairs if count]
    )
    path = layout.run / WANTED
    if _read(path, WantedReplicas) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def wanted(layout: StateLayout) -> list[tuple[Release, int]] | None:
    """What shall run; None when nobody has said so yet, or the file cannot be read: then all stays as it is."""
    found = _read(layout.run / WANTED, WantedReplicas)
    if found is None:
        return None
    try:
        return [(Release.model_validate(item.release), item.replicas) for item in found.wanted]
    except ValueError:
        return None


def observed(layout: StateLayout) -> dict[str, ReleaseSeen]:
    """What was seen last, by release id, however long ago."""
    found = _read(layout.run / OBSERVED, ObservedReplicas)
    return found.releases if found else {}


def observed_of(layout: StateLayout, release: Release | None, now_s: float | None = None) -> ReleaseSeen:
    """What was seen of a release; nothing when the keeper has not written for `STALE_S`."""
    found = _read(layout.run / OBSERVED, ObservedReplicas)
    if found is None or release is None or (time.time() if now_s is None else now_s) - found.at_s > STALE_S:
        return ReleaseSeen()
    return found.releases.get(release.id, ReleaseSeen())


# -- the supervisor's side ----------------------------------------------------------------------------------------


class ReplicaKeeper:
    """A thread beside the supervisor that makes the wanted replicas true. It ends with the supervisor."""

    def __init__(self, stack: Stack, say: Callable[[str], None] | None = None) -> None:
        self.stack, self._say = stack, say or (lambda _: None)
        self._end = threading.Event()
        self._ending: dict[str, threading.Thread] = {}
        self._refused: dict[str, tuple[int, str]] = {}  # release id -> how often a start was refused, and why
        self._thread = threading.Thread(target=self._run, name="lab-replicas", daemon=True)

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def stop(self) -> None:
        """Stop keeping; the replicas go on, they are the supervisor's."""
        self._end.set()
        self._thread.join(15)

    def tick(self) -> None:
        """Look, start, stop, tell."""
        wishes = wanted(self.stack.layout)
        if wishes is not None:
            statuses = self._statuses()
            busy = sum(_is_starting(status) for status in statuses.values())
            sick = {name for name, status in statuses.items() if not status.healthy}
            todo = to_do(wishes, self.stack.replicas(), room=STARTING - busy, sick=sick)
            self._refused = {key: why for key, why in self._refused.items() if key in {item.id for item, _ in wishes}}
            for release, number in todo.start:
                self._start(release, number)
            for name in todo.stop:
                if name not in self._ending:
                    self._ending[name] = threading.Thread(target=self.stack.stop_replica, args=(name,), daemon=True)
                    self._ending[name].start()
        there = {replica.name for replica in self.stack.replicas()}
        self._ending = {name: thread for name, thread in self._ending.items() if name in there}
        write_atomically(self.stack.layout.run / OBSERVED, self.observe())

    def observe(self) -> ObservedReplicas:
        """All replicas as they are now."""
        statuses = self._statuses()
        releases = {key: ReleaseSeen(deaths=count, last_death=why) for key, (count, why) in self._refused.items()}
        for replica in self.stack.replicas():
            status = statuses.get(replica.name)
            so_far = releases.get(replica.release.id, ReleaseSeen())
            seen = ReplicaSeen(replica.name, replica.port, None, False, "answers its last requests")
            if status is not None and replica.name not in self._ending:
                seen = ReplicaSeen(replica.name, replica.port, status.pid, status.healthy, status.problem or "")
            releases[replica.release.id] = ReleaseSeen(
                [*so_far.replicas, seen],
                so_far.running + 1,
                so_far.deaths + (status.deaths if status else 0),
                (status.last_death if status else "") or so_far.last_death,
            )
        return ObservedReplicas(time.time(), releases)

    def _start(self, release: Release, number: int) -> None:
        try:
            self.stack.start_replica(release, number)
            self._refused.pop(release.id, None)
        except (ValueError, OSError) as error:
            count, before = self._refused.get(release.id, (0, ""))
            if before != str(error):
                self._say(f"replica {number} of {release.short} cannot be started: {error}")
            self._refused[release.id] = (count + 1, str(error))

    def _statuses(self) -> dict[str, Status]:
        return {status.name: status for status in self.stack.supervisor.status() if release_id(status.name)}

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_S) and not self.stack.supervisor.closing:
            try:
                self.tick()
            except Closing:
                return
            except Exception as error:  # say, a full disk or a program that is gone: the next tick may do better
                self._say(f"replicas: {error}")


def _is_starting(status: Status) -> bool:
    return not status.healthy and status.deaths == 0 and status.age_s < START_S


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
