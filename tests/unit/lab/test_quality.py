from __future__ import annotations

import numpy as np
import pytest

from flightdeck.lab.quality import auc, calibration, roc


def test_auc_is_the_share_of_pairs_in_the_right_order_and_a_tie_is_half():
    label = np.array([1, 1, 0, 0])
    assert auc(label, np.array([0.9, 0.8, 0.2, 0.1])) == 1.0
    assert auc(label, np.array([0.1, 0.2, 0.8, 0.9])) == 0.0
    assert auc(label, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert auc(label, np.array([0.9, 0.3, 0.5, 0.1])) == 0.75


def test_auc_with_one_class_is_not_a_number_to_show():
    assert auc(np.array([1, 1]), np.array([0.1, 0.2])) is None
    assert auc(np.array([]), np.array([])) is None


def test_auc_agrees_with_scikit_learn_on_scores_with_ties():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(3)
    label, score = generator.integers(0, 2, 500), generator.integers(0, 20, 500) / 20
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score))


def test_the_roc_curve_runs_from_corner_to_corner():
    false, true = roc(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.8, 0.3]))
    assert (false[0], true[0]) == (0, 0)
    assert (false[-1], true[-1]) == (1, 1)
    assert np.all(np.diff(false) >= 0)
    assert np.all(np.diff(true) >= 0)


def test_calibration_bins_hold_equally_many_rows():
    score = np.linspace(0, 1, 100)
    said, happened = calibration((score > 0.5).astype(int), score, bins=2)
    assert said == pytest.approx([0.247, 0.753], abs=0.01)
    assert happened == pytest.approx([0, 1], abs=0.02)
