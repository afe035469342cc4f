"""`flightdeck lab` as a user meets it: ctrl-C, a second lab, down and status without a lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flightdeck.lab.processes import read_records

pytestmark = pytest.mark.xdist_group("processes")


def lab(*args: str, state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flightdeck.cli", "lab", *args, "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_without_a_lab_status_and_down_say_so(tmp_path: Path):
    told = lab("status", state=tmp_path)
    assert told.returncode == 3
    assert "no lab runs" in told.stdout
    told = lab("down", state=tmp_path)
    assert told.returncode == 0
    assert "no lab runs" in told.stdout


def test_ctrl_c_stops_every_process_and_a_second_lab_is_refused_meanwhile(tmp_path: Path):
    command = [sys.executable, "-m", "flightdeck.cli", "lab", "run", "--state", str(tmp_path), "--days", "1"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        records = tmp_path / "run" / "processes.json"
        deadline = time.monotonic() + 60
        while len(read_records(records)) < 3:
            assert time.monotonic() < deadline, "the stores and MLflow did not start"
            assert first.poll() is None, first.communicate()
            time.sleep(0.1)
        pids = [record.pid for record in read_records(records)]
        second = lab("run", state=tmp_path)
        assert second.returncode == 1
        assert f"pid {first.pid}" in second.stderr
        os.killpg(first.pid, signal.SIGINT)
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 130, out + err
    assert "interrupted" in err
    assert "Run it again" in err
    left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert not left
