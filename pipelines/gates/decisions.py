"""The gates: each one number against one margin, PROMOTE, HOLD or REJECT. Pure functions of the evidence.

HOLD is the answer to missing evidence, never a pass. docs/gates.md explains every margin.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.card import GateResult, SliceMetric
from flightdeck.contracts.decision import Decision, Verdict
from flightdeck.contracts.model_spec import Task
from pipelines.gates.evidence import Evidence
from pipelines.gates.metrics import (
    Floats,
    NotComputable,
    calibration_of,
    checked,
    day_numbers,
    interval,
    measure_of,
    point,
    resample,
    z_of,
)

MIN_ROUNDS_SHARE = 0.9  # of the bootstrap rounds must be computable

Gate = Callable[[Evidence], GateResult]


def _result(gate: str, verdict: Verdict, measured: float | None, margin: float | None, reason: str) -> GateResult:
    """A gate's answer; a number that is not finite is no measurement."""
    if measured is not None and not math.isfinite(measured):
        return GateResult(
            gate=gate, verdict=Verdict.HOLD, measured=None, margin=margin, reason=f"measured {measured}: not a number"
        )
    return GateResult(gate=gate, verdict=verdict, measured=measured, margin=margin, reason=reason)


def _at_most(gate: str, measured: float | None, margin: float, what: str, unit: str = "") -> GateResult:
    if measured is None:
        return _result(gate, Verdict.HOLD, None, margin, f"{what} was not measured")
    verdict = Verdict.PROMOTE if measured <= margin else Verdict.REJECT
    return _result(gate, verdict, measured, margin, f"{what} {measured:.4g}{unit}, at most {margin:g}{unit}")


def gain(task: Task, candidate: float | Floats, other: float | Floats) -> float | Floats:
    """How much better the candidate is, in the metric's unit: AUC goes up, RMSE goes down."""
    return candidate - other if task is Task.CLASSIFICATION else other - candidate


def _compared(evidence: Evidence, other: Floats, seed: int) -> tuple[float, float, float, float, float]:
    """Metric of candidate and other, their paired gain, and the gain's interval."""
    spec, scored = evidence.spec, evidence.scored
    days = day_numbers(scored.day)[1]
    ours = measure_of(spec.task, scored.label, scored.candidate, scored.day)
    theirs = measure_of(spec.task, scored.label, other, scored.day)
    counts = resample(days, spec.gates.bootstrap_rounds, seed)
    value = float(gain(spec.task, point(ours, days), point(theirs, days)))
    bounds = interval(
        value, np.asarray(gain(spec.task, ours.value(counts), theirs.value(counts))), spec.gates.confidence
    )
    assert bounds.low is not None and bounds.high is not None
    return point(ours, days), point(theirs, days), value, bounds.low, bounds.high


def _name(evidence: Evidence) -> str:
    return "AUC" if evidence.spec.task is Task.CLASSIFICATION else f"RMSE ({evidence.spec.target.unit})"


def quality(evidence: Evidence) -> GateResult:
    """Not worse than the champion by more than the margin, at the bound of the paired interval."""
    margin = evidence.spec.gates.quality_margin
    if evidence.scored.champion is None:
        if evidence.champion_version is not None:
            return _result(
                "quality", Verdict.HOLD, None, margin, f"champion {evidence.champion_version} was not scored"
            )
        return _result("quality", Verdict.PROMOTE, None, margin, "no champion yet: the baseline gate decides alone")
    ours, theirs, value, low, high = _compared(evidence, evidence.scored.champion, seed=1)
    said = (
        f"{_name(evidence)} {ours:.4f}, champion {evidence.champion_version} {theirs:.4f}: gain {value:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], may lose at most {margin:g}"
    )
    if low >= -margin:
        return _result("quality", Verdict.PROMOTE, low, -margin, said)
    if high < -margin or (value < -margin and high < 0):
        return _result("quality", Verdict.REJECT, low, -margin, f"{said}; clearly worse")
    return _result("quality", Verdict.HOLD, low, -margin, f"{said}; too uncertain to tell")


def baseline(evidence: Evidence) -> GateResult:
    """Better than the stated baseline by at least the margin, at the bound of the paired interval."""
    margin = evidence.spec.gates.baseline_margin
    ours, theirs, value, low, high = _compared(evidence, evidence.scored.baseline, seed=2)
    said = (
        f"{_name(evidence)} {ours:.4f}, baseline {theirs:.4f} ({evidence.spec.baseline.description}): "
        f"gain {value:+.4f} [{low:+.4f}, {high:+.4f}], at least {margin:g}"
    )
    if low >= margin:
        return _result("baseline", Verdict.PROMOTE, low, margin, said)
    if value < margin:
        return _result("baseline", Verdict.REJECT, low, margin, f"{said}; not enough")
    return _result("baseline", Verdict.HOLD, low, margin, f"{said}; too uncertain to tell")


def calibration(evidence: Evidence) -> GateResult:
    """The score means what it says: expected calibration error (or bias) within the margin.

    The error of a probability counts as a share of the mean outcome: 0.05 is small where a third of the outcomes is
    positive, and a third of the truth where a seventh is.
    """
    spec, scored = evidence.spec, evidence.scored
    days = day_numbers(scored.day)[1]
    measure = calibration_of(spec.task, scored.label, scored.candidate, scored.day)
    scale = float(scored.label.mean()) if spec.task is Task.CLASSIFICATION else 1.0
    if not scale > 0:
        raise NotComputable("no positive outcome in the holdout")
    value = point(measure, days) / scale
    rounds = measure.value(resample(days, spec.gates.bootstrap_rounds, 3)) / scale
    bounds = interval(value, rounds, spec.gates.confidence)
    what = "calibration error / mean outcome" if spec.task is Task.CLASSIFICATION else f"bias ({spec.target.unit})"
    said = (
        f"{what} {value:.4f} [{bounds.low:.4f}, {bounds.high:.4f}], at most {spec.gates.calibration_error:g}; "
        f"mean score {scored.candidate.mean():.4f}, mean outcome {scored.label.mean():.4f}"
    )
    verdict = Verdict.PROMOTE if value <= spec.gates.calibration_error else Verdict.REJECT
    return _result("calibration", verdict, value, spec.gates.calibration_error, said)


def slice_table(evidence: Evidence) -> list[SliceMetric]:
    """Quality and calibration gap of each slice with enough rows; None where the metric cannot be computed."""
    spec, scored = evidence.spec, evidence.scored
    table = []
    for column, values in scored.slices.items():
        for value in np.unique(values):
            rows = values == value
            if rows.sum() < spec.gates.slice_min_rows:
                continue
            metric = None
            with contextlib.suppress(NotComputable):
                metric = point(
                    measure_of(spec.task, scored.label[rows], scored.candidate[rows], scored.day[rows]),
                    day_numbers(scored.day[rows])[1],
                )
            gap = float((scored.candidate[rows] - scored.label[rows]).mean())
            table.append(
                SliceMetric(slice=column, value=str(value), rows=int(rows.sum()), metric=metric, calibration_gap=gap)
            )
    return table


def slices(evidence: Evidence) -> GateResult:
    """No slice clearly loses more than the margin against the champion (against the baseline when there is none).

    The intervals share the confidence between all slices (Bonferroni): thirty looks at 5 % would find one by chance.
    """
    spec, scored = evidence.spec, evidence.scored
    margin = spec.gates.slice_margin
    other = scored.baseline if scored.champion is None else scored.champion
    against = "the baseline" if scored.champion is None else f"champion {evidence.champion_version}"
    if scored.champion is None and evidence.champion_version is not None:
        return _result("slices", Verdict.HOLD, None, -margin, f"champion {evidence.champion_version} was not scored")
    found: list[tuple[float, float, str]] = []
    for column, values in scored.slices.items():
        for value in np.unique(values):
            rows = values == value
            if rows.sum() < spec.gates.slice_min_rows:
                continue
            day = scored.day[rows]
            days = day_numbers(day)[1]
            try:
                ours = measure_of(spec.task, scored.label[rows], scored.candidate[rows], day)
                theirs = measure_of(spec.task, scored.label[rows], other[rows], day)
                counts = resample(days, spec.gates.bootstrap_rounds, 4)
            except NotComputable:
                continue
            rounds = np.asarray(gain(spec.task, ours.value(counts), theirs.value(counts)))
            if np.count_nonzero(np.isfinite(rounds)) < MIN_ROUNDS_SHARE * len(rounds):
                continue  # too few days have both outcomes in this slice
            spread = float(np.nanstd(rounds))
            found.append((float(gain(spec.task, point(ours, days), point(theirs, days))), spread, f"{column} {value}"))
    if not found:
        return _result(
            "slices", Verdict.HOLD, None, -margin,
            f"no slice of {', '.join(scored.slices) or 'none'} has {spec.gates.slice_min_rows} rows and both outcomes",
        )  # fmt: skip
    z = z_of(spec.gates.confidence, len(found))
    clear = [item for item in found if item[0] < -margin and item[0] + z * item[1] < 0]
    worst = min(found)
    said = f"{len(found)} slices against {against}; worst {worst[2]} {worst[0]:+.4f}, may lose at most {margin:g}"
    if clear:
        named = ", ".join(f"{name} {value:+.4f}" for value, _, name in sorted(clear))
        return _result("slices", Verdict.REJECT, worst[0], -margin, f"{said}; clearly worse: {named}")
    if worst[0] < -margin:
        said += " (within chance)"
    return _result("slices", Verdict.PROMOTE, worst[0], -margin, said)


def fairness(evidence: Evidence) -> GateResult:
    """Within each slice column, no group is over- or underestimated much more than another.

    Measured is the largest distance of a slice's mean calibration gap from that of all rows, less what chance
    explains (day bootstrap, Bonferroni): what is certainly there.
    """
    spec, scored = evidence.spec, evidence.scored
    label, score = checked(scored.label, scored.candidate)
    error = score - label
    number, days = day_numbers(scored.day)
    if number.shape != error.shape:
        raise NotComputable(f"{number.size} days for {error.size} rows")
    counts = resample(days, spec.gates.bootstrap_rounds, 5)
    found: list[tuple[float, float, float, str]] = []

    def mean_by_round(rows: npt.NDArray[np.bool_]) -> Floats:
        total = np.bincount(number[rows], weights=error[rows], minlength=days)
        size = np.bincount(number[rows], minlength=days)
        drawn = counts @ size
        return np.divide(counts @ total, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    everything = mean_by_round(np.ones(len(error), dtype=bool))
    for column, values in scored.slices.items():
        for value in np.unique(values):
            rows = values == value
            if rows.sum() >= spec.gates.slice_min_rows:
                apart = float(error[rows].mean() - error.mean())
                spread = float(np.nanstd(mean_by_round(rows) - everything))
                found.append((abs(apart), spread, apart, f"{column} {value}"))
    if not found:
        return _result(
            "fairness", Verdict.HOLD, None, spec.gates.slice_gap, f"no slice has {spec.gates.slice_min_rows} rows"
        )
    z = z_of(spec.gates.confidence, len(found))
    certain, apart, name = max((max(0.0, size - z * spread), apart, name) for size, spread, apart, name in found)
    largest = max(found)
    said = (
        f"{len(found)} slices; largest certain calibration gap {certain:.4f} ({name}, measured {apart:+.4f}), at most "
        f"{spec.gates.slice_gap:g}; largest measured {largest[2]:+.4f} ({largest[3]})"
    )
    verdict = Verdict.PROMOTE if certain <= spec.gates.slice_gap else Verdict.REJECT
    return _result("fairness", verdict, certain, spec.gates.slice_gap, said)


def directions(evidence: Evidence) -> GateResult:
    """Raising a feature moves the mean score the way the spec says, or not at all."""
    tests = evidence.spec.direction_tests
    if not tests:
        return _result("directions", Verdict.PROMOTE, 0, 0, "the spec states no direction tests")
    wrong, absent, said = [], [], []
    for test in tests:
        moved = evidence.moved.get(test.feature)
        if moved is None or not math.isfinite(moved):
            absent.append(test.feature)
            continue
        passed = {
            "up": moved > test.tolerance,
            "down": moved < -test.tolerance,
            "unchanged": abs(moved) <= test.tolerance,
        }[test.expect]
        said.append(f"{test.feature} {test.add:+g} moves {moved:+.4f}, expected {test.expect}")
        if not passed:
            wrong.append(said[-1])
    if wrong:
        return _result("directions", Verdict.REJECT, len(wrong), 0, "; ".join(wrong))
    if absent:
        return _result("directions", Verdict.HOLD, None, 0, f"not measured: {', '.join(absent)}")
    return _result("directions", Verdict.PROMOTE, 0, 0, "; ".join(said))


def parity(evidence: Evidence) -> GateResult:
    """ONNX gives what scikit-learn gave, on every holdout row."""
    scored = evidence.scored
    if scored.sklearn.shape != scored.candidate.shape or not scored.candidate.size:
        return _result("parity", Verdict.HOLD, None, evidence.spec.gates.parity, "no scikit-learn scores to compare")
    checked(scored.sklearn, scored.candidate)
    worst = float(np.abs(scored.sklearn - scored.candidate).max())
    return _at_most(
        "parity", worst, evidence.spec.gates.parity, f"largest difference on {scored.candidate.size} holdout rows"
    )


def latency(evidence: Evidence) -> GateResult:
    """One row, one thread, 99th percentile."""
    measured = None if evidence.footprint is None else evidence.footprint.latency_p99_ms
    return _at_most("latency", measured, evidence.spec.gates.latency_p99_ms, "p99 of one row", " ms")


def size(evidence: Evidence) -> GateResult:
    """Of the ONNX file."""
    measured = None if evidence.footprint is None else evidence.footprint.size_mb
    return _at_most("size", measured, evidence.spec.gates.size_mb, "model.onnx", " MB")


def memory(evidence: Evidence) -> GateResult:
    """Growth of a fresh process that loads and runs the model."""
    measured = None if evidence.footprint is None else evidence.footprint.memory_mb
    return _at_most("memory", measured, evidence.spec.gates.memory_mb, "resident growth", " MB")


def too_good(evidence: Evidence) -> GateResult:
    """A metric or a single feature that is too good to be true tells of a leak."""
    spec, scored = evidence.spec, evidence.scored
    bound = spec.gates.leak_metric
    value = point(measure_of(spec.task, scored.label, scored.candidate, scored.day), day_numbers(scored.day)[1])
    best, alone = max(((value, name) for name, value in evidence.separations.items()), default=(None, ""))
    if best is None:
        return _result("leak_metric", Verdict.HOLD, None, bound, "no feature's own separation was measured")
    said = f"{_name(evidence)} {value:.4f}, best feature alone {alone} {best:.4f}"
    if (value > bound) if spec.task is Task.CLASSIFICATION else (value < bound):
        return _result(
            "leak_metric", Verdict.REJECT, value, bound,
            f"{said}: better than {bound:g} is too good to be true; look for a feature from the future, first {alone}",
        )  # fmt: skip
    if best > spec.gates.leak_feature:
        return _result(
            "leak_metric", Verdict.REJECT, best, spec.gates.leak_feature,
            f"{said}: one feature that separates better than {spec.gates.leak_feature:g} looks like the outcome itself",
        )  # fmt: skip
    return _result("leak_metric", Verdict.PROMOTE, value, bound, f"{said}; plausible up to {bound:g}")


def no_future(evidence: Evidence) -> GateResult:
    """The feature store, joined again as of prediction time, gives exactly what the candidate was shown."""
    again = evidence.rejoined
    if again is None or not again.rows:
        return _result("leak_join", Verdict.HOLD, None, 0, "holdout rows could not be joined again")
    wrong = {name: rows for name, rows in again.differing.items() if rows}
    if wrong:
        named = ", ".join(
            f"{name} ({rows} rows)" for name, rows in sorted(wrong.items(), key=lambda item: -item[1])[:5]
        )
        return _result(
            "leak_join", Verdict.REJECT, max(wrong.values()), 0,
            f"of {again.rows} holdout rows joined again as of prediction time, these differ or are not there: {named}",
        )  # fmt: skip
    return _result(
        "leak_join", Verdict.PROMOTE, 0, 0, f"{again.rows} holdout rows joined again as of prediction time: all equal"
    )


def no_truncation_effect(evidence: Evidence) -> GateResult:
    """Features built without the data after a moment of the holdout equal those built with it."""
    cut = evidence.truncated
    if cut is None or (not cut.rows and not cut.leak):
        return _result("leak_truncation", Verdict.HOLD, None, 0, "features were not built again without the future")
    if cut.leak:
        return _result("leak_truncation", Verdict.REJECT, 1, 0, f"a feature changes when the future goes: {cut.leak}")
    return _result(
        "leak_truncation", Verdict.PROMOTE, 0, 0, f"{cut.rows} feature rows are the same without the data after them"
    )


def signature(evidence: Evidence) -> GateResult:
    """Features, order and views are those of the feature service, and the graph takes as many inputs."""
    if evidence.service_features is None or evidence.service_views is None or evidence.model_inputs is None:
        return _result("signature", Verdict.HOLD, None, 0, "the feature service could not be read")
    ours, theirs = list(evidence.features), list(evidence.service_features)
    faults = []
    if extra := [name for name in ours if name not in theirs]:
        faults.append(f"not in {evidence.spec.feature_service}: {', '.join(extra)}")
    if lacking := [name for name in theirs if name not in ours]:
        faults.append(f"missing: {', '.join(lacking)}")
    if not faults and ours != theirs:
        faults.append("the order differs")
    if evidence.model_inputs != len(ours):
        faults.append(f"the graph takes {evidence.model_inputs} inputs, the manifest lists {len(ours)}")
    if sorted(evidence.manifest_views) != sorted(evidence.service_views):
        faults.append(
            f"policies for views {', '.join(sorted(evidence.manifest_views))}; the service has "
            f"{', '.join(sorted(evidence.service_views))}"
        )
    if faults:
        return _result("signature", Verdict.REJECT, len(faults), 0, "; ".join(faults))
    return _result("signature", Verdict.PROMOTE, 0, 0, f"{len(ours)} features as in {evidence.spec.feature_service}")


GATES: dict[str, Gate] = {
    "leak_metric": too_good,
    "leak_join": no_future,
    "leak_truncation": no_truncation_effect,
    "signature": signature,
    "quality": quality,
    "baseline": baseline,
    "calibration": calibration,
    "slices": slices,
    "fairness": fairness,
    "directions": directions,
    "parity": parity,
    "latency": latency,
    "size": size,
    "memory": memory,
}


def run_gates(evidence: Evidence) -> list[GateResult]:
    """Every gate's answer; a gate that cannot compute holds."""
    results = []
    for name, gate in GATES.items():
        try:
            result = gate(evidence)
        except (NotComputable, ArithmeticError, ValueError) as error:
            result = _result(name, Verdict.HOLD, None, None, f"could not be computed: {error}")
        why = "; ".join(f"{what}: {reason}" for what, reason in evidence.problems.items() if what == name)
        results.append(result.model_copy(update={"reason": f"{result.reason} ({why})"}) if why else result)
    return results


def judge(results: Sequence[GateResult], expected: Sequence[str] = tuple(GATES)) -> Decision:
    """One verdict: any REJECT rejects; else any HOLD, and any gate that did not answer, holds."""
    answered = {item.gate: item for item in results}
    absent = [name for name in expected if name not in answered]
    rejected = [item for item in results if item.verdict is Verdict.REJECT]
    held = [item for item in results if item.verdict is Verdict.HOLD]
    if rejected:
        return Decision(Verdict.REJECT, " | ".join(f"{item.gate}: {item.reason}" for item in rejected))
    if held or absent or not results:
        said = [f"{item.gate}: {item.reason}" for item in held] + [f"{name}: no answer" for name in absent]
        return Decision(Verdict.HOLD, " | ".join(said) or "no gate answered")
    compared = answered["quality"].reason if "quality" in answered else f"{len(results)} gates passed"
    return Decision(Verdict.PROMOTE, f"all {len(results)} gates passed; {compared}")
