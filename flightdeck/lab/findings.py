"""What the story found, kept for the table and the report."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from flightdeck.contracts.card import ModelCard
from flightdeck.contracts.release import Release
from flightdeck.lab.requests import MonthQuality, Trained
from flightdeck.lab.rollouts import Owners, Result
from flightdeck.lab.streamer import StreamProgress
from flightdeck.lab.users import Outcome

if TYPE_CHECKING:
    import polars as pl

    from pipelines.data.ingest import DayResult


@dataclasses.dataclass
class Findings:
    """Grows from stage to stage; a part that is empty was not reached.

    Args:
        trained: per candidate, in order, with the card of each.
        monthly_late: (month, share of late flights, flights), from the lake.
        champion_versions: per model, the version that was promoted first.
        outcomes: the users' requests in July. predictions: the lake's rows of them with the labels that had arrived.
        rollouts: what became of each. rollout_outcomes: the users' requests meanwhile.
        owners: whose replica answered them.
    """

    started_at: dt.datetime
    commit: str = "unknown"
    days: list[DayResult] = dataclasses.field(default_factory=list)
    view_rows: dict[str, int] = dataclasses.field(default_factory=dict)
    monthly_late: list[tuple[str, float, int]] = dataclasses.field(default_factory=list)
    trained: list[tuple[Trained, ModelCard]] = dataclasses.field(default_factory=list)
    months: dict[str, list[MonthQuality]] = dataclasses.field(default_factory=dict)
    champion_versions: dict[str, str] = dataclasses.field(default_factory=dict)
    champion: Release | None = None
    candidate: Release | None = None
    speed: float = 0.0
    replayed: tuple[dt.datetime, dt.datetime] | None = None
    pace: str = ""
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    streamed: StreamProgress | None = None
    predictions: pl.DataFrame | None = None
    rollouts: list[Result] = dataclasses.field(default_factory=list)
    rollout_outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    owners: Owners = dataclasses.field(default_factory=Owners)

    def card(self, model: str, *, version: str | None = None) -> ModelCard | None:
        """The card of a version, or of the newest one of a model."""
        cards = [card for _, card in self.trained if card.model == model and version in {None, card.version}]
        return cards[-1] if cards else None
