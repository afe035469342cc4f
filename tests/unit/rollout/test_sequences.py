from __future__ import annotations

import math

import numpy as np
import pytest

from services.rollout_operator import sequences

SIGNS = np.array([-1.0, 0.0, 1.0])


def counts(*, worse: int = 0, equal: int = 0, better: int = 0) -> np.ndarray:
    """In the order of SIGNS, whose +1 is "the candidate was worse"."""
    return np.array([better, equal, worse], dtype=float)


def one_start(found: np.ndarray) -> np.ndarray:
    return found[..., None, :]


def running_histograms(rng: np.random.Generator, rates: list[float], rollouts: int, looks: int, per_look: int):
    """Counts of SIGNS after each look, shape (rollouts, looks, 3)."""
    return np.cumsum(rng.multinomial(per_look, rates, size=(rollouts, looks)), axis=1).astype(float)


def test_without_errors_a_margin_of_one_per_cent_is_passed_after_356_requests():
    assert sequences.equal_pairs_to_pass(0.01, 0.05) == 356
    assert not sequences.surely_below(counts(equal=355), SIGNS, 0.01, 0.05)
    assert sequences.surely_below(counts(equal=356), SIGNS, 0.01, 0.05)


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1])
def test_no_sequence_can_pass_before_the_chance_of_seeing_no_error_is_beta(margin: float):
    needed = sequences.equal_pairs_to_pass(margin, 0.05)
    least = math.log(0.05) / math.log(1 - margin)
    assert least <= needed <= 1.25 * least  # what the mixture of bets costs


def test_the_capital_is_the_mixture_of_products_written_out():
    d = [1.0, 0.0, 0.0, -1.0, 0.0]
    m, lo = 0.1, -1.0
    weights = [2.0**-j for j in range(6)]
    capital = 0.0
    for weight, bet in zip(weights, sequences.BETS, strict=True):
        capital += weight / sum(weights) * math.prod(1 + bet * (x - m) / (m - lo) for x in d)
    found = sequences.log_capital_above(one_start(counts(worse=1, equal=3, better=1)), SIGNS, m, lo)
    assert float(found) == pytest.approx(math.log(capital), abs=1e-12)


def test_the_capital_of_several_starts_is_their_mean():
    early, late = counts(worse=3, equal=500), counts(worse=3, equal=10)
    each = [sequences.log_capital_above(one_start(one), SIGNS, 0.01, -1.0) for one in (early, late)]
    both = sequences.log_capital_above(np.stack([early, late]), SIGNS, 0.01, -1.0)
    assert float(both) == pytest.approx(math.log(np.mean(np.exp(each))), abs=1e-12)


def test_a_fault_that_begins_late_is_found_without_the_ballast_of_a_good_past():
    past, now = counts(equal=20_000), counts(worse=12, equal=88)
    assert not sequences.surely_above(one_start(past + now), SIGNS, 0.01, -1.0, 0.01)
    assert sequences.surely_above(np.stack([past + now, now]), SIGNS, 0.01, -1.0, 0.01)


@pytest.mark.parametrize(("rates", "mean"), [([0.0, 0.95, 0.05], 0.05), ([0.2, 0.55, 0.25], 0.05), ([0.5, 0, 0.5], 0)])
def test_each_bound_holds_at_all_looks_at_once(rates: list[float], mean: float):
    rollouts, alpha = 2000, 0.1
    found = running_histograms(np.random.default_rng(7), rates, rollouts, looks=60, per_look=25)
    above = sequences.surely_above(one_start(found), SIGNS, mean, -1.0, alpha).any(axis=1).mean()
    below = sequences.surely_below(found, SIGNS, mean, alpha).any(axis=1).mean()
    allowance = 3 * math.sqrt(alpha * (1 - alpha) / rollouts)
    assert above <= alpha + allowance
    assert below <= alpha + allowance
    assert above + below > 0.02  # not so careful as to be useless
    fixed = found[:, :, 2] - found[:, :, 0] - mean * found.sum(axis=2)  # an ordinary 5 % test at each look, to compare
    spread = np.sqrt(found.sum(axis=2) * (rates[0] + rates[2] - mean**2))
    assert (fixed > 1.282 * spread).any(axis=1).mean() > 2 * alpha


def test_averaging_over_starts_keeps_the_bound():
    rollouts, alpha, per_step = 2000, 0.1, 20
    rng = np.random.default_rng(3)
    looks = rng.multinomial(25, [0.1, 0.75, 0.15], size=(rollouts, 3 * per_step)).astype(float)
    starts = []
    for start in range(3):
        since = looks.copy()
        since[:, : start * per_step] = 0
        starts.append(np.cumsum(since, axis=1))
    wrong = sequences.surely_above(np.stack(starts, axis=2), SIGNS, 0.05, -1.0, alpha).any(axis=1).mean()
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / rollouts)


def test_the_bound_holds_for_the_running_mean_of_a_drifting_rate():
    rollouts, alpha = 2000, 0.1
    rng = np.random.default_rng(11)
    low = rng.multinomial(25, [0, 1, 0], size=(rollouts, 30))
    high = rng.multinomial(25, [0, 0.9, 0.1], size=(rollouts, 30))  # the mean so far never exceeds 0.05
    found = np.cumsum(np.concatenate([low, high], axis=1), axis=1).astype(float)
    assert sequences.surely_above(one_start(found), SIGNS, 0.05, -1.0, alpha).any(axis=1).mean() <= alpha


def test_a_difference_of_any_size_is_bounded_too():
    rollouts, alpha = 1000, 0.1
    rng = np.random.default_rng(5)
    d = rng.beta(0.5, 9.5, size=(rollouts, 600))  # mean 0.05, in [0, 1]
    found = np.zeros((rollouts, sequences.SLOTS))
    wrong = np.zeros((2, rollouts), dtype=bool)
    levels = sequences.level(np.arange(sequences.SLOTS))[sequences.STEPS :]
    for upto in range(0, 600, 100):
        slots = sequences.slot(d[:, upto : upto + 100], rng.random((rollouts, 100)))
        np.add.at(found, (np.arange(rollouts)[:, None], slots), 1)
        wrong[0] |= sequences.surely_above(one_start(found[:, sequences.STEPS :]), levels, 0.05, 0.0, alpha)
        wrong[1] |= sequences.surely_below(found[:, sequences.STEPS :], levels, 0.05, alpha)
    assert (wrong.mean(axis=1) <= alpha).all()


def test_bounds_agree_with_the_tests_on_both_sides_of_them():
    found = counts(worse=30, equal=900, better=10)
    low = float(sequences.lower_bound(one_start(found), SIGNS, -1.0, 0.05))
    high = float(sequences.upper_bound(found, SIGNS, 0.05))
    assert low < 20 / 940 < high
    assert sequences.surely_above(one_start(found), SIGNS, low, -1.0, 0.05)
    assert not sequences.surely_above(one_start(found), SIGNS, low + 1e-6, -1.0, 0.05)
    assert sequences.surely_below(found, SIGNS, high, 0.05)
    assert not sequences.surely_below(found, SIGNS, high - 1e-6, 0.05)


def test_the_capital_falls_with_the_mean_it_is_bet_against():
    means = np.linspace(-0.9, 0.95, 50)
    many = np.broadcast_to(one_start(counts(worse=7, equal=50, better=3)), (50, 1, 3))
    assert (np.diff(sequences.log_capital_above(many, SIGNS, means, -1.0)) < 0).all()
    assert (np.diff(sequences.log_capital_below(many[:, 0], SIGNS, means)) > 0).all()


def test_one_more_error_moves_both_bounds_up_and_one_more_request_draws_them_together():
    def bounds(found: np.ndarray) -> tuple[float, float]:
        lower = sequences.lower_bound(one_start(found), SIGNS, -1.0, 0.05)
        return float(lower), float(sequences.upper_bound(found, SIGNS, 0.05))

    base = bounds(counts(worse=5, equal=495))
    more_errors = bounds(counts(worse=6, equal=494))
    more_requests = bounds(counts(worse=10, equal=990))
    assert more_errors[0] > base[0] and more_errors[1] > base[1]
    assert more_requests[0] > base[0] and more_requests[1] < base[1]


def test_without_data_the_bounds_say_nothing():
    assert float(sequences.lower_bound(one_start(counts()), SIGNS, -1.0, 0.05)) == -1
    assert float(sequences.upper_bound(counts(), SIGNS, 0.05)) == pytest.approx(1, abs=1e-6)


def test_many_rollouts_at_once_give_what_each_gives_alone():
    rng = np.random.default_rng(1)
    found = rng.integers(0, 50, size=(7, 3)).astype(float)
    together = sequences.upper_bound(found, SIGNS, 0.05)
    assert together.shape == (7,)
    assert together == pytest.approx([float(sequences.upper_bound(row, SIGNS, 0.05)) for row in found], abs=1e-12)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, 0.5, -0.005, 0.29, 0.57])
def test_a_difference_on_a_level_is_kept_exactly(value: float):
    slots = sequences.slot(np.full(1000, value), np.linspace(0, 0.999, 1000))
    assert sequences.level(slots) == pytest.approx(np.full(1000, value), abs=1e-15)


def test_rounding_keeps_the_mean_of_a_difference_smaller_than_a_level():
    slots = sequences.slot(np.full(1000, 0.001), np.linspace(0, 0.999, 1000))
    assert set(sequences.level(slots).round(9)) == {0.0, 0.005}
    assert sequences.level(slots).mean() == pytest.approx(0.001, abs=1e-5)


def test_fewer_levels_keep_the_mean_as_well():
    slots = sequences.slot(np.full(1000, 0.012), np.linspace(0, 0.999, 1000), 10)
    assert set(sequences.level(slots).round(9)) == {0.0, 0.05}
    assert sequences.level(slots).mean() == pytest.approx(0.012, abs=1e-4)
    assert sequences.slot([-1.0, 0.0, 1.0], 0.5, 10).tolist() == [0, 200, 400]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.01, -1.5])
def test_no_measurement_never_becomes_a_difference(value: float):
    with pytest.raises(ValueError, match=r"lies in \[-1, 1\]"):
        sequences.slot([0.0, value], [0.5, 0.5])
