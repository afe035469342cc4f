"""What Dagster tells of a run, in lines for people. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # delta-rs paints its errors


@dataclasses.dataclass(frozen=True)
class Step:
    """What a run says of itself: one line for people, and what it means."""

    at_s: float
    kind: str
    step: str
    line: str


def told(event: Mapping[str, Any]) -> Step | None:
    """An event as a line for people; None for what only Dagster itself needs to know."""
    kind, step, at_s = event["__typename"], event.get("stepKey") or "", float(event.get("timestamp") or 0) / 1000
    line = None
    if kind == "ExecutionStepStartEvent":
        line = f"{step} ..."
    elif kind == "LogMessageEvent":
        if "Dependencies for step" in event["message"]:  # what failed says so itself
            return None
        line = f"{step}: {event['message']}" if step else event["message"]
    elif kind == "MaterializationEvent":
        shown = ", ".join(f"{item['label']} {value_of(item)}" for item in event["metadataEntries"] if _short(item))
        line = f"{'/'.join(event['assetKey']['path'])}: {shown}"
    elif kind == "AssetCheckEvaluationEvent":
        line = check_of(event["evaluation"]) if not event["evaluation"]["success"] else None
    elif kind == "ExecutionStepUpForRetryEvent":
        why = " ".join("; ".join(reasons_of(event)).split())
        line = f"{step} is tried again in {float(event['secondsToWait'] or 0):.0f} s: {why}"
    elif kind in {"ExecutionStepFailureEvent", "RunFailureEvent", "RunCanceledEvent"}:
        line = f"{step or 'run'} failed: {'; '.join(reasons_of(event))}"
    elif kind == "EngineEvent" and "Kubernetes" in (event["message"] or ""):
        line = event["message"]
    return Step(at_s, kind, step, line) if line else None


def check_of(evaluation: Mapping[str, Any]) -> str:
    """A failed check in one line."""
    name = "/".join(evaluation["assetKey"]["path"])
    mark = "check failed" if evaluation["severity"] == "ERROR" else "warning"
    return f"{mark}: {name} {evaluation['checkName']}: {evaluation['description'] or ''}".rstrip(": ")


def reasons_of(event: Mapping[str, Any]) -> list[str]:
    """What a failure says: its own words where it has some, else the last error of the chain."""
    own = (event.get("failureMetadata") or {}).get("description")
    if own:
        return [str(own).strip()]
    error = event.get("error") or {}
    causes = [item["error"]["message"] for item in error.get("errorChain") or ()]
    said = causes[-1:] or [error.get("message") or event.get("message") or ""]
    return [_COLOURS.sub("", text).strip() for text in said if text]


def _short(entry: Mapping[str, Any]) -> bool:
    return entry["__typename"] in {"IntMetadataEntry", "FloatMetadataEntry", "TextMetadataEntry"} and (
        len(value_of(entry)) <= 80
    )


def value_of(entry: Mapping[str, Any]) -> str:
    """A metadata entry as text."""
    for name in ("text", "url", "intRepr", "floatRepr", "jsonString"):
        if entry.get(name) is not None:
            return f"{float(entry[name]):g}" if name == "floatRepr" else str(entry[name])
    return json.dumps(entry.get("boolValue")) if entry.get("boolValue") is not None else ""
