"""Decision: which jobs of CI a change needs. Only the standard library: it runs before anything is installed.

`python -m flightdeck.delivery.changes` asks git what changed since FLIGHTDECK_BASE and tells the workflow.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# `check` has no condition: it takes minutes and looks at every file.
JOBS = ("integration", "data", "features", "models", "images", "manifests", "e2e")
ALL = frozenset(JOBS)
BASE_ENV = "FLIGHTDECK_BASE"

# The first pattern that fits a path says which jobs it needs; `*` crosses folders. What fits none needs all of them.
RULES: tuple[tuple[str, frozenset[str]], ...] = (
    ("*.md", frozenset()),
    ("docs/*", frozenset()),
    ("LICENSE", frozenset()),
    (".gitignore", frozenset()),
    (".pre-commit-config.yaml", frozenset()),
    (".github/dependabot.yml", frozenset()),
    ("requirements/actionlint/*", frozenset()),
    ("benchmarks/*", frozenset()),
    ("tests/unit/*", frozenset()),
    ("tests/contract/*", frozenset()),
    ("tests/workflows/*", frozenset({"integration"})),
    ("tests/integration/*", frozenset({"integration"})),
    ("tests/behaviour/*", frozenset({"integration", "models"})),
    ("tests/planted/*", frozenset({"integration"})),
    ("tests/load/*", frozenset({"integration", "images", "e2e"})),
    ("tests/e2e/*", frozenset({"e2e"})),
    ("k8s/*", frozenset({"manifests", "e2e"})),
    ("images/*", frozenset({"images", "e2e"})),
    ("bentofile.yaml", frozenset({"images", "e2e"})),
    ("services/rollout_operator/*", frozenset({"integration", "images", "manifests", "e2e"})),
    ("services/predictor/*", frozenset({"integration", "models", "images", "e2e"})),
    ("flightdeck/lab/*", frozenset({"integration", "images"})),
    ("flightdeck/pages/*", frozenset({"integration"})),
    ("flightdeck/load/*", frozenset({"integration", "images", "e2e"})),
    ("flightdeck/cluster/*", frozenset({"integration", "images", "manifests", "e2e"})),
    # The source, its checks, the features and the model: everything that a model is made of, and what serves it.
    ("specs/*", ALL),
    ("feature_repo/*", ALL),
    ("pipelines/*", ALL),
)


def jobs_for(paths: Iterable[str]) -> frozenset[str]:
    """The jobs that these changed paths need; a path that no rule knows needs all of them."""
    needed: set[str] = set()
    for path in paths:
        needed |= next((jobs for pattern, jobs in RULES if fnmatch.fnmatchcase(path, pattern)), ALL)
    return frozenset(needed)


def changed(base: str, *, root: Path) -> list[str] | None:
    """The paths that differ between the common ancestor with `base` and HEAD, both names of a rename; None: unknown.

    Unknown is a first push, a forced one whose old commit is gone, or no base at all: then everything runs.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", base) or set(base) == {"0"}:
        return None
    argv = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD"]
    found = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    return None if found.returncode else [path for path in found.stdout.split("\0") if path]


def outputs(needed: frozenset[str]) -> str:
    """One line `job=true` or `job=false` for each job, as a workflow reads it."""
    return "".join(f"{job}={'true' if job in needed else 'false'}\n" for job in JOBS)


def told(paths: Sequence[str] | None, needed: frozenset[str]) -> str:
    """For the log: what changed, what runs, what does not."""
    why = "what changed is not known, so everything runs" if paths is None else f"{len(paths)} paths changed"
    left = [job for job in JOBS if job not in needed]
    runs = ", ".join(["check", *(job for job in JOBS if job in needed)])
    return f"{why}\nruns: {runs}" + (f"\nnot needed by this change: {', '.join(left)}" if left else "")


def main() -> int:
    """Tell the log and, where there is one, the workflow (`GITHUB_OUTPUT`)."""
    paths = changed(os.environ.get(BASE_ENV, ""), root=Path.cwd())
    needed = ALL if paths is None else jobs_for(paths)
    print(told(paths, needed))
    if where := os.environ.get("GITHUB_OUTPUT"):
        with Path(where).open("a") as out:
            out.write(outputs(needed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
