"""Adapter: the pushed commit as a checkout of its own, which knows nothing of the bare repository.

In a pre-receive hook the pushed objects lie in git's quarantine: only a process with the hook's own git variables sees
them. So one git command with these variables copies the commit's whole history out; all others run without them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flightdeck.delivery.remote import environment
from flightdeck.delivery.remote.updates import MAIN, Found, Kind, Update

# Kept from one export to the next: the packages, and two tools' caches, which look at contents.
KEPT = (".venv", ".mypy_cache", ".ruff_cache")
BASE = "refs/remotes/origin/main"  # in the export: what main was before the push
_PLAIN = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.autocrlf=false",
    "-c",
    "gc.auto=0",
    "-c",
    "advice.detachedHead=false",
)


class ExportFailed(RuntimeError):
    """The pushed commit could not be brought to where CI or a deploy runs."""


def git(*args: str, cwd: Path, env: dict[str, str] | None = None, stdin: str = "") -> str:
    """What git prints; with the hook's variables unless `env` is given.

    Raises:
        ExportFailed: with git's words.
    """
    done = subprocess.run(
        ["git", *args], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode:
        raise ExportFailed(f"git {' '.join(args[:6])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def ask(*args: str, cwd: Path) -> str | None:
    """The same, stripped; None when git says no."""
    try:
        return git(*args, cwd=cwd).strip() or None
    except ExportFailed:
        return None


def look(update: Update, bare: Path) -> Found:
    """What git knows of an update."""
    if update.deletes:
        return Found(None, None)
    commit = ask("rev-parse", "--verify", "--quiet", f"{update.new}^{{commit}}", cwd=bare)
    if commit is None:
        return Found(None, None)
    lost = 0
    if not update.creates and update.kind is not Kind.TAG:
        lost = int(ask("rev-list", "--count", f"{commit}..{update.old}", cwd=bare) or 0)
    main = ask("rev-parse", "--verify", "--quiet", MAIN, cwd=bare)
    on_main = main is not None and ask("merge-base", commit, main, cwd=bare) == commit
    names = git("ls-tree", "-z", "--name-only", commit, cwd=bare).split("\0")
    tree = ask("rev-parse", f"{commit}^{{tree}}", cwd=bare)
    return Found(commit, tree, lost, on_main, tuple(name for name in KEPT if name in names))


def export(bare: Path, tree: Path, *, commit: str, update: Update, base: str | None) -> None:
    """Make `tree` a checkout of `commit`, on the pushed branch; `base` is main before the push, if there was one.

    Raises:
        ExportFailed: it could not be made.
    """
    env = environment.clean(os.environ)
    empty(tree, keep=KEPT)
    git("init", "--quiet", "--template=", str(tree), cwd=bare, env=env)
    wanted = [commit, *([base] if base else []), *([update.new] if update.kind is Kind.TAG else [])]
    packs = tree / ".git" / "objects" / "pack"
    packs.mkdir(parents=True, exist_ok=True)
    git(
        "pack-objects",
        "--revs",
        "--quiet",
        "--delta-base-offset",
        str(packs / "pack"),
        cwd=bare,
        stdin="\n".join(wanted) + "\n",
    )
    if update.kind is Kind.TAG:
        git("update-ref", update.ref, update.new, cwd=tree, env=env)
        git("update-ref", "--no-deref", "HEAD", commit, cwd=tree, env=env)
    else:
        git("symbolic-ref", "HEAD", update.ref, cwd=tree, env=env)
        git("update-ref", update.ref, commit, cwd=tree, env=env)
    if base:
        git("update-ref", BASE, base, cwd=tree, env=env)
    git(*_PLAIN, "reset", "--hard", "--quiet", cwd=tree, env=env)
    _home(tree)


def _home(tree: Path) -> None:
    """Throw the environment away when the bare repository has moved: scripts in it name their folder."""
    note = tree.parent / "home"
    if note.is_file() and note.read_text() != str(tree):
        shutil.rmtree(tree / ".venv", ignore_errors=True)
        shutil.rmtree(tree.parent / "state", ignore_errors=True)
    note.write_text(str(tree))


def empty(tree: Path, keep: tuple[str, ...]) -> None:
    """Take away what is in a folder, but for some names; makes the folder when it is not there."""
    tree.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(tree):
        if entry.name in keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_open_up)
        else:
            Path(entry.path).unlink()


def _open_up(again: Callable[..., Any], path: str, _error: object) -> None:
    """A test may have left a folder that nobody may write."""
    Path(path).parent.chmod(0o700)
    if not Path(path).is_symlink():
        Path(path).chmod(0o700)
    again(path)
