"""Decides whether asking a dependency is worth the wait. Pure."""

from __future__ import annotations


class Circuit:
    """Opens at a refused connection, or after some timeouts in a row; only a success closes it.

    While it is open nobody pays the deadline; who owns the circuit probes in the background.
    """

    def __init__(self, timeouts_to_open: int = 3) -> None:
        self._timeouts_to_open = timeouts_to_open
        self._timeouts = 0
        self.is_open = False

    def failed(self, kind: str) -> None:
        """A failure of `kind` `timeout` (may be one slow moment) or anything else (nobody is there)."""
        self._timeouts += 1
        if kind != "timeout" or self._timeouts >= self._timeouts_to_open:
            self.is_open = True

    def succeeded(self) -> None:
        """An answer came."""
        self._timeouts = 0
        self.is_open = False
