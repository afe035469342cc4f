"""One lab per state folder, a fresh start, a full disk."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flightdeck.cluster import record as cluster_record
from flightdeck.contracts.layout import StateLayout
from flightdeck.lab import lock, session


def test_a_second_lab_in_one_folder_is_told_who_holds_it(tmp_path: Path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom flightdeck.lab.lock import only_lab\n"
        f"with only_lab(Path({str(tmp_path)!r}), 'flightdeck lab run'):\n"
        "    print('held', flush=True)\n    time.sleep(600)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == b"held"
        with (
            pytest.raises(lock.LabIsRunning, match=rf"flightdeck lab run.*pid {first.pid}.*lab down"),
            lock.only_lab(tmp_path, "flightdeck lab up"),
        ):
            pass
        held = lock.holder(tmp_path)
        assert held is not None
        assert held["pid"] == first.pid
    finally:
        first.kill()
        first.wait()
    time.sleep(0.1)
    assert lock.holder(tmp_path) is None, "the lock dies with its process"
    with lock.only_lab(tmp_path, "flightdeck lab up"):
        pass


def test_a_run_starts_from_nothing_and_keeps_the_one_before(tmp_path: Path):
    layout = StateLayout(tmp_path)
    for content in ("first", "second"):
        (tmp_path / "lake").mkdir()
        (tmp_path / "lake" / "table").write_text(content)
        session.write_mark(layout, ports={})
        assert session.set_aside(layout)
        assert not (tmp_path / "lake").exists()
        assert (tmp_path / "previous" / "lake" / "table").read_text() == content
    assert session.set_aside(layout) is None


def test_what_somebody_else_made_is_never_thrown_away(tmp_path: Path):
    layout = StateLayout(tmp_path)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "table").write_text("by hand")
    session.set_aside(layout)
    session.write_mark(layout, ports={})
    (tmp_path / "lake").mkdir()
    session.set_aside(layout)
    (kept,) = tmp_path.glob("kept-*")
    assert (kept / "lake" / "table").read_text() == "by hand"


def test_what_make_up_knows_of_a_cluster_stays_for_make_down(tmp_path: Path):
    layout = StateLayout(tmp_path)
    session.write_mark(layout, ports={})
    cluster_record.write(tmp_path, cluster_record.Record("kind-flightdeck", made_cluster=True))
    (tmp_path / "lake").mkdir()
    assert session.set_aside(layout)
    assert cluster_record.read(tmp_path, "kind-flightdeck").made_cluster


def test_too_little_room_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(session.NoRoom, match=r"0\.0 GB free, a run needs 2 GB"):
        session.room(tmp_path)


def test_a_full_disk_is_known_by_number_or_by_words():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert session.is_full_disk(full)
    wrapped = RuntimeError("commit failed")
    wrapped.__cause__ = RuntimeError("Generic LocalFileSystem error: No space left on device (os error 28)")
    assert session.is_full_disk(wrapped)
    assert session.is_full_disk(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not session.is_full_disk(RuntimeError("connection refused"))
    assert not session.is_full_disk(None)
