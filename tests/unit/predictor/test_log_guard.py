from __future__ import annotations

import logging

from services.predictor.log_guard import OncePerInterval


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.WARNING, "", 0, text, None, None)


def test_equal_lines_pass_once_per_interval_and_others_are_not_held_back():
    guard = OncePerInterval(interval_s=60)
    assert [guard.filter(line("bad")) for _ in range(3)] == [True, False, False]
    assert guard.filter(line("other"))


def test_the_next_line_that_passes_tells_how_many_were_held_back(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    guard = OncePerInterval(interval_s=60)
    for _ in range(5):
        guard.filter(line("bad"))
    now_s[0] += 61
    late = line("bad")
    assert guard.filter(late)
    assert late.msg == "bad (4 more like this before)"


def test_many_different_lines_do_not_grow_the_memory():
    guard = OncePerInterval(interval_s=60)
    for at in range(10_000):
        guard.filter(line(f"bad {at}"))
    assert len(guard._seen) <= 256
