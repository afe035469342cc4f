"""Where things are in the bare repository, and the settings that `make git-remote` left there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = "flightdeck"  # beside git's own; git leaves what it does not know alone
LOGS_KEPT = 30
PUSHES_KEPT = 200
SETTINGS = "remote.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was decided when the remote was made.

    Args:
        state: state folder of the checkout that made the remote; `make deliver` works with it.
        environment: what a push of main deploys to.
        ci_limit_s: a CI that takes longer is ended and refuses.
        deploy_limit_s: the same for a deploy; a push also waits this long at most for another one.
        deploy_grace_s: a deploy that must end has so long to tidy up.
    """

    state: str
    environment: str = "dev"
    ci_limit_s: float = 5400
    deploy_limit_s: float = 5400
    deploy_grace_s: float = 60


@dataclasses.dataclass(frozen=True)
class Place:
    """One bare repository."""

    bare: Path

    @property
    def root(self) -> Path:
        """Our folder in it."""
        return self.bare / FOLDER

    @property
    def settings_file(self) -> Path:
        """Written by `make git-remote`."""
        return self.root / SETTINGS

    @property
    def logs(self) -> Path:
        """Of each CI and each deploy, the newest ones."""
        return self.root / "logs"

    @property
    def card(self) -> Path:
        """The champion card that a deploy leaves and CI compares with, unless the environment names another."""
        return self.root / "champion-card.json"

    def log(self, slot: str, commit: str) -> Path:
        """A new one; old ones go."""
        self.logs.mkdir(parents=True, exist_ok=True)
        prune(self.logs, LOGS_KEPT)
        return self.logs / f"{slot}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{commit[:9]}.log"

    def tree(self, slot: str) -> Path:
        """Where a slot (`ci` or an environment) has its export."""
        return self.root / slot / "tree"

    def lock(self, name: str) -> Path:
        """A file to hold."""
        return self.root / f"{name}.lock"

    def passed(self, key: str) -> Path:
        """That this tree passed CI, and how."""
        return self.root / "passed" / f"{key}.json"

    def push(self, commit: str) -> Path:
        """When the commit was pushed last, and what its CI took."""
        return self.root / "pushes" / f"{commit}.json"

    def wanted(self, environment: str) -> Path:
        """The commit that the environment shall have next."""
        return self.root / f"{environment}.wanted"

    def running(self, environment: str) -> Path:
        """The commit whose deploy holds the environment, and since when."""
        return self.root / f"{environment}.running"

    def settings(self) -> Settings:
        """As `make git-remote` wrote them.

        Raises:
            ValueError: they are not there or not readable; it says what to do.
        """
        try:
            known = {field.name for field in dataclasses.fields(Settings)}
            found = json.loads(self.settings_file.read_text())
            return Settings(**{name: value for name, value in found.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.settings_file} is not what `make git-remote` wrote ({error}); "
                "run `make git-remote` again in your checkout"
            ) from error

    def state(self, settings: Settings) -> tuple[Path, str]:
        """The state folder of deploys, and a sentence when it is not the checkout's."""
        state = Path(settings.state)
        if state.parent.is_dir():
            return state, ""
        own = self.root / "state"
        return (
            own,
            f"the checkout that made this remote is no longer at {state.parent}: the deploy keeps its state in {own}",
        )


def write(path: Path, found: dict[str, Any] | str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(found if isinstance(found, str) else json.dumps(found, indent=1) + "\n")
    draft.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What was written; empty when there is nothing readable."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def prune(folder: Path, keep: int) -> None:
    """Only the newest files stay."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda item: item.stat().st_mtime, reverse=True)[keep:]:
            path.unlink(missing_ok=True)
