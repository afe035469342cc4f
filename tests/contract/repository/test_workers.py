"""The spread of tests over workers is relied on (tests/conftest.py); a change of pytest has broken it before."""

import re
import subprocess
import sys

MODULE = """
import os
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_where(number):
    print("worker", os.environ["PYTEST_XDIST_WORKER"])
"""


def test_a_group_of_tests_stays_in_one_worker(tmp_path):
    (tmp_path / "test_group.py").write_text(MODULE)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup", "-rP"]
    ran = subprocess.run([*argv, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    workers = re.findall(r"^worker (gw\d)$", ran.stdout, re.M)
    assert len(workers) == 6, ran.stdout + ran.stderr
    assert len(set(workers)) == 1, f"one group ran in {sorted(set(workers))}"
