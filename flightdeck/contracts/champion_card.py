"""What serves, as CI needs to know it without a cluster: published by CD after each promotion, read by the gates.

One document per environment. It names each serving model with its signed card, the feature services that a release
still reads, and the feature registry as it is registered there.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import pydantic

from flightdeck.contracts.card import Interval, ModelCard, SignedCard
from flightdeck.contracts.release import Release

FEATURES_OF = "features of "  # a feature service's fact: the view it names -> its features, commas between


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class RegisteredObject(_Strict):
    """One object of the feature registry as plain facts: what a reader of it can notice.

    Args:
        kind: entity, source, feature view, on-demand view or feature service.
        facts: e.g. `feature NAME` -> its type, `join keys`, `features of VIEW` of a service.
    """

    kind: str
    name: str
    facts: dict[str, str]


class ChampionModel(_Strict):
    """One serving model.

    Args:
        card: what it was measured to do on which holdout, signed by the gate job: metrics with intervals, slices,
            digests of data, features, code and lock.
        release: code, model and feature service as it serves; None where only the registry names a champion.
    """

    card: SignedCard
    release: Release | None = None

    @property
    def model_card(self) -> ModelCard:
        """The card; whoever relies on it checks its signature first."""
        return self.card.card

    @property
    def version(self) -> str:
        """In the model registry."""
        return self.card.card.version

    @property
    def metrics(self) -> dict[str, Interval]:
        """On its own holdout."""
        return self.card.card.metrics

    @property
    def holdout_sha256(self) -> str:
        """Of the holdout's features and outcomes."""
        return self.card.card.digests.holdout_sha256

    @pydantic.model_validator(mode="after")
    def _of_one_version(self) -> ChampionModel:
        card, release = self.card.card, self.release
        if release is not None:
            served = (release.model.name, release.model.version, release.model.sha256, release.feature_service)
            carded = (card.model, card.version, card.sha256, card.feature_service)
            if served != carded:
                raise ValueError(f"the release serves {served}, the card is about {carded}")
        return self


class ChampionCard(_Strict):
    """What serves in one environment.

    Args:
        environment: e.g. `dev`.
        written_at: when, UTC.
        models: model name -> what serves.
        still_read: further feature services that a waiting release, or one that can be undone to, reads.
        registry: every object of the feature registry.
    """

    schema_version: Literal[1] = 1
    environment: str
    written_at: dt.datetime
    models: dict[str, ChampionModel]
    still_read: tuple[str, ...] = ()
    registry: tuple[RegisteredObject, ...]

    @property
    def protected(self) -> tuple[str, ...]:
        """Feature services that some release reads: what they read can never be taken away."""
        return tuple(sorted({*self.still_read, *(it.model_card.feature_service for it in self.models.values())}))

    def reads(self, model: str) -> dict[str, tuple[str, ...]]:
        """View -> the features of it that the serving release of `model` reads.

        Raises:
            KeyError: no such model.
        """
        service = self.models[model].model_card.feature_service
        for it in self.registry:
            if (it.kind, it.name) == ("feature service", service):
                return {
                    fact.removeprefix(FEATURES_OF): tuple(names.split(", "))
                    for fact, names in it.facts.items()
                    if fact.startswith(FEATURES_OF)
                }
        return {}

    @pydantic.model_validator(mode="after")
    def _coherent(self) -> ChampionCard:
        for name, it in self.models.items():
            if it.model_card.model != name:
                raise ValueError(f"under {name} stands the card of {it.model_card.model}")
        registered = {it.name for it in self.registry if it.kind == "feature service"}
        if absent := sorted(set(self.protected) - registered):
            raise ValueError(f"releases read {', '.join(absent)}, which the card's registry does not hold")
        return self
