"""Pure maths: what a mean of bounded differences surely is, however often one looks.

A gambler who starts with 1 bets on each difference d that the mean lies above m, at odds that are fair or worse when it
does not. Capital of 1/alpha or more is then as unlikely as alpha, at any look whatever: so "the mean is above m".
Source: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86(1), 2024
(arXiv 2010.09686): the capital process K_t(m) of its section 4, mixed over a grid of bets as in its "grid Kelly".
Ville's inequality (1939) makes it hold at all looks at once.

The bets are fixed, so the order of the differences does not matter and a histogram is the whole state. Fixed bets also
keep the bound when the rate drifts: as 1 + x <= e^x, the capital stays below a martingale that begins at 1 wherever the
*running* mean of the rates is at most m. So what is bounded is the mean rate so far, not the rate of this moment.

The capital falls when m rises. That makes bounds of tests: the largest m that is still refused is a lower bound.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.ArrayLike

STEPS = 200  # levels between 0 and 1: how fine a difference is kept
SLOTS = 2 * STEPS + 1  # of a histogram over [-1, 1]
_SHORT_OF_ALL = 1 - 2.0**-10  # a gambler who stakes all is ruined by one loss and could never come back
BETS: Array = np.array([_SHORT_OF_ALL, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32])  # shares of the largest bet allowed
_LOG_WEIGHTS: Array = np.log(2.0 ** -np.arange(6) / np.sum(2.0 ** -np.arange(6)))  # start capital: half on the boldest
_PARTS, _ROUNDS = 8, 8  # a bound is sought in eighths of eighths ...: exact to 2 / 8 ** 8, about 1e-7


def slot(differences: Numbers, draws: Numbers, grain: int = 1) -> npt.NDArray[np.int64]:
    """The histogram slot of each difference, any shape: one of the two neighbouring levels.

    Which of them is drawn so that the mean of the level is the difference itself. So the levels have the very mean that
    is tested, and rounding favours neither side. -1, 0 and 1 are kept exactly.

    Args:
        draws: in [0, 1), independent of everything observed; shape of `differences`.
        grain: only every so many levels are used, a divisor of `STEPS`; the mean is kept all the same.
    Raises:
        ValueError: a difference that is NaN or outside [-1, 1]: no measurement must ever count as a small one.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.all(np.abs(values) <= 1 + 1e-9):
        raise ValueError(f"a difference lies in [-1, 1]; found {values[~(np.abs(values) <= 1 + 1e-9)].flat[0]}")
    scaled = np.round(
        (np.clip(values, -1, 1) + 1) * (STEPS / grain), 9
    )  # rounding: a level stays one in floating point
    below = np.floor(scaled)
    return np.asarray((below + (np.asarray(draws) < scaled - below)) * grain, dtype=np.int64)


def level(slots: Numbers) -> Array:
    """The difference that each slot stands for."""
    return np.asarray(np.asarray(slots, dtype=np.float64) / STEPS - 1)


def log_capital_above(counts: Numbers, levels: Numbers, mean: Numbers, lo: float) -> Array:
    """Log of the capital of a gambler who bets that the mean is above `mean`; shape (...).

    log of the average over starts s of sum_j w_j prod_d (1 + f_j (d - m) / (m - lo)) ^ counts[s, d]: K_t(m) with the
    bets f_j / (m - lo), the largest that cannot go into debt. The average of such processes is one again. A start that
    lies in the future has counts of zero and keeps its capital of 1.

    Args:
        counts: shape (..., n_starts, n_levels); start s counts only what came since then, so that a change for the
            worse is found without the ballast of a good past.
        levels: shape (n_levels,), values of d in [lo, 1].
        mean: shape (...) or a scalar, each in (lo, 1].
        lo: smallest d that is possible.
    """
    counts = np.asarray(counts, dtype=np.float64)
    means = np.asarray(mean, dtype=np.float64)[..., None]  # (..., 1)
    gains = (np.asarray(levels, dtype=np.float64) - means) / (means - lo)  # (..., n_levels), never below -1
    log_factors = np.log1p(gains[..., None] * BETS)  # (..., n_levels, n_bets)
    each = counts @ log_factors + _LOG_WEIGHTS  # (..., n_starts, n_bets)
    return _log_sum(each) - np.log(counts.shape[-2])


def log_capital_below(counts: Numbers, levels: Numbers, mean: Numbers) -> Array:
    """Log of the capital of a gambler who bets that the mean is below `mean`; shape (...).

    log of sum_j w_j prod_d (1 + f_j (m - d) / (1 - m)) ^ counts[d]: the mirror image, since -d lies in [-1, -lo].

    Args:
        counts: shape (..., n_levels).
        levels, mean: as above; each mean in [lo, 1).
    """
    mirrored = -np.asarray(levels, dtype=np.float64)
    return log_capital_above(np.asarray(counts)[..., None, :], mirrored, -np.asarray(mean, dtype=np.float64), -1.0)


def surely_above(counts: Numbers, levels: Numbers, mean: Numbers, lo: float, alpha: float) -> Mask:
    """Whether the mean is above `mean`; wrong with a chance of at most `alpha` over all looks (Ville). Shape (...)."""
    return np.asarray(log_capital_above(counts, levels, mean, lo) >= -np.log(alpha))


def surely_below(counts: Numbers, levels: Numbers, mean: Numbers, beta: float) -> Mask:
    """Whether the mean is below `mean`; wrong with a chance of at most `beta` over all looks (Ville). Shape (...)."""
    return np.asarray(log_capital_below(counts, levels, mean) >= -np.log(beta))


def lower_bound(counts: Numbers, levels: Numbers, lo: float, alpha: float) -> Array:
    """The largest mean that `surely_above` still refuses; `lo` when there is none. Counts as there; shape (...)."""
    counts = np.asarray(counts, dtype=np.float64)
    low, width = np.full(counts.shape[:-2], lo), 1 - lo
    for _ in range(_ROUNDS):
        width /= _PARTS
        means = low[..., None] + width * np.arange(1, _PARTS)  # the capital falls along them
        low = low + width * surely_above(counts[..., None, :, :], levels, means, lo, alpha).sum(axis=-1)
    return low


def upper_bound(counts: Numbers, levels: Numbers, beta: float) -> Array:
    """The smallest mean that `surely_below` still refuses; 1 when there is none. Counts (..., n_levels)."""
    return -lower_bound(np.asarray(counts)[..., None, :], -np.asarray(levels, dtype=np.float64), -1.0, beta)


def equal_pairs_to_pass(margin: float, beta: float) -> int:
    """How many differences of exactly 0 it takes to be sure of a mean below `margin`: about ln(1.8 / beta) / margin."""
    low, high = 0, 1
    while not surely_below([float(high)], [0.0], margin, beta):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if surely_below([float(middle)], [0.0], margin, beta) else (middle, high)
    return high


def _log_sum(logs: Array) -> Array:
    """log of the sum of e^logs over the last two axes, without overflow."""
    top = np.max(logs, axis=(-2, -1), keepdims=True)
    return np.asarray(np.log(np.sum(np.exp(logs - top), axis=(-2, -1))) + top[..., 0, 0])
