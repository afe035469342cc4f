"""The gate step without Dagster: judge, register signed, publish what was not rejected. Safe to repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flightdeck.contracts import approval
from flightdeck.contracts.card import GateResult
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.release import ModelRef
from pipelines.orchestration import places
from pipelines.registry import versions
from pipelines.registry.judging import judge
from pipelines.registry.mlflow_adapter import MlflowRegistry, tracking_uri_or_env
from pipelines.registry.oci import publish


@dataclasses.dataclass(frozen=True)
class Judged:
    """A registered version and how it was judged; its reference names an image when the artefact was published."""

    ref: ModelRef
    verdict: Verdict
    reason: str
    results: Sequence[GateResult]
    champion: str | None
    tracking_uri: str


def judge_and_register(model: str, run_id: str, *, promote: bool, tell: Callable[[str], None]) -> Judged:
    """Gate the candidate of an MLflow run against the champion, register it, publish it unless it is rejected.

    A run that was registered before with this verdict (an earlier try ended between the steps) keeps its version; with
    another verdict it becomes another one, since a version's signed card never changes.

    Raises:
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or the run is another model's.
        NotPromotable: `promote` where another writes the alias; nothing was judged.
        PushFailed: the registry for models does not answer or refuses; the version stays, and a repeat pushes it.
    """
    if promote:
        versions.may_write_alias(model)
    layout, uri = places.layout(), tracking_uri_or_env(None)
    candidate, champion, report = judge(model, run_id, layout, uri)
    for item in report.results:
        tell(f"{item.verdict.value:<8}{item.gate:<16}{item.reason}")
    tell(f"{report.verdict.value}: {report.reason}")
    ref = registered(uri, model, run_id, report.verdict) or versions.register(candidate, report)
    tell(f"registered {ref.name} v{ref.version} ({ref.sha256})")
    if report.verdict is not Verdict.REJECT:  # on HOLD a person may break the glass, and then nodes must find it
        ref = publish(ref, versions.fetch(ref, layout, tracking_uri=uri), tracking_uri=uri)
        tell(f"published {ref.image}" if ref.image else "not published: no registry for models is named")
        if promote and report.verdict is Verdict.PROMOTE:
            versions.promote(ref, layout=layout, tracking_uri=uri)
            tell(f"champion of {ref.name} is v{ref.version}")
    return Judged(ref, report.verdict, report.reason, report.results, champion.version if champion else None, uri)


def registered(tracking_uri: str, model: str, run_id: str, verdict: Verdict) -> ModelRef | None:
    """The finished version that was made of a run with this verdict, None when there is none."""
    for item in MlflowRegistry(tracking_uri).versions(model):
        tags = dict(item.tags)
        if str(item.run_id) == run_id and tags.get("verdict") == verdict.value and "sha256" in tags:
            word = approval.in_tags(tags)
            return ModelRef(name=model, version=str(item.version), sha256=tags["sha256"], approval=word)
    return None
