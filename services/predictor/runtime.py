"""Wires the parts of one predictor process and answers rows; knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis.asyncio

from feature_repo import request as use_case
from flightdeck.contracts.artefact import ArtefactError
from flightdeck.contracts.model_spec import OnMissing
from flightdeck.contracts.prediction import PredictionRecord
from services.predictor import features, model, schema
from services.predictor.artefacts import obtain_artefact
from services.predictor.clock import WatchedClock
from services.predictor.errors import ApiError
from services.predictor.metrics import Metrics
from services.predictor.online_store import OnlineStore, StoreUnavailable
from services.predictor.prediction_log import PredictionLog
from services.predictor.settings import PredictorSettings

logger = logging.getLogger("flightdeck.predictor")
_ROWS_FOR_A_THREAD = 128  # more rows than this would hold up the others' answers


def load_model(settings: PredictorSettings) -> tuple[model.Model, features.FeaturePlan]:
    """The verified model, run once, and where its inputs come from.

    Raises:
        ArtefactError: it cannot be had, is not what was asked for, or does not run.
    """
    folder, manifest = obtain_artefact(
        artefacts=settings.artefacts,
        name=settings.model_name,
        version=settings.model_version,
        sha256=settings.model_sha256,
        tracking_uri=settings.tracking_uri,
    )
    try:
        plan = features.plan_from_manifest(manifest, use_case.ON_DEMAND_FEATURES)
    except ValueError as error:
        raise ArtefactError(str(error)) from error
    return model.Model(folder, manifest), plan


class Runtime:
    """Everything one process needs to answer; make it inside the running event loop with `start`."""

    def __init__(self, settings: PredictorSettings) -> None:
        """Load the model; no I/O beyond the artefact.

        Raises:
            ArtefactError: see `load_model`.
        """
        self.settings = settings
        self.model, self.plan = load_model(settings)
        self.manifest = self.model.manifest
        self.metrics = Metrics(
            model=settings.model_name,
            version=settings.model_version,
            sha256=settings.model_sha256,
            feature_service=self.manifest.feature_service,
            image=settings.image,
        )
        self.replica = settings.replica or f"{socket.gethostname()}:{os.getpid()}"
        self.info = schema.ModelInfo(settings.model_name, settings.model_version, settings.model_sha256)
        self.on_demand: Callable[[use_case.Request], Mapping[str, float]] = use_case.on_demand
        self.draining = False
        self.started = False

    async def start(self) -> None:
        """Connect; the predictor is ready afterwards, whether the stores answer or not."""
        settings = self.settings
        self._streams: Any = redis.asyncio.Redis.from_url(
            settings.streams_redis_url,
            socket_timeout=2.0,
            socket_connect_timeout=1.0,
            client_name="flightdeck-predictor",
        )
        self.store = OnlineStore(
            settings.online_redis_url,
            self.manifest.feature_project,
            self.plan.views,
            timeout_s=settings.features_timeout_s,
        )
        self.clock = WatchedClock(self._streams)
        self.log = PredictionLog(
            self._streams,
            self.metrics,
            queue_rows=settings.log_queue_rows,
            batch_rows=settings.log_batch_rows,
            interval_s=settings.log_interval_s,
            stream_entries=settings.log_stream_entries,
        )
        await self.clock.start()
        self.log.start()
        self.started = True
        logger.info(
            "serving %s version %s (%s), feature service %s, as %s",
            settings.model_name,
            settings.model_version,
            settings.model_sha256[:12],
            self.manifest.feature_service,
            self.replica,
        )

    async def stop(self) -> None:
        """Write the rest of the log, then let go of everything."""
        if not self.started:
            return
        self.started = False
        await self.log.stop(self.settings.log_flush_timeout_s)
        await self.clock.stop()
        await self.store.close()
        await self._streams.aclose()

    @property
    def about(self) -> dict[str, str]:
        """What the process serves beside the model: the code, its release, and where the features come from."""
        return {
            "feature_service": self.manifest.feature_service,
            "feature_project": self.manifest.feature_project,
            "image": self.settings.image,
            "release": self.settings.release,
            "replica": self.replica,
        }

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.started and not self.draining

    async def predict(
        self, rows: list[use_case.Request], request_id: str, started_s: float
    ) -> tuple[list[schema.Prediction], bool]:
        """Answers for typed rows, with features from the online store.

        Args:
            started_s: `time.perf_counter()` when the request came, for the record's latency.
        Raises:
            ApiError: 503 when a view whose policy is `reject` has no usable values.
        """
        settings, manifest, plan = self.settings, self.manifest, self.plan
        unreachable = ""
        stored: list[Any]
        keys = [use_case.entity_keys(row) for row in rows]
        try:
            stored = await self.store.fetch(keys)
        except StoreUnavailable as error:
            self.metrics.store_failures[error.kind] += 1
            unreachable = str(error)
            stored = [None] * len(rows)
        now_s = self.clock.now_s()
        assembled: list[features.Assembled] = []
        for at, row in enumerate(rows):
            one = features.assemble(
                plan,
                self.on_demand(row),
                stored[at],
                now_s=now_s,
                future_tolerance_s=settings.future_tolerance_s,
                unreachable=unreachable,
            )
            for problem in one.problems:
                self.metrics.features[problem.view, problem.kind] += 1
            if one.action is OnMissing.REJECT:
                reasons = "; ".join(problem.reason for problem in one.problems)
                raise ApiError(503, "features_unavailable", reasons, f"rows[{at}]")
            assembled.append(one)
        vectors = [one.vector for one in assembled]
        scores = await self._score(vectors)
        predictions: list[schema.Prediction] = []
        any_degraded = False
        latency_us = int((time.perf_counter() - started_s) * 1e6)
        for at, (row, one) in enumerate(zip(rows, assembled, strict=True)):
            score = scores[at]
            reasons_of_row = [problem.reason for problem in one.problems]
            kinds = {problem.kind for problem in one.problems}
            if one.action is OnMissing.FALL_BACK:
                score = manifest.fallback_score
                reasons_of_row.append(f"fall_back: answered the model's base rate {score:g}")
                kinds.add("fall_back")
            elif not math.isfinite(score):
                score = manifest.fallback_score
                reasons_of_row.append(f"model: score not finite, answered the base rate {score:g}")
                kinds.add("model")
            off = features.horizon_reason(
                now_s=now_s,
                due_s=use_case.event_time_of(row, manifest.horizon_min).timestamp(),
                horizon_min=manifest.horizon_min,
                tolerance_min=settings.horizon_tolerance_min,
            )
            if off is not None:
                reasons_of_row.append(off)
                kinds.add("horizon")
            if reasons_of_row:
                any_degraded = True
                self.metrics.degraded.update(kinds)
            decision = self.model.decision(score)
            entity_id = use_case.entity_id(row)
            predictions.append(schema.Prediction(entity_id, score, decision, reasons_of_row))
            self._record(
                request_id=request_id,
                row=at,
                entity_id=entity_id,
                now_s=now_s,
                vector=one.vector,
                score=score,
                decision=decision,
                degraded=reasons_of_row,
                ages_s=one.ages_s,
                latency_us=latency_us,
                keys=keys[at],
            )
        return predictions, any_degraded

    async def score(
        self, vectors: list[tuple[float | None, ...]], request_id: str, started_s: float
    ) -> list[schema.Score]:
        """Scores of full vectors, without the store; null gets the training median.

        Raises:
            ApiError: 422 when the model has no finite score for a row.
        """
        filled = [features.known(vector, self.plan.defaults) for vector in vectors]
        scores = await self._score(filled)
        now_s = self.clock.now_s()
        latency_us = int((time.perf_counter() - started_s) * 1e6)
        answers = []
        for at, score in enumerate(scores):
            if not math.isfinite(score):
                raise ApiError(422, "not_scorable", "the model has no finite score for this row", f"rows[{at}]")
            decision = self.model.decision(score)
            answers.append(schema.Score(score, decision))
            self._record(
                request_id=request_id,
                row=at,
                entity_id="",
                now_s=now_s,
                vector=filled[at],
                score=score,
                decision=decision,
                degraded=[],
                ages_s={},
                latency_us=latency_us,
                keys={},
            )
        return answers

    async def _score(self, vectors: Any) -> list[float]:
        rows = model.matrix(vectors)
        if len(rows) > _ROWS_FOR_A_THREAD:
            return await asyncio.to_thread(self.model.score, rows)
        return self.model.score(rows)

    def _record(
        self,
        *,
        request_id: str,
        row: int,
        entity_id: str,
        now_s: float,
        vector: Any,
        score: float,
        decision: str | None,
        degraded: list[str],
        ages_s: dict[str, float | None],
        latency_us: int,
        keys: dict[str, str],
    ) -> None:
        info = self.info
        self.log.append(
            PredictionRecord(
                request_id=request_id,
                row=row,
                entity_id=entity_id,
                asked_at_us=int(now_s * 1e6),
                model=info.name,
                version=info.version,
                sha256=info.sha256,
                feature_service=self.manifest.feature_service,
                features=list(vector),
                feature_hash=feature_hash(vector),
                score=score,
                decision=decision or "",
                degraded=degraded,
                ages_s=ages_s,
                latency_us=latency_us,
                replica=self.replica,
                release=self.settings.release,
                keys=keys,
            )
        )


def feature_hash(vector: Any) -> str:
    """Of the vector's float32 bytes: equal vectors have equal hashes, across versions and replicas."""
    return hashlib.blake2b(model.matrix(vector).tobytes(), digest_size=8).hexdigest()
