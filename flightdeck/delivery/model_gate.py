"""Decision: may a model of this code and these specs follow what serves? From two cards, ours and the champion's.

The champion's model is not here, only its signed card: the comparison is of two measurements. It counts only where both
were made on the same rows with the same outcomes; then what chance does to one it does to the other, and the difference
is the paired one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from flightdeck.contracts.card import GateResult, Interval, ModelCard, SliceMetric
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.model_spec import ModelSpec, Task
from flightdeck.delivery.outcome import Finding, Outcome
from pipelines.gates.decisions import GATES, gain
from pipelines.gates.metrics import NotComputable

GATE = "models"
QUALITY = "quality"
LABEL = "models:other-holdout"  # a reviewer saw that this change cannot be compared with what serves
EQUAL = 1e-9  # two measurements of the same rows differ by rounding at most
SLICES_SHOWN = 8
SLICE_HEAD = ("slice", "rows", "metric", "champion", "change", "calibration gap")
GATE_HEAD = ("gate", "verdict", "found")
DO = {
    "leak_metric": "look for a feature from the future, first the one that is named; where the figure is honest, raise "
    "leak_metric or leak_feature in the spec and say why (docs/gates.md)",
    "leak_join": "let the feature come from the feature store as of prediction time; `flightdeck features check` and "
    "docs/features.md say how",
    "leak_truncation": "let the view count only what is known at its time (ingested_at, known_at_utc): "
    "`flightdeck features future --at TIME` repeats the test (docs/features.md)",
    "signature": "train with exactly the features of the service that the spec names; other features are a new service",
    QUALITY: "give the model back what it lost, or show with `flightdeck ci models --trials 5` that the search makes "
    "up for it; where the loss is meant, quality_margin in the spec says how much may be lost",
    "baseline": "a model that does not beat the stated baseline earns nothing: see the importances on the page",
    "calibration": "see on the page where score and outcome part; a feature that only names the date does that",
    "slices": "see on the page which slice loses, and what its rows lack",
    "fairness": "see on the page which slice is misjudged, and what its rows lack",
    "directions": "a feature moves the score against sense: look for a swapped sign or unit, or restate the test",
    "parity": "the ONNX file is another model than was fitted: look at pipelines/training/export.py and the locks",
    "latency": "make the model smaller (fewer trees or leaves), or raise the margin in the spec and say why",
    "size": "make the model smaller (fewer trees or leaves), or raise the margin in the spec and say why",
    "memory": "make the model smaller (fewer trees or leaves), or raise the margin in the spec and say why",
}

DO_WHEN_APART = (
    "leave split, rows and outcomes as they are; where the change of them is meant, let a reviewer set the label "
    f"{LABEL} on the pull request: before anything serves, the pipeline's gates compare both models"
)


def differences(ours: ModelCard, champion: ModelCard) -> list[str]:
    """Why the two holdouts are not the same rows with the same outcomes; empty when they are.

    The digest names rows, outcomes and features. Where features changed it differs, and then the stated baseline tells:
    it reads no feature, so the same figure with the same interval, over the same days and as many rows, is the same
    rows and outcomes, trained on the same rows.
    """
    if ours.digests.holdout_sha256 == champion.digests.holdout_sha256:
        return []
    found = []
    for what, mine, theirs in (
        ("from", ours.holdout_from, champion.holdout_from), ("until", ours.holdout_until, champion.holdout_until),
    ):  # fmt: skip
        if mine != theirs:
            found.append(f"{what} {mine:%Y-%m-%d}, the champion's {theirs:%Y-%m-%d}")
    for what, rows, others in (
        ("rows held out", ours.holdout_rows, champion.holdout_rows),
        ("rows trained on", ours.train_rows, champion.train_rows),
    ):  # fmt: skip
        if rows != others:
            found.append(f"{rows:,} {what}, the champion's {others:,}")
    baselines = [{k: v for k, v in it.metrics.items() if k.startswith("baseline_")} for it in (ours, champion)]
    if not found and not _equal(*baselines):
        found.append("the stated baseline scores differently: its definition, the outcomes or the rows changed")
    return found


def _equal(ours: dict[str, Interval], theirs: dict[str, Interval]) -> bool:
    if not ours or set(ours) != set(theirs):
        return False
    pairs = [
        (getattr(ours[name], part), getattr(theirs[name], part)) for name in ours for part in ("value", "low", "high")
    ]
    return all(a is not None and b is not None and math.isclose(a, b, abs_tol=EQUAL, rel_tol=EQUAL) for a, b in pairs)


def metric_of(card: ModelCard, task: Task) -> Interval:
    """The quality metric.

    Raises:
        NotComputable: the card has none.
    """
    found = card.metrics.get("auc" if task is Task.CLASSIFICATION else "rmse")
    if found is None or found.value is None or not math.isfinite(found.value):
        raise NotComputable(f"{card.model} v{card.version} has no measured quality")
    return found


def compared(spec: ModelSpec, ours: ModelCard, champion: ModelCard) -> GateResult:
    """Not worse than the champion by more than the spec's margin, on the same holdout."""
    margin = spec.gates.quality_margin
    try:
        mine, theirs = metric_of(ours, spec.task), metric_of(champion, spec.task)
    except NotComputable as error:
        return GateResult(gate=QUALITY, verdict=Verdict.HOLD, measured=None, margin=-margin, reason=str(error))
    assert mine.value is not None and theirs.value is not None
    value = float(gain(spec.task, mine.value, theirs.value))
    name = "AUC" if spec.task is Task.CLASSIFICATION else f"RMSE ({spec.target.unit})"
    said = (
        f"{name} {shown(mine)}, champion v{champion.version} {shown(theirs)} on the same holdout: gain {value:+.4f}, "
        f"may lose at most {margin:g}"
    )
    worse = value < -margin
    return GateResult(
        gate=QUALITY, verdict=Verdict.REJECT if worse else Verdict.PROMOTE, measured=value, margin=-margin,
        reason=f"{said}; worse" if worse else said,
    )  # fmt: skip


def judge(spec: ModelSpec, ours: ModelCard, champion: ModelCard | None, labels: Collection[str] = ()) -> Outcome:
    """The word on one model: each gate that did not let it pass is a finding, also one that could not tell.

    Args:
        labels: of the pull request; LABEL lets absolute gates alone decide where the holdouts differ. Without it a
            change of the rows would be the way around the comparison.
    """
    apart = differences(ours, champion) if champion else []
    results = {it.gate: it for it in ours.gates}
    if champion and not apart:
        results[QUALITY] = compared(spec, ours, champion)
    absent = [name for name in GATES if name not in results]
    findings = [_finding(spec, it) for it in results.values() if it.verdict is not Verdict.PROMOTE]
    findings += [Finding(what=f"{spec.name}: {name} gave no answer", do=DO[name]) for name in absent]
    not_compared = _not_compared(spec, champion, apart)
    if LABEL not in labels:
        findings += [Finding(what=words, do=DO_WHEN_APART) for words in not_compared]
    same = champion is not None and not apart
    rows = _slices(ours, champion if same else None, spec.task)
    tables: dict[str, tuple[tuple[str, ...], ...]] = {
        f"{spec.name}: metrics": (_head(champion), *_metrics(ours, champion, same=same)),
        f"{spec.name}: slices": (SLICE_HEAD, *rows),
        f"{spec.name}: gates": (GATE_HEAD, *((it.gate, it.verdict.value, it.reason) for it in results.values())),
    }
    return Outcome(
        gate=GATE, findings=tuple(findings), says=tuple(_says(ours, champion, apart)), tables=tables,
        not_run=tuple(f"{words}; the absolute gates alone decided here" for words in not_compared if LABEL in labels),
    )  # fmt: skip


def _not_compared(spec: ModelSpec, champion: ModelCard | None, apart: Sequence[str]) -> tuple[str, ...]:
    if champion is None or not apart:
        return ()
    return (
        f"{spec.name}: no comparison with the champion v{champion.version}, not the same holdout: {'; '.join(apart)}",
    )


def _finding(spec: ModelSpec, result: GateResult) -> Finding:
    verb = "refused by" if result.verdict is Verdict.REJECT else "held, which is no pass, by"
    return Finding(
        what=f"{spec.name} is {verb} {result.gate}: {result.reason}", do=DO.get(result.gate, "see docs/gates.md")
    )


def _says(ours: ModelCard, champion: ModelCard | None, apart: Sequence[str]) -> list[str]:
    trained = (
        f"{ours.model}: trained on {ours.train_rows:,} rows to {ours.train_until:%Y-%m-%d} without search, judged on "
        f"{ours.holdout_rows:,} to {ours.holdout_until:%Y-%m-%d}"
    )
    if champion is None:
        return [f"{trained}; there is no champion, so the absolute gates decide alone"]
    said = [trained if apart else f"{trained}, the champion's v{champion.version} own holdout"]
    added = ", ".join(name for name in ours.features if name not in champion.features) or "none"
    removed = ", ".join(name for name in champion.features if name not in ours.features) or "none"
    if ours.features != champion.features:
        said.append(
            f"{ours.model} reads {ours.feature_service}, the champion {champion.feature_service}; "
            f"features added: {added}; removed: {removed}"
        )
    before = {it.gate: abs(it.margin) for it in champion.gates if it.margin is not None}
    moved = [
        f"{it.gate} {before[it.gate]:g} -> {abs(it.margin):g}"
        for it in ours.gates
        if it.margin is not None and it.gate in before and abs(it.margin) != before[it.gate]
    ]
    if moved:
        said.append(f"{ours.model}: margins differ from those that the champion passed: {', '.join(moved)}")
    return said


def _head(champion: ModelCard | None) -> tuple[str, ...]:
    return ("metric", "this change", f"champion v{champion.version}" if champion else "champion", "change")


def _metrics(ours: ModelCard, champion: ModelCard | None, *, same: bool) -> Iterable[tuple[str, ...]]:
    for name, mine in ours.metrics.items():
        theirs = champion.metrics.get(name) if champion else None
        moved = mine.value - theirs.value if same and theirs and None not in (mine.value, theirs.value) else None  # type: ignore[operator]
        yield (
            name, shown(mine), shown(theirs) if theirs else "-",
            f"{moved:+.4f}" if moved is not None else "not the same holdout" if champion else "-",
        )  # fmt: skip


def _slices(ours: ModelCard, champion: ModelCard | None, task: Task) -> list[tuple[str, ...]]:
    """The slices that lose most, or the weakest where nothing is compared. Told, not judged: a card has no interval."""
    before = {(it.slice, it.value): it.metric for it in champion.slices} if champion else {}

    def moved(it: SliceMetric) -> float | None:
        theirs = before.get((it.slice, it.value))
        return None if it.metric is None or theirs is None else float(gain(task, it.metric, theirs))

    def order(it: SliceMetric) -> float:
        change = moved(it)
        if change is not None:
            return change
        sign = 1 if task is Task.CLASSIFICATION else -1
        return math.inf if it.metric is None or before else sign * it.metric

    rows: list[tuple[str, ...]] = []
    for it in sorted(ours.slices, key=order)[:SLICES_SHOWN]:
        theirs, change = before.get((it.slice, it.value)), moved(it)
        rows.append(
            (
                f"{it.slice} {it.value}", f"{it.rows:,}", _number(it.metric), _number(theirs),
                "-" if change is None else f"{change:+.4f}", _number(it.calibration_gap),
            )
        )  # fmt: skip
    return rows


def shown(value: Interval) -> str:
    """A figure with its interval."""
    if value.value is None:
        return "not measured"
    return f"{value.value:.4f}" + (
        f" [{value.low:.4f}, {value.high:.4f}]" if None not in (value.low, value.high) else ""
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
