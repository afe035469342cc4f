"""The predictor's environment, read once in service.py; the code below it receives plain values."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pydantic_settings
import redis.connection


class PredictorSettings(pydantic_settings.BaseSettings):
    """Environment variables `PREDICTOR_*`. One process serves one model version; scale by starting more of them."""

    model_config = pydantic_settings.SettingsConfigDict(env_prefix="PREDICTOR_", frozen=True, extra="ignore")

    model_name: str = pydantic.Field(min_length=1, description="Registered name, e.g. `late`.")
    model_version: str = pydantic.Field(min_length=1, description="Version in the registry, e.g. `7`.")
    model_sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the artefact's manifest.")
    artefacts: Path = pydantic.Field(
        default=Path(".flightdeck/artefacts"), description="Folder that holds one folder per artefact, named by sha256."
    )
    tracking_uri: str | None = pydantic.Field(
        default=None, description="MLflow server to fetch from when the artefact is not in the folder yet."
    )
    online_redis_url: str = pydantic.Field(default="redis://127.0.0.1:6379/0", description="Feast's online store.")
    streams_redis_url: str = pydantic.Field(
        default="redis://127.0.0.1:6380/0", description="Prediction log and replay clock."
    )
    features_timeout_s: float = pydantic.Field(default=0.2, gt=0, le=10, description="Deadline of one online lookup.")
    future_tolerance_s: float = pydantic.Field(
        default=60.0, ge=0, description="How far ahead of the clock a feature's event time may be (clock skew)."
    )
    horizon_tolerance_min: float = pydantic.Field(
        default=60.0,
        gt=0,
        description="How far from the model's horizon a prediction may be asked before it is degraded.",
    )
    max_rows: int = pydantic.Field(default=1000, ge=1, le=10_000, description="Rows in one request.")
    max_body_bytes: int = pydantic.Field(default=2_000_000, ge=1000, description="Larger bodies are refused unread.")
    request_timeout_s: float = pydantic.Field(default=10.0, gt=0, description="A body must arrive within this.")
    log_queue_rows: int = pydantic.Field(
        default=120_000, ge=1, description="Rows held while the streams Redis is away: 60 s at 2,000 rows/s (~60 MB)."
    )
    log_batch_rows: int = pydantic.Field(default=256, ge=1, le=10_000, description="Rows in one stream entry, at most.")
    log_interval_s: float = pydantic.Field(default=0.2, gt=0, description="Longest time a row waits for its batch.")
    log_stream_entries: int = pydantic.Field(
        default=100_000, ge=1000, description="Approximate stream length beyond which the oldest entries are cut."
    )
    log_flush_timeout_s: float = pydantic.Field(default=5.0, ge=0, description="Time for the last flush at shutdown.")
    drain_s: float = pydantic.Field(
        default=1.0, ge=0, description="After SIGTERM still answer this long, with readiness 503, before closing."
    )
    replica: str = pydantic.Field(
        default="", description="Name of this process in the prediction log; default host:pid."
    )
    image: str = pydantic.Field(default="unknown", description="The code that serves: image digest or commit.")
    release: str = pydantic.Field(default="", description="Id of the Release that this process belongs to, if any.")

    @pydantic.field_validator("online_redis_url", "streams_redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str) -> str:
        """Now, with words: later it would be a trace of the worker, again and again."""
        try:
            redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError:  # which may quote a part of a password
            raise ValueError("not an address of Redis; write e.g. redis://127.0.0.1:6379/0") from None
        return url


def complaint(error: pydantic.ValidationError) -> str:
    """What is wrong with the environment, by variable; values are not repeated: addresses may carry passwords."""
    lines = [
        f"  PREDICTOR_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
        for item in error.errors(include_input=False)
    ]
    return "the settings are incomplete or wrong:\n" + "\n".join(lines)
