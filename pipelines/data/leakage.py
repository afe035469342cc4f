"""Decision: did anything reach a feature that was not known at prediction time? Pure; refuses what it cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

EXAMPLES = 5


class LeakError(ValueError):
    """Something from the future is in the frame."""


def assert_known_before(
    frame: pl.DataFrame,
    known_at: Sequence[str],
    *,
    event_timestamp: str = "event_timestamp",
    entity: str = "entity_id",
) -> None:
    """Every record that a row used was known by the row's prediction time.

    Args:
        frame: one row per prediction; `known_at` columns hold, per used record or feature, when it became known (the
            newest when several records were used); null where nothing was used.
        known_at: those columns; at least one.
        event_timestamp: the prediction time.
        entity: names the rows in the message.
    Raises:
        LeakError: names each column, how many rows leak, by how much, and the first of them.
        ValueError: a column is absent, is no instant with a time zone, or nothing to check: never a pass.
    """
    if not known_at:
        raise ValueError("assert_known_before: no known-at column was named, so nothing can be told")
    for name in (event_timestamp, *known_at):
        dtype = frame.schema.get(name)
        if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
            raise ValueError(f"assert_known_before: {name} must be a timezone-aware time; found {dtype}")
    if frame[event_timestamp].null_count():
        raise ValueError(f"assert_known_before: {frame[event_timestamp].null_count()} rows have no {event_timestamp}")
    problems = []
    for name in known_at:
        bad = frame.filter(pl.col(name) > pl.col(event_timestamp))
        if bad.height:
            ahead = max(late - at for late, at in bad.select(name, event_timestamp).iter_rows())
            who = bad[entity].head(EXAMPLES).to_list() if entity in bad.columns else []
            problems.append(
                f"{name}: {bad.height} of {frame.height} rows use what was known only later, by up to "
                f"{ahead.total_seconds() / 60:g} min" + (f"; first {', '.join(map(str, who))}" if who else "")
            )
    if problems:
        raise LeakError("a feature knows the future: " + "; ".join(problems))


def assert_no_outcome_columns(frame: pl.DataFrame, outcomes: Sequence[str]) -> None:
    """No column of the frame but the `label_*` ones has the name of an outcome.

    Raises:
        LeakError: names the columns.
    """
    found = [name for name in frame.columns if name in set(outcomes) and not name.startswith("label_")]
    if found:
        raise LeakError(
            f"outcome columns among the inputs: {', '.join(found)}; only label_* columns may hold an outcome"
        )
