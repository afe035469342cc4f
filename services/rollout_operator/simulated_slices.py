"""Slices of simulated rollouts, many at once: what slices.py counts and sliced.py says. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import sequences
from services.rollout_operator.simulated_metrics import LEVELS, SIGNS, Counts, Said, slices_of
from services.rollout_operator.sliced import by_slice
from services.rollout_operator.slices import GRAIN
from services.rollout_operator.traffic import Batch, Ints, Mask


class ManySlices:
    """sliced.py for many rollouts at once; slices are told by number, and all values have one each."""

    def __init__(self, spec: RolloutSpec, rollouts: int) -> None:
        self.spec, self.rollouts, self.metrics = spec, rollouts, slices_of(spec)
        self.firsts: list[int] = []  # number of each key's first slice, then of all
        self.counts: dict[str, Counts] = {}  # shape (rollouts, steps, parts, slices, levels)

    def begin(self, batch: Batch, active: Ints, step: Ints, matched: Mask) -> None:
        """Take a tick's slices, and count its compared requests by slice.

        Args:
            matched: columns that are compared.
        Raises:
            ValueError: the traffic does not say how often the keys have which value.
        """
        if not self.metrics:
            return
        assert self.spec.judge.slices
        if len(batch.slices) != len(by := self.spec.judge.slices.by):
            raise ValueError(
                f"the spec judges slices by {', '.join(by)}, and the load has shares for {len(batch.slices)} of these "
                f"{len(by)} keys: give Load.slices, or simulate without slices"
            )
        self.active, self.step, self.slices = active, step, batch.slices
        if not self.counts:
            self.firsts = [0, *np.cumsum(batch.values).tolist()]
            self.pairs = np.zeros((self.rollouts, self.firsts[-1]))
            for name, it in self.metrics.items():
                parts = len(it.rule.parts) or 1
                shape = (self.rollouts, len(self.spec.plan), parts, self.firsts[-1], it.levels.size)
                self.counts[name] = np.zeros(shape)
        for first, values in zip(self.firsts, self.slices, strict=False):
            row, column = np.nonzero(matched)
            np.add.at(self.pairs, (active[row], first + values[row, column]), 1)

    def add(self, name: str, part: int, known: Mask, differences: Counts, rng: np.random.Generator) -> None:
        """Differences, shape (n, columns), into the histograms of their slices."""
        it = self.metrics.get(by_slice(name))
        if it is None:
            return
        counts, (row, column) = self.counts[by_slice(name)], np.nonzero(known)
        if it.levels.size <= SIGNS.size:
            place = differences[row, column].astype(np.int64) - int(it.levels[0])
        else:
            slots = sequences.slot(differences[row, column], rng.random(row.size), GRAIN)
            place = slots // GRAIN - (LEVELS[::GRAIN].size - it.levels.size)
        for first, values in zip(self.firsts, self.slices, strict=False):
            of = first + values[row, column]
            np.add.at(counts, (self.active[row], self.step[row], np.full_like(row, part), of, place), 1)

    def say(self, active: Ints) -> dict[str, npt.NDArray[np.int8]]:
        """`Said` of each metric over its slices."""
        found = {}
        for name, it in self.metrics.items():
            counts = self.counts[name][active].transpose(0, 2, 3, 1, 4)  # (n, parts, slices, steps, levels)
            since = np.cumsum(counts[..., ::-1, :], axis=-2)[..., ::-1, :]
            total = since[..., 0, :]
            fail, good = np.zeros(active.size, dtype=bool), total.sum(axis=-1) > 0
            for levels in (it.levels, -it.levels) if it.rule.two_sided else (it.levels,):
                fail |= sequences.surely_above(since, levels, it.margin, it.rule.lo, it.alpha).any(axis=(1, 2))
                good &= sequences.surely_below(total, levels, it.margin, self.spec.judge.beta)
            passed = (good.all(axis=1) | ~self._waited_for(active)).all(axis=1)
            none = total.sum(axis=(1, 2, 3)) == 0
            found[name] = np.select([none, fail, passed], [Said.NO_DATA, Said.FAIL, Said.PASS], Said.WATCHING)
        return found

    def _waited_for(self, active: Ints) -> Mask:
        """Slices with a good share of their key's requests, shape (n, slices)."""
        assert self.spec.judge.slices
        pairs, waited = self.pairs[active], []
        for first, end in zip(self.firsts, self.firsts[1:], strict=False):
            own = pairs[:, first:end]
            least_pairs = self.spec.judge.slices.min_share * own.sum(axis=1, keepdims=True)
            waited.append((own > 0) & (own >= least_pairs))
        return np.concatenate(waited, axis=1)
