"""Measures what the gates decide on: scores every model on the holdout, joins it again, probes the artefact."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.artefact import ONNX_FILE, ArtefactError, ModelManifest
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, Task
from flightdeck.contracts.release import ModelRef
from pipelines.gates.evidence import Evidence, Footprint, Rejoined, Scored, Truncated
from pipelines.gates.metrics import separation
from pipelines.registry.artefacts import opened
from pipelines.registry.runtime import OnnxModel
from pipelines.training.candidate import BASELINE_SCORE, DAY, SKLEARN_SCORE, Candidate
from pipelines.training.dataset import KNOWN_AT, TIME, filled, matrix

Join = Callable[[StateLayout, str, pl.DataFrame], Any]  # (layout, feature service, entities) -> TrainingFrame
Truncate = Callable[[Candidate], Truncated]
REJOIN_ROWS = 2000
REPOSITORY = Path(__file__).resolve().parents[2]
PROBE_TIMEOUT_S = 120


def store_join(layout: StateLayout, feature_service: str, entity: pl.DataFrame) -> Any:
    """Point-in-time join of the feature store."""
    from pipelines.features.training_frame import training_frame

    return training_frame(layout, feature_service, entity)


def store_truncation(candidate: Candidate) -> Truncated:
    """Every view of the lake built with and without what came after the middle of the holdout.

    It says something about the features, not about this candidate: the answer is kept for the same lake versions,
    moment, views and feature code, so that candidates of one training share it.
    """
    from pipelines import stores
    from pipelines.data.leakage import LeakError
    from pipelines.features.truncation import assert_no_future
    from pipelines.use_case import load_use_case

    facts = candidate.facts
    middle = facts.holdout_from + (facts.holdout_until - facts.holdout_from) / 2
    lake, views = stores.lake(candidate.layout), sorted(candidate.manifest().views)
    asked = json.dumps([load_use_case().name, middle.isoformat(), views, lake.versions(), _feature_code()])
    kept = candidate.layout.candidates / f"truncation-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    if kept.is_file():
        return Truncated(**json.loads(kept.read_text()))
    try:
        found = Truncated(sum(assert_no_future(load_use_case(), lake, middle, views=views).values()), "")
    except LeakError as error:
        found = Truncated(0, str(error))
    draft = kept.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(dataclasses.asdict(found)))
    draft.rename(kept)
    return found


def _feature_code() -> str:
    """Digest of the code that makes features."""
    files = sorted(path for part in ("feature_repo", "pipelines") for path in (REPOSITORY / part).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def scores(manifest: ModelManifest, onnx: Path, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
    """What the artefact would have answered to the rows of `frame`, missing values replaced as in serving."""
    defaults = np.array([item.default for item in manifest.features], dtype=np.float32)
    values = matrix(frame, [item.name for item in manifest.features])
    return OnnxModel(onnx).score(filled(values, defaults)).astype(np.float64)


def entity_of(candidate: Candidate) -> pl.DataFrame:
    """The holdout without features, scores and labels' future: what a point-in-time join starts from."""
    features = {item.name for item in candidate.manifest().features}
    entity_columns = set(candidate.spec.entity_keys) | {"row_id", "entity_id", TIME, KNOWN_AT}
    dropped = [
        name
        for name in candidate.holdout.columns
        if name in {SKLEARN_SCORE, BASELINE_SCORE, DAY} or (name in features and name not in entity_columns)
    ]
    return candidate.holdout.drop(dropped)


def rejoined(candidate: Candidate, join: Join) -> tuple[Rejoined, Any]:
    """A sample of the holdout joined again; a feature the store does not give differs in every row."""
    manifest = candidate.manifest()
    entity = entity_of(candidate)
    sample = entity.sample(min(REJOIN_ROWS, entity.height), seed=0).sort(TIME, "row_id")
    frame = join(candidate.layout, candidate.spec.feature_service, sample)
    again = frame.frame.sort("row_id")
    shown = candidate.holdout.join(sample.select("row_id"), on="row_id", how="semi").sort("row_id")
    differing = {}
    for item in manifest.features:
        if item.name not in again.columns:
            differing[item.name] = shown.height
            continue
        before, after = (part[item.name].cast(pl.Float32).to_numpy() for part in (shown, again))
        differing[item.name] = (
            int(np.count_nonzero(~np.isclose(before, after, rtol=1e-6, atol=1e-6, equal_nan=True)))
            if len(before) == len(after)
            else shown.height
        )
    return Rejoined(shown.height, differing), frame


def footprint(onnx: Path) -> Footprint:
    """See probe.py.

    Raises:
        RuntimeError: the probe failed; its last words are in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.gates.probe", str(onnx)],
        capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"probe exited {done.returncode}: {done.stderr.strip()[-300:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return Footprint(size_mb=onnx.stat().st_size / 1e6, **measured)


def champion_scores(candidate: Candidate, champion: ModelRef, join: Join) -> npt.NDArray[np.float64]:
    """The champion's ONNX on the candidate's holdout, with the champion's own feature service.

    Raises:
        ArtefactError: its artefact is absent or altered.
        ValueError: its features cannot be joined, or rows were lost.
    """
    manifest, onnx = opened(candidate.layout.artefacts, champion.sha256)
    joined = join(candidate.layout, manifest.feature_service, entity_of(candidate)).frame
    order = candidate.holdout.select("row_id")
    frame = order.join(joined, on="row_id", how="inner", maintain_order="left")
    if frame.height != candidate.holdout.height:
        raise ValueError(f"{frame.height} of {candidate.holdout.height} holdout rows joined for {champion.version}")
    return scores(manifest, onnx, frame)


def moves(spec: ModelSpec, manifest: ModelManifest, onnx: Path, holdout: pl.DataFrame) -> dict[str, float | None]:
    """Mean change of the score when a direction test's feature is raised on every holdout row."""
    names = [item.name for item in manifest.features]
    defaults = np.array([item.default for item in manifest.features], dtype=np.float32)
    values = filled(matrix(holdout, names), defaults)
    model = OnnxModel(onnx)
    before = model.score(values).astype(np.float64)
    moved: dict[str, float | None] = {}
    for test in spec.direction_tests:
        if test.feature not in names:
            moved[test.feature] = None
            continue
        raised = values.copy()
        raised[:, names.index(test.feature)] += np.float32(test.add)
        moved[test.feature] = float((model.score(raised).astype(np.float64) - before).mean())
    return moved


def separations(spec: ModelSpec, features: list[str], holdout: pl.DataFrame) -> dict[str, float]:
    """How well each feature alone tells positives from negatives (a regression: above or below the median)."""
    label = holdout[spec.target.label].cast(pl.Float64).to_numpy()
    positive = label > (0.5 if spec.task is Task.CLASSIFICATION else np.median(label))
    return {name: separation(holdout[name].cast(pl.Float32).to_numpy(), positive) for name in features}


def gather(
    candidate: Candidate, champion: ModelRef | None, join: Join = store_join, truncate: Truncate = store_truncation
) -> Evidence:
    """Everything the gates see. What cannot be measured is None, with the reason in `problems`: the gate holds.

    Raises:
        ArtefactError: the candidate's own artefact is absent or altered; there is nothing to judge.
    """
    spec, manifest = candidate.spec, candidate.manifest()
    onnx = candidate.folder / ONNX_FILE
    names = [item.name for item in manifest.features]
    problems: dict[str, str] = {}

    def attempt(gate: str, measure: Callable[[], Any]) -> Any:
        try:
            return measure()
        except ArtefactError as error:
            problems[gate] = str(error)
        except Exception as error:
            problems[gate] = f"{type(error).__name__}: {error}"
        return None

    champion_score = attempt("quality", lambda: champion_scores(candidate, champion, join)) if champion else None
    again = attempt("leak_join", lambda: rejoined(candidate, join))
    service = again[1] if again else None
    return Evidence(
        spec=spec,
        scored=Scored(
            label=candidate.label,
            day=candidate.holdout[DAY].to_numpy(),
            candidate=scores(manifest, onnx, candidate.holdout),
            baseline=candidate.holdout[BASELINE_SCORE].to_numpy(),
            champion=champion_score,
            sklearn=candidate.holdout[SKLEARN_SCORE].to_numpy(),
            slices={
                name: candidate.holdout[name].cast(pl.String).fill_null("(none)").to_numpy().astype(str)
                for name in spec.slices
            },
        ),
        champion_version=champion.version if champion else None,
        features=names,
        separations=attempt("leak_metric", lambda: separations(spec, names, candidate.holdout)) or {},
        moved=attempt("directions", lambda: moves(spec, manifest, onnx, candidate.holdout)) or {},
        footprint=attempt("latency", lambda: footprint(onnx)),
        model_inputs=attempt("signature", lambda: OnnxModel(onnx).n_features),
        service_features=[item.name for item in service.features] if service else None,
        service_views=sorted({item.view for item in service.features if item.source == "stored"}) if service else None,
        manifest_views=sorted(manifest.views),
        rejoined=again[0] if again else None,
        truncated=attempt("leak_truncation", lambda: truncate(candidate)),
        problems=problems,
    )
