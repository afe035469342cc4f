"""Keeps one fault from filling the log: each message text passes once per interval, the rest are counted."""

from __future__ import annotations

import logging
import time

_LONGEST_MEMORY = 256  # texts remembered; a caller who could vary the text must not grow it


class OncePerInterval(logging.Filter):
    """For loggers whose lines a caller can cause, as uvicorn's "Invalid HTTP request received."."""

    def __init__(self, interval_s: float = 10.0) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line may pass; a passing line tells how many equal ones were held back."""
        text, now_s = str(record.msg), time.monotonic()
        last_s, held_back = self._seen.get(text, (-self._interval_s, 0))
        if now_s - last_s < self._interval_s:
            self._seen[text] = (last_s, held_back + 1)
            return False
        if len(self._seen) >= _LONGEST_MEMORY:
            self._seen.clear()
        self._seen[text] = (now_s, 0)
        if held_back:
            record.msg = f"{text} ({held_back} more like this before)"
        return True
