"""What `flightdeck load` sends when nobody says what."""

from __future__ import annotations

import datetime as dt

import pytest

from flightdeck.cli import load


def test_by_default_there_are_many_requests_of_the_day_after_the_first_run():
    assert len(load._real(None)) > 300


def test_a_moment_at_which_nobody_asks_is_said_before_anything_is_sent():
    with pytest.raises(ValueError, match="no request falls between 2013-07-01 03:15 and 04:45 UTC"):
        load._real(dt.datetime(2013, 7, 1, 4))
