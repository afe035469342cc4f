"""Adapter: makes the bare repository, its hooks and the remote `flightdeck` of a checkout; safe to repeat.

The one module here that runs in the checkout, and the one that is not copied into the bare repository.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from flightdeck.delivery.remote.place import FOLDER, Place, Settings, write

REMOTE = "flightdeck"
_OURS = "flightdeck.remote"  # git config of a bare repository that we made
_PACKAGES = ("flightdeck", "flightdeck/delivery", "flightdeck/delivery/remote")
_LEFT_OUT = ("install.py",)
_ENTRY = """\
\"\"\"The hooks of this repository, copied by `make git-remote`; run it again to renew them.\"\"\"

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if path]  # never what the current folder holds

from flightdeck.delivery.remote.hooks import main

sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[2]))
"""
_SHELL = """\
#!/bin/sh
# Written by `make git-remote` of Flightdeck; run it again in a checkout to renew this file.
unset CDPATH
here=$(cd "$(dirname "$0")/{up}" && pwd) || exit 1
lost="flightdeck: {refused}"
frame="$here/{folder}/{frame}"
if [ -e "$frame/__main__.py" ]; then
  for python in {python} python3; do
    if "$python" -E -s -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      exec "$python" -E -s -B "$frame" {doing}
    fi
  done
  echo "$lost: the Python that made this remote is gone:" {python} >&2
  echo "$lost: and python3 on the PATH is not 3.11 to 3.13" >&2
else
  echo "$lost: $frame is gone" >&2
fi
echo "flightdeck:   do: make git-remote in your checkout, then push again{again}" >&2
exit 1
"""


class Refused(ValueError):
    """The remote cannot be made as it was asked for."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What stands now.

    Args:
        bare: the repository.
        new: it was not there before.
        old_remote: the remote was there already.
    """

    bare: Path
    new: bool
    old_remote: bool


def make(folder: Path, *, path: Path | None, state: Path) -> Made:
    """Bring the bare repository and the remote of the checkout around `folder` to what they should be.

    Args:
        path: of the bare repository; None for the one that the remote names, else NAME.git beside the checkout.
        state: the state folder that deploys work with.
    Raises:
        Refused: something else is in the way; it says what, and what to do. Nothing was changed.
    """
    checkout = _checkout(folder)
    known = _urls(checkout)
    bare = (path or _known(known) or checkout.parent / f"{checkout.name}.git").absolute().resolve()
    _look(bare, checkout, known)
    new = not bare.exists() or not any(bare.iterdir())
    if new:
        try:
            bare.mkdir(parents=True, exist_ok=True)
            bare.chmod(0o700)  # who may push here runs code as you
        except OSError as error:
            raise Refused(
                f"{bare} cannot be made ({error.strerror}); "
                "name a folder of yours: make git-remote REMOTE=/path/name.git"
            ) from error
        _git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(bare), at=checkout)
    for name, value in {
        _OURS: "true",
        "core.hooksPath": "hooks",  # also where the user's own configuration names another folder for all repositories
        "core.logAllRefUpdates": "true",  # what a forced push left behind can be found again
        "receive.denyNonFastForwards": "false",
        "receive.denyDeletes": "false",
        "receive.advertisePushOptions": "true",  # git push -o label=features:destructive
    }.items():
        _git("config", name, value, at=bare)
    _hooks(bare, state)
    if not known:
        _git("remote", "add", REMOTE, str(bare), at=checkout)
    return Made(bare, new, bool(known))


def _checkout(folder: Path) -> Path:
    if shutil.which("git") is None:
        raise Refused("git is not on the PATH; install it")
    found = _ask("rev-parse", "--show-toplevel", at=folder)
    if not found:
        raise Refused(
            f"{folder} is no git checkout, so there is nothing to push; "
            "clone the repository, or `git init` and commit first"
        )
    return Path(found[0])


def _urls(checkout: Path) -> list[str]:
    return sorted(
        {
            *_ask("remote", "get-url", "--all", REMOTE, at=checkout),
            *_ask("remote", "get-url", "--push", "--all", REMOTE, at=checkout),
        }
    )


def _known(urls: list[str]) -> Path | None:
    return Path(urls[0]) if len(urls) == 1 and _is_ours(Path(urls[0])) else None


def _is_ours(bare: Path) -> bool:
    # as the folder itself, not one inside some checkout
    return (
        bare.is_dir()
        and (bare / "HEAD").is_file()
        and _ask("config", "--file", str(bare / "config"), "--get", _OURS, at=bare) == ["true"]
    )


def _look(bare: Path, checkout: Path, known: list[str]) -> None:
    if bare.is_relative_to(checkout.resolve()):
        raise Refused(
            f"{bare} lies in the checkout, where `make clean` or `git clean` would take it away; name a folder outside"
        )
    if known and known != [str(bare)]:
        raise Refused(
            f"the checkout has a remote `{REMOTE}` already, which leads to {', '.join(known)} and not to {bare}; "
            f"rename it (git remote rename {REMOTE} other), or when it is this one that moved: "
            f"git remote set-url {REMOTE} {shlex.quote(str(bare))}"
        )
    if bare.exists() and not _is_ours(bare) and (not bare.is_dir() or any(bare.iterdir())):
        raise Refused(
            f"{bare} is there already and was not made by `make git-remote`; "
            "name another: make git-remote REMOTE=/path/name.git"
        )


def _hooks(bare: Path, state: Path) -> None:
    place = Place(bare)
    frame = _frame(bare)
    settings = place.settings_file
    kept = json.loads(settings.read_text()) if settings.is_file() else {}
    write(
        settings,
        {
            **kept,
            **dataclasses.asdict(
                Settings(str(state), **{name: value for name, value in kept.items() if name != "state"})
            ),
        },
    )
    # The interpreter under the environment: the environment may go away, and a push must not depend on what it holds.
    python = shlex.quote(str(Path(getattr(sys, "_base_executable", sys.executable)).resolve()))
    lost = "the push is in, but nothing was deployed"
    for name, doing, refused, again in (
        ("hooks/pre-receive", "pre-receive", "refused, nothing changed", ""),
        ("hooks/post-receive", "post-receive", lost, f"; or deploy with {shlex.quote(str(bare / 'deploy'))}"),
        ("deploy", "deploy-main", "nothing was deployed", ""),
    ):
        up = ".." if "/" in name else "."
        text = _SHELL.format(
            up=up,
            folder=FOLDER,
            frame=frame,
            python=python,
            doing=doing,
            refused=refused,
            again=again.replace('"', "'"),
        )
        write(bare / name, text)
        (bare / name).chmod(0o755)


def _frame(bare: Path) -> str:
    """Copy the hooks' code to a folder named by its contents: a running hook keeps its own."""
    files = {"__main__.py": _ENTRY, **{str(path.relative_to(_root())): path.read_text() for path in _sources()}}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    folder = bare / FOLDER / f"frame-{digest}"
    for name, text in files.items():
        write(folder / name, text)
    return folder.name


def _root() -> Path:
    return Path(__file__).resolve().parents[3]


def _sources() -> Iterable[Path]:
    for package in _PACKAGES:
        folder = _root() / package
        yield folder / "__init__.py"
        if package == _PACKAGES[-1]:
            yield from (path for path in sorted(folder.glob("*.py")) if path.name not in (*_LEFT_OUT, "__init__.py"))


def _ask(*args: str, at: Path) -> list[str]:
    done = subprocess.run(["git", *args], cwd=at, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _git(*args: str, at: Path) -> None:
    done = subprocess.run(["git", *args], cwd=at, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {' '.join(args)} failed: {done.stderr.strip()}")
