"""The ingestor's environment, read once in __main__.py; the code below it receives plain values."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pydantic
import pydantic_settings
import redis.connection


class IngestorSettings(pydantic_settings.BaseSettings):
    """Environment variables `INGESTOR_*`."""

    model_config = pydantic_settings.SettingsConfigDict(env_prefix="INGESTOR_", frozen=True, extra="ignore")

    streams_redis_url: str = pydantic.Field(default="redis://127.0.0.1:6380/0", description="Events and the clock.")
    feature_store: Path = pydantic.Field(
        default=Path("feature_repo/feature_store.yaml"), description="Feast's configuration."
    )
    feast_registry: str = pydantic.Field(default="", description="SQLAlchemy URL instead of the file's registry.")
    online_redis: str = pydantic.Field(
        default="", description="Feast's form `host:port[,key=value...]` instead of the file's online store."
    )
    fold: str = pydantic.Field(
        default="feature_repo.streaming:FlightFold", pattern=r"^[\w.]+:\w+$", description="Who makes the features."
    )
    batch_events: int = pydantic.Field(default=1000, ge=1, le=10_000, description="Events in one transaction, at most.")
    flush_interval_s: float = pydantic.Field(default=0.1, gt=0, le=5, description="Longest wait for a fuller batch.")
    settle_s: float = pydantic.Field(
        default=1.0, ge=0, description="So much real time after it is due, a snapshot waits for its last events."
    )
    silence_s: float = pydantic.Field(
        default=7200.0,
        ge=0,
        description="After the last event snapshots go on so long, on the clock.",
    )
    future_tolerance_s: float = pydantic.Field(
        default=1.0, ge=0, description="How far ahead of the clock an event may be (clock skew)."
    )
    lease_s: float = pydantic.Field(default=15.0, ge=1, description="After so long without a sign another takes over.")
    dead_letters_kept: int = pydantic.Field(default=100_000, ge=1, description="About so many, the newest ones.")
    consumer: str = pydantic.Field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}", min_length=1, description="Its name."
    )
    port: int = pydantic.Field(default=9108, ge=0, le=65535, description="/metrics, /healthz, /readyz; 0: any.")
    drain_s: float = pydantic.Field(default=10.0, ge=0, description="After SIGTERM, for the last rows.")

    @pydantic.field_validator("streams_redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str) -> str:
        try:
            redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError:  # which may quote a part of a password
            raise ValueError("not an address of Redis; write e.g. redis://127.0.0.1:6380/0") from None
        return url


def complaint(error: pydantic.ValidationError) -> str:
    """What is wrong with the environment, by variable; values are not repeated: addresses may carry passwords."""
    lines = [
        f"  INGESTOR_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
        for item in error.errors(include_input=False)
    ]
    return "the settings are incomplete or wrong:\n" + "\n".join(lines)
