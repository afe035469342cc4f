"""The heavy work of the story: trainings with their gates, and the preparation of a replay. Run by worker.py."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from flightdeck.contracts.layout import StateLayout
from flightdeck.lab.requests import MonthQuality, Trained, TrainRequest, TrainResult, WorldRequest, WorldResult
from flightdeck.lab.users import write_atomically

if TYPE_CHECKING:
    import polars as pl

    from pipelines.features.training_frame import TrainingFrame
    from pipelines.training.candidate import Candidate


def train(request: TrainRequest, result: TrainResult, told: Path) -> None:
    """Train, gate and register each candidate; the join is made once for all."""
    from flightdeck.contracts.model_spec import load_model_spec
    from flightdeck.contracts.release import ModelRef
    from pipelines.gates.gate import gate_candidate
    from pipelines.registry.versions import register
    from pipelines.training.dataset import window
    from pipelines.training.train import joined_frame, train_candidate
    from pipelines.use_case import load_use_case

    layout = StateLayout.from_env()

    def tell(step: str) -> None:
        result.step = step
        write_atomically(told, result)

    spec = load_model_spec(Path(request.spec))
    seen = request.champion
    champion = ModelRef(name=seen.name, version=seen.version, sha256=seen.sha256) if seen else None
    times = window(request.until_utc, spec.split, load_use_case().time_zone)
    if request.joins:
        tell(f"{spec.name}: join features as of prediction time")
        frame = joined_frame(spec, layout, times, request.until_utc)
        keep_frame(Path(request.frame), frame)
    else:
        tell(f"{spec.name}: wait for the shared join")
        frame = shared_frame(Path(request.frame), layout, spec.feature_service)
        if frame is None:
            tell(f"{spec.name}: join features of its own")
            frame = joined_frame(spec, layout, times, request.until_utc)
    for one in request.candidates:
        label = one.note or spec.name
        started = time.perf_counter()
        candidate = train_candidate(
            spec, layout, until_utc=request.until_utc, tracking_uri=request.tracking_uri, frame=frame,
            trials=one.trials, sample_rows=one.sample_rows, note=one.note, progress=_prefixed(label, tell),
            plant=_leak if one.drill == "leak" else None,
            spoil=_shuffled(spec.target.label) if one.drill == "worse" else None,
        )  # fmt: skip
        trained_s = time.perf_counter() - started
        tell(f"{label}: gates")
        report = gate_candidate(candidate, champion)
        ref = register(candidate, report)
        result.trained.append(
            Trained(
                candidate.run_id, ref.version, ref.sha256, report.verdict.value, report.reason, one.note, one.drill,
                trained_s, time.perf_counter() - started - trained_s,
            )
        )  # fmt: skip
        if request.months and not one.drill:
            tell(f"{label}: quality by month")
            versions = [(ref, candidate.facts.train_until)]
            if champion:
                versions.append((champion, _trained_until(layout, champion.sha256)))
            for version, until in versions:
                result.months += by_month(candidate, frame.frame, version.version, version.sha256, until)
    tell("done")


def keep_frame(path: Path, frame: TrainingFrame) -> None:
    """Write a joined frame for the job beside this one; the facts last, since they say that all is there."""
    frame.frame.write_parquet(path)
    facts = {"features": frame.names, "export_id": frame.export_id, "table_versions": frame.table_versions}
    write_atomically(path.with_suffix(".json"), facts)


def shared_frame(path: Path, layout: StateLayout, feature_service: str, wait_s: float = 300) -> TrainingFrame | None:
    """The frame that another job joins, with the columns of this feature service; None when it lacks one of them.

    Raises:
        TimeoutError: the other job did not write it.
    """
    import polars as pl

    from pipelines.features.registry import open_store
    from pipelines.features.training_frame import TrainingFrame, service_features

    features = service_features(open_store(layout), feature_service)
    facts_path, deadline = path.with_suffix(".json"), time.monotonic() + wait_s
    while not facts_path.is_file():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the job beside this one did not write {facts_path} within {wait_s:.0f} s; see its log")
        time.sleep(0.1)
    facts = msgspec.json.decode(facts_path.read_bytes())
    wanted = {feature.name for feature in features}
    if not wanted <= set(facts["features"]):
        return None
    frame = pl.read_parquet(path).drop(set(facts["features"]) - wanted)
    return TrainingFrame(frame, features, feature_service, facts["export_id"], facts["table_versions"])


def _prefixed(label: str, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda step: tell(f"{label}: {step}")


def _leak(frame: pl.DataFrame) -> pl.DataFrame:
    """Congestion as it would be if it were computed too late: the flight's own delay is in it."""
    import polars as pl

    own = pl.col("label_dep_delay_min").fill_null(240.0)
    return frame.with_columns(mean_dep_delay_min_1h=(pl.col("mean_dep_delay_min_1h") + own).cast(pl.Float32))


def _shuffled(label: str) -> Any:
    """Training rows whose outcomes belong to other flights: nothing true can be learnt from them."""
    import polars as pl

    return lambda rows: rows.with_columns(pl.col(label).shuffle(seed=7))


def _trained_until(layout: StateLayout, sha256: str) -> dt.datetime:
    """Until when the training rows of an artefact reach, from its candidate's facts."""
    from pipelines.training.candidate import FACTS_FILE, Facts

    for path in layout.candidates.glob(f"*/{FACTS_FILE}"):
        facts = Facts.model_validate_json(path.read_text())
        if facts.sha256 == sha256:
            return facts.train_until
    return dt.datetime.max.replace(tzinfo=dt.UTC)  # not known: call every month seen rather than none


def by_month(
    candidate: Candidate, frame: pl.DataFrame, version: str, sha256: str, trained_until: dt.datetime
) -> list[MonthQuality]:
    """Quality of one artefact in each month of the frame."""
    import polars as pl

    from flightdeck.contracts.artefact import ONNX_FILE, verify_artefact
    from pipelines.gates.measure import scores
    from pipelines.gates.metrics import day_numbers, measure_of, point

    spec = candidate.spec
    folder = candidate.layout.artefacts / sha256
    manifest = verify_artefact(folder, sha256)
    rows = frame.filter(pl.col(spec.target.label).is_not_null())
    rows = rows.with_columns(
        _score=pl.Series(scores(manifest, folder / ONNX_FILE, rows)), _month=pl.col("event_timestamp").dt.month()
    )
    found = []
    for (month,), part in rows.group_by("_month", maintain_order=True):
        day = part["event_timestamp"].dt.date().to_numpy()
        label = part[spec.target.label].cast(pl.Float64).to_numpy()
        measure = measure_of(spec.task, label, part["_score"].to_numpy(), day)
        first = part["event_timestamp"].min()
        assert isinstance(first, dt.datetime)
        found.append(
            MonthQuality(
                spec.name, f"{first:%Y}-{month:02d}", version, float(point(measure, day_numbers(day)[1])), part.height,
                first < trained_until,
            )
        )  # fmt: skip
    return found


def world(request: WorldRequest, told: Path) -> None:
    """Write what the users send and what the streamer tells."""
    from flightdeck.lab.users import write_arrivals
    from flightdeck.lab.world import arrivals, feed, write_feed
    from pipelines import stores
    from pipelines.use_case import load_use_case

    lake = stores.lake(StateLayout.from_env())
    asked = arrivals(request.from_utc, request.until_utc)
    write_arrivals(Path(request.arrivals), asked)
    content = feed(load_use_case(), lake, request.from_utc, request.until_utc)
    write_feed(Path(request.feed), content)
    write_atomically(told, WorldResult(len(asked), sum(map(len, content.batch.values()))))
