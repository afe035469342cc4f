"""Entry point of the gate `features`: the checkout's definitions against the champion card's registry."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec
from flightdeck.delivery import champion_card
from flightdeck.delivery.feature_gate import GATE, broken_specs, judge
from flightdeck.delivery.outcome import Finding, Outcome
from pipelines.features.registry_changes import Described, compare

WRITE_RIGHT = "correct feature_repo so that `flightdeck features apply` works on an empty registry"


def check(specs: Sequence[ModelSpec], labels: Collection[str], protect: Sequence[str] = ()) -> Outcome:
    """Do the definitions load and apply; do the specs fit; does it break what serves?

    Args:
        specs: the model specs of the checkout.
        labels: of the pull request.
        protect: further feature services that a release reads.
    """
    wanted, broken = definitions()
    if broken:
        return Outcome(gate=GATE, findings=(broken,))
    findings = broken_specs(specs, wanted)
    says = [f"{len(wanted)} objects load and apply to an empty registry; {len(specs)} model specs fit them"]
    try:
        card = champion_card.wanted()
        unchecked = champion_card.unverified(card) if card else champion_card.UNSET
    except (champion_card.CardUnreadable, ValueError) as error:
        findings.append(Finding(what=str(error), do=champion_card.DO_WHEN_UNREADABLE))
        return Outcome(gate=GATE, findings=tuple(findings), says=tuple(says))
    not_run = (unchecked,) if unchecked else ()
    if card is None:
        return Outcome(gate=GATE, findings=tuple(findings), says=tuple(says), not_run=not_run)
    before = champion_card.described(card)
    found = judge(
        compare(before, wanted), before, sorted({*card.protected, *protect}), labels, f"{card.environment}"
    )  # fmt: skip
    return found.model_copy(
        update={"findings": (*findings, *found.findings), "says": (*says, *found.says), "not_run": not_run}
    )


def definitions() -> tuple[dict[tuple[str, str], Described], Finding | None]:
    """What the checkout defines, after it was applied to an empty registry; or why it cannot be."""
    from pipelines.features import registry

    with tempfile.TemporaryDirectory(prefix="flightdeck-features-") as folder:
        layout = StateLayout(Path(folder))
        try:
            found = [registry.describe(item) for item in registry.defined_objects(layout)]
            registry.apply(layout)
        except Exception as error:  # whatever a definition does wrong, in whatever library
            return {}, Finding(
                what=f"the feature definitions cannot be registered: {type(error).__name__}: {error}", do=WRITE_RIGHT
            )
    return {(it.kind, it.name): without_places(it) for it in found}, None


def without_places(item: Described) -> Described:
    """Where a writer has its files is no definition."""
    return dataclasses.replace(item, facts={key: value for key, value in item.facts.items() if key != "source path"})
