"""Where things are under the one state folder. Paths only; whoever writes makes the folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

STATE_ENV = "FLIGHTDECK_STATE"


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """The state folder: lake, exports, registries, artefacts, logs, reports."""

    root: Path

    @classmethod
    def from_env(cls) -> StateLayout:
        """`$FLIGHTDECK_STATE`, else `.flightdeck` in the current folder."""
        return cls(Path(os.environ.get(STATE_ENV) or ".flightdeck").absolute())

    @property
    def lake(self) -> Path:
        """Delta tables, one folder each."""
        return self.root / "lake"

    @property
    def quarantine(self) -> Path:
        """Whole bad days with a table of failures each."""
        return self.root / "quarantine"

    @property
    def exports(self) -> Path:
        """Parquet exports of named Delta versions, which Feast reads; `current` points to the newest."""
        return self.root / "exports"

    @property
    def feast_registry(self) -> Path:
        """Feast's SQL registry (SQLite)."""
        return self.root / "feast_registry.db"

    @property
    def mlflow_db(self) -> Path:
        """MLflow's backend store (SQLite)."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's proxied artefacts."""
        return self.root / "mlflow-artifacts"

    @property
    def optuna_db(self) -> Path:
        """Optuna's studies (SQLite)."""
        return self.root / "optuna.db"

    @property
    def artefacts(self) -> Path:
        """Model artefacts, each in a folder named by its sha256."""
        return self.root / "artefacts"

    @property
    def candidates(self) -> Path:
        """What the gates need of each training run, in a folder named by the run."""
        return self.root / "candidates"

    @property
    def rollouts(self) -> Path:
        """A folder per ModelRollout: what is wanted, orders, status, history and evidence."""
        return self.root / "rollouts"

    @property
    def keys(self) -> Path:
        """The lab's signing key; never in the repository, an image or a log."""
        return self.root / "keys"

    @property
    def run(self) -> Path:
        """Sockets, pid files and generated configuration of the lab's processes."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.root / "logs"

    @property
    def reports(self) -> Path:
        """HTML pages."""
        return self.root / "reports"
