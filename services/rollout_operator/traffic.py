"""Made-up traffic for simulated rollouts: what users ask and what two releases do, many rollouts at once.

Pure numpy, deterministic by its seed. A tick is the time between two looks of the judge. Requests of one tick stand in
columns: column j holds one request of the candidate and the champion's that it is compared with (in the shadow the same
request). Surplus requests of the other release are counted and not drawn: nothing that is judged depends on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DECISION = 0.5  # a score of at least this much is the other decision


@dataclasses.dataclass(frozen=True)
class Load:
    """How requests arrive: Poisson, with bursts that hit both releases alike.

    Args:
        rate_per_s: requests per second of all users.
        tick_s: between two looks.
        burst_every_s, burst_s: mean time from one burst to the next, and mean length; 0: no bursts.
        burst_rate, burst_slower: how many times the rate and the latency while it lasts.
        burst_errors: share of requests that fail on top, at either release.
        slices: for each key the shares of its values, which sum to 1.
    """

    rate_per_s: float
    tick_s: float = 2.0
    burst_every_s: float = 0.0
    burst_s: float = 0.0
    burst_rate: float = 1.0
    burst_slower: float = 1.0
    burst_errors: float = 0.0
    slices: tuple[tuple[float, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a release answers. All defaults are a healthy one.

    Args:
        errors, degraded: shares of its answers.
        median_ms, spread: of its lognormal latency; `tail_share` of the answers take `tail_times` as long.
        added_ms: more for each answer.
        score_shift, score_noise: added to the champion's score of the same request: the same for all, and the standard
            deviation of what differs. `constant` takes the place of every score.
        flips: share of decisions that are the opposite of what the score says.
        skew: share of answers in which a feature has another value than the champion's.
        dies_every: answers after which one replica dies and takes `lost` answers with it; 0: never.
    """

    errors: float = 0.001
    degraded: float = 0.005
    median_ms: float = 5.0
    spread: float = 0.4
    tail_share: float = 0.02
    tail_times: float = 4.0
    added_ms: float = 0.0
    score_shift: float = 0.0
    score_noise: float = 0.0
    constant: float | None = None
    flips: float = 0.0
    skew: float = 0.0
    dies_every: int = 0
    lost: int = 5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A release that may change for the worse: `fault` begins after so many of its answers, counted in the steps at
    which it can begin, and spares all slices but `only_slice`, (number of the key, number of the value)."""

    healthy: Behaviour = Behaviour()
    fault: Behaviour | None = None
    only_under_weight: bool = False
    after: int = 0
    only_slice: tuple[int, int] | None = None


@dataclasses.dataclass
class Batch:
    """One tick of n rollouts. Arrays have shape (n, columns); `taken` says which columns hold a request.

    Args:
        requests: of the candidate, shape (n,), mirrored ones too, also those that are compared with none.
        deaths: of candidate replicas in this tick, shape (n,).
        slices: for each key the number of the value that both requests of a column have; `values` how many there are.
    """

    tick_s: float
    shadow: Mask  # (n,)
    requests: Ints
    deaths: Ints
    taken: Mask
    failed: tuple[Mask, Mask]  # of candidate and champion, here and below
    latency_us: tuple[Floats, Floats]  # whole microseconds
    degraded: tuple[Mask, Mask]
    score: tuple[Floats, Floats]
    decision: tuple[Mask, Mask]
    skewed: Mask
    slices: tuple[Ints, ...] = ()
    values: tuple[int, ...] = ()

    @property
    def answered(self) -> Mask:
        """Columns in which both answered: only these have records to compare."""
        return self.taken & ~self.failed[0] & ~self.failed[1]

    @property
    def paired(self) -> Mask:
        """Columns with two answers to one request."""
        return self.answered & self.shadow[:, None]


class World:
    """Users and both releases of all rollouts; each call of `tick` is the next moment of those that still run."""

    def __init__(self, load: Load, champion: Behaviour, candidate: Candidate, rollouts: int, seed: int) -> None:
        self.load, self.champion, self.candidate = load, champion, candidate
        self.rng = np.random.default_rng(seed)
        self.counting = np.zeros(rollouts, dtype=np.int64)  # candidate's answers since its fault could begin
        self.since_fault = np.zeros(rollouts, dtype=np.int64)
        stays = load.tick_s / load.burst_s if load.burst_s else 1.0
        begins = load.tick_s / (load.burst_every_s - load.burst_s) if load.burst_s else 0.0
        self.leaves, self.enters = min(stays, 1.0), min(begins, 1.0)
        self.burst = self.rng.random(rollouts) < (load.burst_s / load.burst_every_s if load.burst_s else 0.0)

    def tick(self, active: Ints, shadow: Mask, weight: Floats) -> Batch:
        """What happens in the next tick.

        Args:
            active: indices of the rollouts that run, shape (n,).
            shadow: whether each is in the shadow, shape (n,).
            weight: share of users that the candidate answers, 0 to 1, shape (n,).
        """
        rng, load = self.rng, self.load
        change = rng.random(active.size) < np.where(self.burst[active], self.leaves, self.enters)
        burst = self.burst[active] = self.burst[active] ^ change
        mean = load.rate_per_s * load.tick_s * np.where(burst, load.burst_rate, 1.0)
        users = rng.poisson(mean)
        part = rng.binomial(users, weight)
        requests = np.where(shadow, users, part)
        compared = np.where(shadow, users, np.minimum(part, users - part))
        columns = np.arange(compared.max(initial=0))
        taken = columns < compared[:, None]
        counted = np.where(shadow & self.candidate.only_under_weight, 0, requests)
        slices = tuple(self._values(shares, taken.shape) for shares in load.slices)
        ill, deaths, lost = self._health(active, counted, columns, taken)
        if self.candidate.only_slice is not None:
            key, value = self.candidate.only_slice
            ill &= slices[key] == value
        self.counting[active] += counted

        slower = np.where(burst, load.burst_slower, 1.0).astype(np.float32)[:, None]
        more_errors = np.where(burst, load.burst_errors, 0.0)[:, None]
        healthy, fault = self.candidate.healthy, self.candidate.fault or self.candidate.healthy
        shape = taken.shape
        failed = (
            rng.random(shape, np.float32) < np.where(ill, fault.errors, healthy.errors) + more_errors,
            rng.random(shape, np.float32) < self.champion.errors + more_errors,
        )
        failed[0][lost] = True
        base, other = self._scores(shape), self._scores(shape)
        own = np.where(shadow[:, None], base, other)  # the same request, or another one of the same moment
        score = (self._answer(own, ill), base)
        said = (score[0] >= DECISION, base >= DECISION)
        flips = rng.random(shape, np.float32) < np.where(ill, fault.flips, healthy.flips)
        return Batch(
            tick_s=load.tick_s,
            shadow=shadow,
            requests=requests,
            deaths=deaths,
            taken=taken,
            failed=failed,
            latency_us=(self._latency(slower, ill, healthy, fault), self._latency(slower, ill, self.champion, None)),
            degraded=(
                rng.random(shape, np.float32) < np.where(ill, fault.degraded, healthy.degraded),
                rng.random(shape, np.float32) < self.champion.degraded,
            ),
            score=score,
            decision=(said[0] ^ flips, said[1]),
            skewed=rng.random(shape, np.float32) < np.where(ill, fault.skew, healthy.skew),
            slices=slices,
            values=tuple(map(len, load.slices)),
        )

    def _values(self, shares: tuple[float, ...], shape: tuple[int, ...]) -> Ints:
        """Of one key, by number: the last takes what rounding leaves."""
        upto = np.cumsum(shares[:-1])
        return np.asarray(np.searchsorted(upto, self.rng.random(shape), side="right"), dtype=np.int64)

    def _health(self, active: Ints, counted: Ints, columns: Ints, taken: Mask) -> tuple[Mask, Ints, Mask]:
        """Which columns the fault has reached, deaths in this tick, and the columns that died with a replica."""
        fault = self.candidate.fault
        deaths, lost = np.zeros(active.size, dtype=np.int64), np.zeros(taken.shape, dtype=bool)
        if fault is None:
            return np.zeros(taken.shape, dtype=bool), deaths, lost
        place = self.counting[active][:, None] + columns
        can = (counted > 0)[:, None]
        ill = taken & can & (place >= self.candidate.after)
        if fault.dies_every:
            since = place - self.candidate.after
            lost = ill & (since % fault.dies_every < fault.lost)
            before = np.maximum(self.counting[active] - self.candidate.after - 1, -1) // fault.dies_every
            after = np.maximum(self.counting[active] + counted - self.candidate.after - 1, -1) // fault.dies_every
            deaths = after - before
        return ill, deaths, lost

    def _scores(self, shape: tuple[int, ...]) -> Floats:
        """Of requests: most are low, 29 % above the decision's threshold."""
        drawn = self.rng.random(shape, np.float32)
        return drawn * drawn

    def _answer(self, scores: Floats, ill: Mask) -> Floats:
        """The candidate's scores of requests to which the champion would say `scores`."""

        def of(part: Behaviour) -> Floats:
            if part.constant is not None:
                return np.full(scores.shape, part.constant, np.float32)
            answer = scores + np.float32(part.score_shift)
            if part.score_noise:
                answer += np.float32(part.score_noise) * self.rng.standard_normal(scores.shape, np.float32)
            return np.clip(answer, np.float32(0), np.float32(1))

        healthy = of(self.candidate.healthy)
        return np.where(ill, of(self.candidate.fault), healthy) if self.candidate.fault else healthy

    def _latency(self, slower: Floats, ill: Mask, healthy: Behaviour, fault: Behaviour | None) -> Floats:
        drawn = self.rng.standard_normal(ill.shape, np.float32)
        tail = self.rng.random(ill.shape, np.float32)

        def of(part: Behaviour) -> Floats:
            times = np.where(tail < part.tail_share, np.float32(part.tail_times), np.float32(1))
            return np.float32(part.median_ms) * np.exp(np.float32(part.spread) * drawn) * times + part.added_ms

        taken_ms = np.where(ill, of(fault), of(healthy)) if fault else of(healthy)
        return np.maximum(np.rint(taken_ms * slower * np.float32(1000)), np.float32(1))
