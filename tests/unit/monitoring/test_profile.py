"""Where a day's rows stand among the training rows of their hour and weekday."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.monitoring.limits import stability_index
from pipelines.monitoring.profile import Reference, Vectors, shares_of


def vectors(values, day, hour) -> Vectors:
    values = np.asarray(values, dtype=np.float32)
    return Vectors(("x",), values.reshape(-1, 1), np.asarray(day), np.asarray(hour))


def window(generator, scale_of_hour=1.0, days=28) -> Vectors:
    """Two hours a day, 30 rows each; the values of hour 20 are `scale_of_hour` times those of hour 8."""
    day = np.repeat(np.arange(700, 700 + days), 60)
    hour = np.tile(np.repeat([8, 20], 30), days)
    return vectors(generator.random(60 * days) * np.where(hour == 20, scale_of_hour, 1), day, hour)


def test_a_day_like_the_others_lies_evenly_in_all_tenths_whatever_its_mix_of_hours():
    generator = np.random.default_rng(0)
    reference = Reference(window(generator, scale_of_hour=100))
    evening = vectors(generator.random(4000) * 100, np.full(4000, 740), np.full(4000, 20))
    shares = shares_of(reference.profile(evening).below, 4000)[0]
    assert shares == pytest.approx(np.full(10, 0.1), abs=0.06)
    assert stability_index(shares) < 0.15, "an evening against evenings, though all mornings are a hundredth of it"


def test_a_flag_lies_evenly_though_it_has_two_values():
    generator = np.random.default_rng(1)
    flags = vectors((generator.random(1680) < 0.3).astype(float), np.repeat(np.arange(700, 728), 60), np.full(1680, 9))
    reference = Reference(flags)
    same = vectors((generator.random(5000) < 0.3).astype(float), np.full(5000, 735), np.full(5000, 9))
    more = vectors((generator.random(5000) < 0.6).astype(float), np.full(5000, 735), np.full(5000, 9))
    assert stability_index(shares_of(reference.profile(same).below, 5000)[0]) < 0.02
    assert stability_index(shares_of(reference.profile(more).below, 5000)[0]) > 0.2


def test_a_day_of_training_is_compared_with_the_others_only():
    generator = np.random.default_rng(2)
    usual = window(generator)
    values = usual.values.copy()
    values[usual.day == 710] += 5  # beyond every other day
    own = Reference(Vectors(("x",), values, usual.day, usual.hour)).own_profiles()
    odd = next(item for item in own if item.day == 710)
    assert shares_of(odd.below, odd.rows)[0][-1] == pytest.approx(1.0)
    assert len(own) == 28


def test_an_hour_that_training_never_had_is_compared_with_all_hours():
    reference = Reference(window(np.random.default_rng(3)))
    night = vectors(np.linspace(0, 1, 200), np.full(200, 740), np.full(200, 3))
    assert stability_index(shares_of(reference.profile(night).below, 200)[0]) < 0.05


def test_vectors_with_a_hole_are_refused_by_name():
    with pytest.raises(ValueError, match="NaN or infinite values in x"):
        vectors([1, np.nan], [700, 700], [8, 8])


def test_another_set_of_features_is_refused():
    reference = Reference(window(np.random.default_rng(4)))
    other = Vectors(("y",), np.zeros((1, 1), np.float32), np.array([740]), np.array([8]))
    with pytest.raises(ValueError, match="the reference has the features x; got y"):
        reference.profile(other)
