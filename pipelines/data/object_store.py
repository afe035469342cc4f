"""What an S3-compatible store needs to be spoken to, in the words of each library that does; and what its errors mean.

Every wait is bounded: a store that is away is told within seconds, and whoever runs the step decides about another try.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import pyarrow.fs

SCHEME = "s3://"
DEFAULT_REGION = "us-east-1"
CONNECT_S, REQUEST_S, RETRY_S, RETRIES = 2, 20, 10, 2
# Read from the environment when they are there; without keys each library looks for those of the machine or the pod.
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def is_url(place: object) -> bool:
    """Whether a place is in an object store.

    Raises:
        ValueError: a scheme that nothing here speaks.
    """
    scheme = re.match(r"[a-z0-9+.-]+://", str(place), re.IGNORECASE)
    if scheme and scheme[0] != SCHEME:
        raise ValueError(f"{place}: a place is a folder or {SCHEME}bucket[/folder]")
    return scheme is not None


def delta_options(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Options for delta-rs: conditional puts, so that of two writers of one version the second is refused."""
    environment = os.environ if environment is None else environment
    options = {name: environment[name] for name in VARIABLES if environment.get(name)}
    return {
        "AWS_REGION": DEFAULT_REGION,
        **options,
        "aws_conditional_put": "etag",
        "allow_http": str(options.get("AWS_ENDPOINT_URL", "").startswith("http://")).lower(),
        "connect_timeout": f"{CONNECT_S}s",
        "timeout": f"{REQUEST_S}s",
        "max_retries": str(RETRIES),
        "retry_timeout": f"{RETRY_S}s",
    }


def polars_options(options: Mapping[str, str] | None) -> dict[str, Any] | None:
    """What polars wants otherwise than delta-rs: whole numbers as such, and its own name for the time of all tries."""
    if options is None or "max_retries" not in options:
        return None
    return {"max_retries": int(options["max_retries"]), "retry_timeout_ms": RETRY_S * 1000}


def arrow_filesystem(options: Mapping[str, str]) -> pyarrow.fs.FileSystem:
    """The same store for pyarrow."""
    import pyarrow.fs

    endpoint = urlsplit(options.get("AWS_ENDPOINT_URL", ""))
    return pyarrow.fs.S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        session_token=options.get("AWS_SESSION_TOKEN"),
        region=options.get("AWS_REGION", DEFAULT_REGION),
        scheme=endpoint.scheme or "https",
        endpoint_override=endpoint.netloc or None,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=RETRIES + 1),
        allow_delayed_open=True,  # a small file is one put: it is there whole or not at all
    )


def words(error: BaseException) -> str:
    """What an object store's client says, without colours, stack and XML; with what to do where that is known."""
    text = re.split(r"\n\s*0: ", re.sub(r"\x1b\[\d*m|↳", "", str(error)))[0]
    if answer := re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL):
        text = f"the object store answers {answer[1]}: {answer[2]}"
    text = re.sub(r"\s+", " ", text).strip()
    text = text if len(text) <= 400 else f"{text[:400]}..."
    lowered = f"{text} {error}".lower().replace("_", "")
    for hint, signs in _HINTS.items():
        if any(sign in lowered for sign in signs):
            return f"{text.rstrip('.')}; {hint}"
    return text


_HINTS = {
    "it is full: make room there, then run it again. What is committed is whole": (
        "insufficientstorage", "no space left on device", "quotaexceeded", "storagefull",
    ),
    "make the bucket, or correct the name": ("nosuchbucket",),
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what that key may do": (
        "signaturedoesnotmatch", "invalidaccesskeyid", "access key id", "accessdenied", "403 forbidden",
    ),
    "is AWS_ENDPOINT_URL right, and the store running? What is committed is whole: run it again": (
        "client error (connect)", "error sending request", "networkconnection", "operation timed out", "dns error",
    ),
}  # fmt: skip
