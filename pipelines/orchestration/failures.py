"""Decision: is a failure worth another try? A store that is away is; a verdict, bad data or a wrong setting is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg

# 3, 9, 21, 45, 93 s (Dagster's exponential: delay * (2^n - 1)), with jitter: a store that restarts is back by then.
RETRY = dg.RetryPolicy(max_retries=5, delay=3, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# By name, so that telling a failure loads no library that the step did not use.
AWAY = {
    "RegistryUnavailable", "OnlineStoreUnavailable",  # ours
    "ConnectionError", "TimeoutError", "BusyLoadingError",  # builtins and redis
    "OperationalError", "InterfaceError", "DisconnectionError",  # SQLAlchemy, psycopg2
    "TransportError", "URLError",  # httpx, urllib
}  # fmt: skip
AWAY_WORDS = (  # delta-rs has one exception type for everything
    "error sending request", "connection refused", "connection reset", "connection closed", "timed out", "timeout",
    "dns error", "failed to lookup address", "name resolution", "service unavailable", "503", "generic s3 error",
    "max retries exceeded",
)  # fmt: skip
REFUSED_WORDS = ("accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch", "403 forbidden", "nosuchbucket")


def is_away(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that something outside does not answer."""
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in AWAY for kind in type(seen).__mro__):
            return True
        text = str(seen).lower()
        if type(seen).__name__ in {"LakeError", "DeltaError", "CommitFailedError", "OSError"} and (
            any(word in text for word in AWAY_WORDS) and not any(word in text for word in REFUSED_WORDS)
        ):
            return True
        seen = seen.__cause__
    return False


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Let a failure of the outside be tried again; end the step at once, in our own words, for every other."""
    try:
        yield
    except dg.Failure:
        raise
    except Exception as error:
        if is_away(error):
            raise
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
