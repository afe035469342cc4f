"""The supervisor on real processes: restarts, health, jobs, ends, and what happens when it is killed itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flightdeck.lab.processes import Record, read_records, start_time, write_records
from flightdeck.lab.supervisor import RECORDS, JobFailed, ProcessSpec, StartFailed, Supervisor, clean_up

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


def spec(name: str, code: str, **changes: object) -> ProcessSpec:
    settings: dict = {"env": dict(os.environ), "cwd": Path.cwd(), "stop_s": 3.0, **changes}
    return ProcessSpec(name, (sys.executable, "-c", code), **settings)


def until(true: Callable[[], object], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def pid_of(supervisor: Supervisor, name: str) -> int | None:
    return next(status.pid for status in supervisor.status() if status.name == name)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_process_is_started_anew_and_all_end_with_the_supervisor(tmp_path: Path):
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(spec("sleeper", SLEEP))
        first = pid_of(supervisor, "sleeper")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert until(lambda: pid_of(supervisor, "sleeper") not in {None, first})
        second = pid_of(supervisor, "sleeper")
        assert second is not None
        (status,) = supervisor.status()
        assert status.restarts == 1
    assert gone(second)
    told = (tmp_path / "run" / "events.jsonl").read_text()
    assert "killed by SIGKILL" in told


def test_workers_of_a_dead_leader_are_ended_before_the_restart(tmp_path: Path):
    code = (
        "import subprocess, sys, time, pathlib\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        f"pathlib.Path({str(tmp_path / 'worker')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(spec("leader", code))
        assert until(lambda: (tmp_path / "worker").is_file() and (tmp_path / "worker").read_text())
        worker, leader = int((tmp_path / "worker").read_text()), pid_of(supervisor, "leader")
        assert leader is not None
        os.kill(leader, signal.SIGKILL)
        assert until(lambda: gone(worker))


def test_a_worker_in_a_session_of_its_own_dies_with_its_leader_and_takes_it_along(tmp_path: Path):
    code = (
        "import subprocess, sys, time, pathlib\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path / 'worker')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )

    def ready() -> str | None:
        path = tmp_path / "worker"
        works = path.is_file() and path.read_text() and not gone(int(path.read_text()))
        return None if works else "starting"

    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:

        def worker(*before: int) -> int:
            path = tmp_path / "worker"
            assert until(lambda: path.is_file() and path.read_text() not in {"", *map(str, before)})
            supervisor.wait(["leader"], 10)
            return int(path.read_text())

        supervisor.start(spec("leader", code, probe=ready, workers=True))
        first, leader = worker(), pid_of(supervisor, "leader")
        assert first in {record.pid for record in read_records(tmp_path / "run" / RECORDS)}, "for the guard to find"
        os.kill(leader or 0, signal.SIGKILL)
        assert until(lambda: gone(first)), "else it would hold the port"
        second, leader = worker(first), pid_of(supervisor, "leader")
        os.kill(second, signal.SIGKILL)
        assert until(lambda: gone(leader or 0))
        third = worker(first, second)
        (status,) = supervisor.status()
        assert (status.deaths, status.last_death) == (2, "its worker died")
    assert gone(third)


def test_a_process_that_never_gets_well_is_told_with_its_last_words(tmp_path: Path):
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(spec("sick", "print('no such table', flush=True); import time; time.sleep(60)",
                              probe=lambda: "GET /health answered 500"))  # fmt: skip
        assert until(lambda: "no such table" in supervisor.log_tail("sick"))
        with pytest.raises(StartFailed, match=r"GET /health answered 500(.|\n)*no such table"):
            supervisor.wait(["sick"], 0.5)


def test_a_hung_process_is_killed_and_started_anew(tmp_path: Path):
    well = tmp_path / "well"
    well.touch()
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(
            spec("hung", SLEEP, probe=lambda: None if well.exists() else "hangs", sick_s=0.5, ready_s=60.0)
        )
        supervisor.wait(["hung"], 10)
        first = pid_of(supervisor, "hung")
        well.unlink()
        assert until(lambda: pid_of(supervisor, "hung") != first)
        well.touch()
        supervisor.wait(["hung"], 10)


def test_not_ready_but_alive_is_no_reason_to_kill(tmp_path: Path):
    ready = tmp_path / "ready"
    ready.touch()
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(spec("waits", SLEEP, probe=lambda: None if ready.exists() else "waits for Redis",
                              live=lambda: None, sick_s=0.3))  # fmt: skip
        supervisor.wait(["waits"], 10)
        first = pid_of(supervisor, "waits")
        ready.unlink()
        time.sleep(1.5)
        assert pid_of(supervisor, "waits") == first
        (status,) = supervisor.status()
        assert not status.healthy
        assert status.problem == "waits for Redis"


def test_a_job_is_not_started_anew_and_its_failure_comes_with_its_last_words(tmp_path: Path):
    with Supervisor(tmp_path / "run", tmp_path / "logs") as supervisor:
        supervisor.start(spec("good", "print('done')", once=True), spec("bad", "raise SystemExit('disk?')", once=True))
        supervisor.join("good", 20)
        with pytest.raises(JobFailed, match=r"bad: ended with 1(.|\n)*disk\?"):
            supervisor.join("bad", 20)
        assert supervisor.status() == []


def test_everything_ends_when_the_lab_itself_is_killed(tmp_path: Path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from flightdeck.lab.supervisor import ProcessSpec, Supervisor\n"
        f"root = Path({str(tmp_path)!r})\n"
        "with Supervisor(root / 'run', root / 'logs') as supervisor:\n"
        f"    supervisor.start(ProcessSpec('sleeper', (sys.executable, '-c', {SLEEP!r}), dict(os.environ), root))\n"
        "    (root / 'pid').write_text(str(supervisor.status()[0].pid))\n"
        "    time.sleep(600)\n"
    )
    lab = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(), 30)
        child = int((tmp_path / "pid").read_text())
        assert not gone(child)
    finally:
        lab.kill()
        lab.wait()
    assert until(lambda: gone(child))


def test_clean_up_ends_what_was_left_and_spares_a_reused_pid(tmp_path: Path):
    left = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True, stdout=subprocess.DEVNULL)
    spared = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        started = start_time(spared.pid)
        assert started is not None
        write_records(
            tmp_path / RECORDS,
            [
                Record("left", left.pid, start_time(left.pid), (sys.executable,)),
                Record("reused", spared.pid, started - 100, (sys.executable,)),
            ],
        )
        said = clean_up(tmp_path)
        assert len(said) == 1
        assert "left" in said[0]
        assert until(lambda: left.poll() is not None)
        assert spared.poll() is None
        assert clean_up(tmp_path) == []
    finally:
        for process in (left, spared):
            process.kill()
            process.wait()
