"""Each cause of a skew by its name, and nothing said of clean answers."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from flightdeck.contracts.alarm import Cause, Remedy, Status
from pipelines.monitoring.skew import Compared, skew

NAMES = ("wind", "gust", "sun", "minute", "flag")
VIEWS = {"wind": "sky", "gust": "sky", "sun": "sky", "minute": "calendar", "flag": "calendar"}
DEFAULTS = np.array([8.0, 12.0, 0.5, 720.0, 0.0])
DAY = dt.date(2013, 7, 1)
ROWS = 200


@pytest.fixture
def right() -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.column_stack(
        [
            generator.gamma(4, 3, ROWS), generator.gamma(6, 3, ROWS), generator.random(ROWS),
            generator.integers(300, 1300, ROWS), generator.integers(0, 2, ROWS),
        ]
    )  # fmt: skip


def said(served, right, *, age_s=600.0, lag_s=0.0):
    ages = {"sky": np.full(len(right), age_s, dtype=float)}
    lags = {"sky": np.full(len(right), lag_s, dtype=float)}
    stored = frozenset({"wind", "gust", "sun"})
    return skew(Compared(NAMES, VIEWS, stored, served, right, DEFAULTS, ages, lags, {"sky": 6 * 3600.0}), DAY)


def changed(right, name, function) -> np.ndarray:
    served = right.copy()
    served[:, NAMES.index(name)] = function(right[:, NAMES.index(name)])
    return served


def test_equal_vectors_are_ok_and_say_how_many_were_compared(right):
    found = said(right.copy(), right)
    assert (found.checks[0].status, found.findings) == (Status.OK, [])
    assert "200 answers recomputed" in found.checks[0].reason


def test_rounding_of_single_precision_is_no_skew(right):
    assert not said(right.astype(np.float32).astype(float) * (1 + 1e-7), right).findings


@pytest.mark.parametrize(
    ("name", "function", "cause", "words"),
    [
        ("wind", lambda x: x * 0.44704, Cause.UNIT, "0.447 times"),
        ("wind", lambda x: (x - 32) / 1.8, Cause.UNIT, "-17.78"),
        ("minute", lambda x: (x + 240) % 1440, Cause.TRANSFORM, "+240"),
        ("minute", lambda x: x - 60, Cause.TRANSFORM, "-60"),
        ("wind", np.log1p, Cause.TRANSFORM, "another function"),
        ("sun", lambda x: 1 - x, Cause.TRANSFORM, "-1 times"),
        ("wind", np.trunc, Cause.TYPE, "cut to a whole number"),
        ("wind", np.round, Cause.TYPE, "rounded to a whole number"),
        ("gust", lambda x: x.astype(np.float16).astype(float), Cause.TYPE, "half precision"),
        ("sun", lambda x: np.full_like(x, 0.25), Cause.CONSTANT, "stands at 0.25"),
        ("sun", lambda x: np.full_like(x, 0.5), Cause.MISSING, "its default 0.5"),
        ("wind", lambda x: np.random.default_rng(1).permutation(x), Cause.VALUE, "instead of"),
    ],
)
def test_a_function_of_the_right_value_is_named(right, name, function, cause, words):
    found = said(changed(right, name, function), right)
    assert [(item.cause, item.features, item.remedy) for item in found.findings] == [(cause, (name,), Remedy.INCIDENT)]
    assert words in found.findings[0].sentence


def test_a_fault_of_one_replica_in_ten_is_named_as_well(right):
    served = right.copy()
    served[::10, 0] = np.trunc(right[::10, 0])
    found = said(served, right)
    assert [(item.cause, item.rows) for item in found.findings] == [(Cause.TYPE, 20)]


def test_swapped_columns_are_one_finding_that_names_both(right):
    served = right.copy()
    served[:, [0, 2]] = served[:, [2, 0]]
    found = said(served, right)
    assert [(item.cause, item.features) for item in found.findings] == [(Cause.ORDER, ("wind", "sun"))]
    assert "wind holds sun" in found.findings[0].sentence


def test_a_view_without_values_is_missing_whole(right):
    served = right.copy()
    served[:, :3] = DEFAULTS[:3]
    found = said(served, right, age_s=np.nan, lag_s=np.nan)
    assert [(item.cause, item.subject, set(item.features)) for item in found.findings] == [
        (Cause.MISSING, "sky", {"wind", "gust", "sun"})
    ]


def test_a_view_too_old_for_the_policy_is_stale_and_not_missing(right):
    served = right.copy()
    served[:, :3] = DEFAULTS[:3]
    found = said(served, right, age_s=7 * 3600.0, lag_s=np.nan)
    assert [(item.cause, item.subject) for item in found.findings] == [(Cause.STALE, "sky")]
    assert "7.0 h behind" in found.findings[0].sentence


def test_an_earlier_row_that_the_policy_accepts_is_reported_only(right):
    served = right.copy()
    served[:, :3] = right[::-1, :3]
    found = said(served, right, age_s=2 * 3600.0, lag_s=3600.0)
    assert (found.findings, found.checks[0].status) == ([], Status.REPORTED)
    assert "the policy accepts" in found.checks[0].reason


def test_three_corrected_rows_are_reported_and_do_not_alarm(right):
    served = right.copy()
    served[:3, 0] += 1.5
    found = said(served, right)
    assert (found.findings, found.checks[0].status) == ([], Status.REPORTED)


def test_too_few_recomputed_answers_are_no_data(right):
    found = said(right[:10].copy(), right[:10])
    assert found.checks[0].status is Status.NO_DATA


def test_two_faults_at_once_are_two_findings(right):
    served = changed(right, "wind", lambda x: x * 1.609)
    served[:, 3] = (right[:, 3] + 240) % 1440
    assert {(item.cause, item.features) for item in said(served, right).findings} == {
        (Cause.UNIT, ("wind",)), (Cause.TRANSFORM, ("minute",)),
    }  # fmt: skip
