"""What the lab asks of its workers, and what they answer: plain data in files of one folder per worker.

`<name>.request` -> `<name>.result` (may grow while the work goes on) -> `<name>.done` or `<name>.failed`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import msgspec

from flightdeck.lab.users import write_atomically


class ModelSeen(msgspec.Struct, frozen=True):
    """A registered version by content, as contracts.release.ModelRef."""

    name: str
    version: str
    sha256: str


class TrainOne(msgspec.Struct, frozen=True):
    """One candidate to make. drill: "" for an honest one, `leak` or `worse` for one that the gates must refuse."""

    note: str
    drill: str = ""
    trials: int | None = None
    sample_rows: int | None = None


class TrainRequest(msgspec.Struct, frozen=True):
    """Candidates of one spec, trained as of `until_utc` and judged against `champion`.

    Args:
        frame: a file for the joined training frame. A model whose features are among those of another shares its join:
            the request with `joins` makes it, the others wait for it.
        months: measure the honest candidate and the champion in each month of the frame.
    """

    spec: str
    until_utc: dt.datetime
    tracking_uri: str
    candidates: list[TrainOne]
    frame: str
    joins: bool
    champion: ModelSeen | None = None
    months: bool = False


class TrainBatch(msgspec.Struct, frozen=True, tag="batch"):
    """Several train requests, one after the other, in one process."""

    requests: list[TrainRequest]


class WorldRequest(msgspec.Struct, frozen=True, tag="world"):
    """Requests and feature rows of a replay; see world.py."""

    from_utc: dt.datetime
    until_utc: dt.datetime
    arrivals: str
    feed: str


class Trained(msgspec.Struct, frozen=True):
    """What became of one candidate; its card is in candidates/<run_id>/card.json."""

    run_id: str
    version: str
    sha256: str
    verdict: str
    reason: str
    note: str
    drill: str
    train_s: float
    gate_s: float


class MonthQuality(msgspec.Struct, frozen=True):
    """Metric of one version in one month of prediction times; `seen` when it was trained on some of it."""

    model: str
    month: str
    version: str
    metric: float
    rows: int
    seen: bool


class TrainResult(msgspec.Struct):
    """What became of a TrainBatch; `step` tells what it does while it runs."""

    trained: list[Trained] = msgspec.field(default_factory=list)
    months: list[MonthQuality] = msgspec.field(default_factory=list)
    step: str = "starting"


class WorldResult(msgspec.Struct, frozen=True):
    """What became of a WorldRequest."""

    requests: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Job:
    """The files of one request."""

    folder: Path
    name: str

    @property
    def request(self) -> Path:
        """What is asked."""
        return self.folder / f"{self.name}.request"

    @property
    def result(self) -> Path:
        """What came of it so far."""
        return self.folder / f"{self.name}.result"

    @property
    def done(self) -> Path:
        """Appears when all went well."""
        return self.folder / f"{self.name}.done"

    @property
    def failed(self) -> Path:
        """Appears, with the traceback in it, when it did not."""
        return self.folder / f"{self.name}.failed"

    def submit(self, request: TrainBatch | WorldRequest) -> None:
        """Ask; whatever an earlier request of this name left is forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.done, self.failed, self.result):
            path.unlink(missing_ok=True)
        write_atomically(self.request, request)

    def train_result(self) -> TrainResult:
        """The (growing) result of a TrainBatch; empty while there is none."""
        if not self.result.is_file():
            return TrainResult()
        return msgspec.json.decode(self.result.read_bytes(), type=TrainResult)
