"""What is counted: prediction records, gateway attempts and outcomes become differences of matched requests. Pure.

In the shadow a pair is both answers to one request. Under weight a candidate's request is matched with one of the
champion's from the same batch, drawn without a look at its outcome; surplus ones of the champion are dropped. So both
sides of a difference saw the same moment, and bursts, the hour of the day and changing weights cancel.

The state is histograms per plan step and what still waits for its other half: small, bounded, and kept with the
position in the log, so that a collector that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import Judge, Step
from services.rollout_operator.differences import (
    Answer,
    Differences,
    Pairs,
    clipped_scores,
    of_answers,
    of_latencies,
    request_of,
)
from services.rollout_operator.matching import Attempts, increments, matched, matched_attempts, mean_by_request
from services.rollout_operator.sequences import slot
from services.rollout_operator.skew import Skew, Views
from services.rollout_operator.slices import GRAIN, ByKey, Waiting, check_keys, pairs_by_slice, values_of

__all__ = ["CANDIDATE", "CHAMPION", "Answer", "Attempts", "Collector", "Evidence", "Tally"]

LONGEST_WAIT = 2_000  # answers, and pairs without an outcome, that wait; of more the oldest go
REMEMBERED = 4_000  # request ids per role, to know a retry again
YARDSTICK_ROWS = 200  # champion's answers before a median is taken from them
TAIL_ROWS = 300  # the same for the 99th percentile
RENEWED_ROWS = 1_000  # champion's answers after which both latencies are taken anew
BUCKETS_PER_E = 50  # latency buckets are 2 % wide


class Tally(msgspec.Struct):
    """Plain counts of one step, for sentences and minimums, without warm-up and retries; by request, not by row."""

    pairs: int = 0
    answers: int = 0  # of the candidate
    attempts: dict[str, list[int]] = msgspec.field(default_factory=dict)  # role -> [all, failed] at the gateway
    degraded: dict[str, int] = msgspec.field(default_factory=dict)  # role -> rows


class Evidence(msgspec.Struct):
    """All that a judge looks at.

    Args:
        series: component (a metric, or `metric/part`) -> step -> histogram slot -> differences.
        tallies: step -> plain counts. skew: per feature, from the shadow.
        yardsticks: the champion's latency in microseconds at "p50" and "p99", of its newest answers.
        dropped: answers and pairs that waited too long for their other half.
        slices: the same series for each slice, if the judge wants them.
    """

    series: dict[str, dict[int, dict[int, int]]] = msgspec.field(default_factory=dict)
    tallies: dict[int, Tally] = msgspec.field(default_factory=dict)
    skew: dict[str, Skew] = msgspec.field(default_factory=dict)
    yardsticks: dict[str, float] = msgspec.field(default_factory=dict)
    dropped: int = 0
    slices: ByKey = msgspec.field(default_factory=dict)


class _Pending(msgspec.Struct, frozen=True, array_like=True):
    """A pair that waits for its outcomes: entity and score of the champion's, of the candidate's; its step; the slices
    of which it is a pair, "key=value" each, "" for all answers."""

    champion_entity: str
    champion_score: float
    candidate_entity: str
    candidate_score: float
    step: int
    slices: list[str] = msgspec.field(default_factory=lambda: [""])


class _State(msgspec.Struct):
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    step: int = 0
    draws: int = 0  # calls that drew: each has a generator of its own
    warm: dict[str, int] = msgspec.field(default_factory=dict)  # replica -> answers seen
    seen: dict[str, dict[str, None]] = msgspec.field(default_factory=dict)  # role -> request ids, oldest first
    waiting: dict[str, dict[str, Answer]] = msgspec.field(default_factory=dict)  # role -> request id -> answer
    pending: list[_Pending] = msgspec.field(default_factory=list)
    labels: dict[str, float] = msgspec.field(default_factory=dict)
    first_scores: list[float] = msgspec.field(default_factory=list)
    middle: float | None = None  # their median, then frozen
    latencies: dict[int, int] = msgspec.field(default_factory=dict)  # bucket -> champion's newest answers
    latency_of: dict[str, float] = msgspec.field(default_factory=dict)  # yardsticks in force
    counters: dict[str, list[int]] = msgspec.field(default_factory=dict)  # "role endpoint" -> [total, failed]
    unmatched: list[int] = msgspec.field(default_factory=lambda: [0, 0])  # candidate's attempts without a partner
    slices_waiting: Waiting = msgspec.field(default_factory=dict)


CHAMPION, CANDIDATE = "champion", "candidate"
Series = dict[str, dict[int, dict[int, int]]]  # component -> step -> histogram slot -> differences


class Collector:
    """Turns what comes in into evidence. Deterministic: the same input and seed give the same evidence."""

    def __init__(
        self, judge: Judge, plan: Sequence[Step], champion: ModelManifest, candidate: ModelManifest, *, seed: int,
        state: bytes | None = None,
    ) -> None:  # fmt: skip
        """Begin, or go on from a `dump`.

        Raises:
            ValueError: a margin can never have data for this kind of model, or a slice for these features.
        """
        self.judge, self.plan, self.seed, self.task = judge, list(plan), seed, candidate.task
        if judge.margins.label_flips is not None and self.task is Task.REGRESSION:
            raise ValueError("judge.margins.labelFlips has no effect for a regression: it makes no decision")
        check_keys(judge.slices, {key for it in (champion, candidate) for one in it.features for key in one.join_keys})
        self._views = Views(champion, candidate)
        self._state = msgspec.msgpack.decode(state, type=_State) if state else _State()

    def begin_step(self, index: int) -> None:
        """Evidence from now on belongs to this step; safe to repeat."""
        state = self._state
        if index != state.step:
            state.step, state.unmatched, state.slices_waiting = index, [0, 0], {}
            for role in (CHAMPION, CANDIDATE):
                state.waiting[role] = {}
        state.evidence.tallies.setdefault(index, Tally())

    def evidence(self) -> Evidence:
        """What was counted so far."""
        return self._state.evidence

    def dump(self) -> bytes:
        """All state."""
        return msgspec.msgpack.encode(self._state)

    # -- answers --------------------------------------------------------------------------------------------------

    def predictions(self, champion: Sequence[PredictionRecord], candidate: Sequence[PredictionRecord]) -> None:
        """One batch of the log, both roles of the same moment."""
        tally = self._tally
        ours, theirs = self._answers(CHAMPION, champion), self._answers(CANDIDATE, candidate)
        tally.answers += len({request_of(key) for key in theirs})
        for role, answers in ((CHAMPION, ours), (CANDIDATE, theirs)):
            tally.degraded[role] = tally.degraded.get(role, 0) + sum(item.degraded for item in answers.values())
        pairs = self._joined(ours, theirs) if self._shadows else self._matched(ours, theirs)
        tally.pairs += len({request_of(key) for key in pairs})
        self._compare(pairs)
        self._wait_for_outcomes(pairs, self._compare_slices(ours, theirs, pairs))
        self._settle()
        self._learn(ours.values())

    def _answers(self, role: str, records: Sequence[PredictionRecord]) -> dict[str, Answer]:
        state = self._state
        seen = state.seen.setdefault(role, {})
        copied = state.seen.get(CHAMPION, {}) if role == CANDIDATE and not self._shadows else {}
        found: dict[str, Answer] = {}
        for record in records:
            key = f"{record.request_id}/{record.row}"
            if key in seen or key in copied:
                continue  # a retry of the gateway, a batch that was written twice, a copy from before the users came
            seen[key] = None
            count = state.warm[record.replica] = state.warm.get(record.replica, 0) + 1
            if count <= self.judge.warmup:
                continue
            usable = bool(np.isfinite(record.score))
            found[key] = Answer(
                record.entity_id,
                record.score if usable else np.inf,  # far from any score: what is no answer must not go unseen
                record.decision,
                not usable or any(not reason.startswith("horizon") for reason in record.degraded),
                record.latency_us if record.row == 0 else 0,
                record.features if self._shadows else [],
                self._views.read_at_s(record) if self._shadows else {},
                values_of(record, self.judge.slices),
            )
        _forget(seen, REMEMBERED)
        return found

    def _joined(self, ours: dict[str, Answer], theirs: dict[str, Answer]) -> Pairs:
        """Both answers to one request, whichever came first."""
        waiting = self._state.waiting
        champions, candidates = waiting.setdefault(CHAMPION, {}), waiting.setdefault(CANDIDATE, {})
        champions |= ours
        candidates |= theirs
        both = [key for key in candidates if key in champions]
        pairs = {key: (champions.pop(key), candidates.pop(key)) for key in both}
        for part in (champions, candidates):
            self._state.evidence.dropped += _forget(part, LONGEST_WAIT)
        return pairs

    def _matched(self, ours: dict[str, Answer], theirs: dict[str, Answer]) -> Pairs:
        """Two answers of one moment."""
        left = self._state.waiting.setdefault(CANDIDATE, {})
        left |= theirs
        pairs, dropped = matched(list(ours.values()), left, self._generator())
        self._state.evidence.dropped += dropped
        return pairs

    def _compare(self, found: Pairs) -> None:
        """The differences of each pair, for every metric that has a margin."""
        if not found:
            return
        state, series = self._state, self._state.evidence.series
        for item in (*of_latencies(found, self.judge, state.latency_of), *self._of_answers(found)):
            self._add(series, item)
        if self._shadows and self.judge.margins.feature_skew is not None:
            skew = state.evidence.skew
            compared = {key: self._views.compare(*pair, skew) for key, pair in found.items()}
            known = {key: value for key, value in compared.items() if value is not None}
            self._add(series, Differences("featureSkew", np.array(list(known.values())), [*map(request_of, known)]))

    def _compare_slices(self, ours: dict[str, Answer], theirs: dict[str, Answer], found: Pairs) -> dict[str, list[str]]:
        """The same for each slice, as far as a slice can show it.

        Returns:
            Of what each of the pairs `found` is one, for those that are more than a pair of all answers.
        """
        state, settings = self._state, self.judge.slices
        part_of: dict[str, list[str]] = {}
        if settings is None:
            return part_of
        joined = found if self._shadows else None
        sliced = pairs_by_slice(
            settings, state.evidence.slices, state.slices_waiting, ours=ours, theirs=theirs, joined=joined,
            generator=self._generator,
        )  # fmt: skip
        for name, part, pairs in sliced:
            for item in self._of_answers(pairs):
                self._add(part.series, item, grain=GRAIN)
            if joined is None:
                self._wait_for_outcomes(pairs, {key: [name] for key in pairs})
            else:
                for key in pairs:
                    part_of.setdefault(key, [""]).append(name)
        return part_of

    def _of_answers(self, found: Pairs) -> list[Differences]:
        return list(of_answers(found, self.judge, shadow=self._shadows, middle=self._state.middle))

    def _learn(self, answers: Any) -> None:
        """The champion's own yardsticks, from answers that were already compared."""
        state = self._state
        for answer in answers:
            if answer.latency_us:
                bucket = int(np.log(answer.latency_us) * BUCKETS_PER_E)
                state.latencies[bucket] = state.latencies.get(bucket, 0) + 1
            if len(state.first_scores) < YARDSTICK_ROWS:
                state.first_scores.append(answer.score)
        if state.middle is None and len(state.first_scores) >= YARDSTICK_ROWS:
            state.middle = float(np.median(np.clip(state.first_scores, *self.judge.score_range)))
        self._take_yardsticks()

    def _take_yardsticks(self) -> None:
        """From the champion's newest answers, as soon as there are enough; then anew from each `RENEWED_ROWS`.

        The margin of a latency metric is 0 whatever the yardstick, as long as that comes from earlier answers. It
        follows the champion, so that a load that rises or falls does not turn a p99 into another quantile.
        """
        state = self._state
        total = sum(state.latencies.values())
        full = total >= RENEWED_ROWS
        for name, share, rows in (("p50", 0.5, YARDSTICK_ROWS), ("p99", 0.99, TAIL_ROWS)):
            if not full and (name in state.latency_of or total < rows):
                continue
            so_far = 0
            for bucket in sorted(state.latencies):
                so_far += state.latencies[bucket]
                if so_far >= share * total:
                    state.latency_of[name] = float(np.exp((bucket + 1) / BUCKETS_PER_E))
                    break
        if full:
            state.latencies = {}
        state.evidence.yardsticks = dict(state.latency_of)

    # -- attempts -------------------------------------------------------------------------------------------------

    def attempts(self, champion: Mapping[str, Attempts], candidate: Mapping[str, Attempts]) -> None:
        """One scrape of the gateway's cumulative counters, by endpoint.

        An endpoint of the champion that is new gives a baseline only; one of the candidate counts from 0. A counter
        that fell began anew. An endpoint that is missing from a scrape is no zero.
        """
        state = self._state
        ours = increments(CHAMPION, state.counters, champion, from_zero=False)
        theirs = increments(CANDIDATE, state.counters, candidate, from_zero=True)
        for role, (total, failed) in ((CHAMPION, ours), (CANDIDATE, theirs)):
            counts = self._tally.attempts.setdefault(role, [0, 0])
            counts[0], counts[1] = counts[0] + total, counts[1] + failed
        if self.judge.margins.error_rate is None:
            return
        pool = (state.unmatched[0] + theirs[0], state.unmatched[1] + theirs[1])
        differences, state.unmatched = matched_attempts(ours, pool, self._generator())
        state.evidence.dropped += pool[0] - sum(differences.values()) - state.unmatched[0]
        if differences:
            self._count(f"errorRate/{'shadow' if self._shadows else 'canary'}", differences)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def outcomes(self, outcomes: Mapping[str, float]) -> None:
        """entity_id -> what really happened, as it became known."""
        if self.judge.margins.label_loss is None:
            return
        self._state.labels |= {name: label for name, label in outcomes.items() if np.isfinite(label)}
        self._settle()
        _forget(self._state.labels, LONGEST_WAIT)

    def _wait_for_outcomes(self, found: Pairs, part_of: Mapping[str, list[str]]) -> None:
        """Pairs of all answers, unless `part_of` says of what."""
        if self.judge.margins.label_loss is None or not found:
            return
        state, scores = self._state, clipped_scores(list(found.values()), self.judge).tolist()
        for (key, (one, other)), (ours, theirs) in zip(found.items(), scores, strict=True):
            if one.entity_id and other.entity_id:
                of = part_of.get(key, [""])
                state.pending.append(_Pending(one.entity_id, ours, other.entity_id, theirs, state.step, of))

    def _settle(self) -> None:
        """Losses of the pairs whose outcomes are known by now."""
        state, labels = self._state, self._state.labels
        known: list[_Pending] = []
        open_: list[_Pending] = []
        for it in state.pending:
            (known if it.champion_entity in labels and it.candidate_entity in labels else open_).append(it)
        losses: dict[tuple[str, int], list[float]] = {}
        for it in known:
            loss = self._loss(it.candidate_score, labels[it.candidate_entity])
            loss -= self._loss(it.champion_score, labels[it.champion_entity])
            for name in it.slices:
                losses.setdefault((name, it.step), []).append(loss)
        for (name, step), values in losses.items():
            key, _, value = name.partition("=")
            series = state.evidence.slices[key][value].series if name else state.evidence.series
            self._add(series, Differences("labelLoss", np.array(values), []), step=step, grain=GRAIN if name else 1)
        most = LONGEST_WAIT * (1 + len(self.judge.slices.by if self.judge.slices else []))
        state.evidence.dropped += max(0, len(open_) - most)
        state.pending = open_[-most:]

    def _loss(self, score: float, label: float) -> float:
        """Squared error of a probability (Brier, 1950), else absolute error as a share of the score range; 0 to 1."""
        if self.task is Task.CLASSIFICATION:
            return float(min(1.0, (score - label) ** 2))
        low, high = self.judge.score_range
        return min(1.0, abs(score - min(max(label, low), high)) / (high - low))

    # -- histograms -----------------------------------------------------------------------------------------------

    @property
    def _shadows(self) -> bool:
        return self.plan[self._state.step].shadow is not None

    @property
    def _tally(self) -> Tally:
        return self._state.evidence.tallies.setdefault(self._state.step, Tally())

    def _generator(self) -> np.random.Generator:
        """A new one for each call, so that only a number has to be remembered."""
        self._state.draws += 1
        return np.random.default_rng([self.seed, self._state.draws])

    def _add(self, series: Series, found: Differences, *, step: int | None = None, grain: int = 1) -> None:
        """Count the differences, one per request where it is known whose each is."""
        values = found.values
        if not values.size:
            return
        if found.requests:
            values = mean_by_request(values, found.requests)
        exact = bool(np.all(values == np.rint(values)))
        draws = np.zeros(values.shape) if exact else self._generator().random(values.shape)
        slots, counts = np.unique(slot(values, draws, grain), return_counts=True)
        histogram = self._histogram(series, found.component, step)
        for at, count in zip(slots.tolist(), counts.tolist(), strict=True):
            histogram[at] = histogram.get(at, 0) + count

    def _count(self, component: str, differences: Mapping[float, int]) -> None:
        histogram = self._histogram(self._state.evidence.series, component, None)
        for difference, count in differences.items():
            if count:
                at = int(slot(difference, 0.0))
                histogram[at] = histogram.get(at, 0) + count

    def _histogram(self, series: Series, component: str, step: int | None) -> dict[int, int]:
        return series.setdefault(component, {}).setdefault(self._state.step if step is None else step, {})


def _forget(items: dict[str, Any], most: int) -> int:
    """Drop the oldest beyond `most`; returns how many."""
    gone = list(items)[: max(0, len(items) - most)]
    for key in gone:
        del items[key]
    return len(gone)
