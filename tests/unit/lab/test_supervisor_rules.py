"""Rules of the supervisor that need no process, and those of its records."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flightdeck.lab.processes import Record, read_records, start_time, write_records
from flightdeck.lab.supervisor import back_off_s


def test_restarts_wait_longer_each_time_but_never_more_than_ten_seconds():
    waits = [back_off_s(deaths) for deaths in range(1, 12)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits == sorted(waits)
    assert waits[-1] == 10.0


def test_a_process_is_ours_only_with_the_recorded_start_time_and_program():
    pid, started = os.getpid(), start_time(os.getpid())
    assert started is not None
    argv = (sys.executable,)
    assert Record("self", pid, started, argv).is_alive()
    assert not Record("self", pid, started - 3600, argv).is_alive(), "a reused pid has another start time"
    assert not Record("self", pid, started, ("/usr/bin/redis-server",)).is_alive(), "another program is not ours"
    assert not Record("self", pid, None, argv).is_alive()


def test_records_survive_a_round_trip_and_half_a_file_counts_as_none(tmp_path: Path):
    path = tmp_path / "processes.json"
    records = [Record("redis", 123, 1.5, ("redis-server", "--port", "1"))]
    write_records(path, records)
    assert read_records(path) == records
    path.write_text(path.read_text()[:20])
    assert read_records(path) == []
    assert read_records(tmp_path / "absent.json") == []
