"""Adapter of MLflow: the only module that talks to the tracking server and its model registry."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its default of 7 waits minutes before it tells that nobody answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)  # before the import below: some are read there

import mlflow  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

TRACKING_ENV = "MLFLOW_TRACKING_URI"  # MLflow's own
CHAMPION = "champion"
MAX_PARAM = 6000  # MLflow's limit of characters


class RegistryUnavailable(RuntimeError):
    """MLflow does not answer; nothing was decided or changed."""


class RegistryRefused(RuntimeError):
    """MLflow answered, and refused or does not know what was asked for."""


def tracking_uri_or_env(tracking_uri: str | None) -> str:
    """The given address, else the one in the environment.

    Raises:
        RegistryUnavailable: neither is there.
    """
    found = tracking_uri or os.environ.get(TRACKING_ENV)
    if not found:
        raise RegistryUnavailable(f"no MLflow server is named; give --tracking-uri or set {TRACKING_ENV}")
    return found


class MlflowRegistry:
    """Runs, versions, tags and aliases of one MLflow server.

    Raises:
        RegistryUnavailable: from every method, when the server does not answer.
        RegistryRefused: from every method, when it refuses.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri
        if tracking_uri.startswith("http"):
            self._ping()
        with self._clear():
            self._client: Any = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)

    def _ping(self) -> None:
        try:
            with urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=5) as answer:  # noqa: S310
                answer.read()
        except (OSError, urllib.error.URLError) as error:
            raise RegistryUnavailable(
                f"MLflow at {self.uri} does not answer ({getattr(error, 'reason', error)}); is it running? "
                "`make lab-up` starts one; nothing was changed"
            ) from error

    @contextlib.contextmanager
    def _clear(self) -> Iterator[None]:
        """Turn MLflow's errors into ours, and tell a dead server from a refusal."""
        try:
            yield
        except MlflowException as error:
            if self.uri.startswith("http") and error.error_code == "INTERNAL_ERROR":
                self._ping()
            raise RegistryRefused(f"MLflow at {self.uri}: {error}") from error
        except OSError as error:
            raise RegistryUnavailable(f"MLflow at {self.uri} does not answer: {error}") from error

    def start_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """A new run, in an experiment that is made when absent; returns the run id."""
        with self._clear():
            found = self._client.get_experiment_by_name(experiment)
            try:
                number = found.experiment_id if found else self._client.create_experiment(experiment)
            except MlflowException:  # another worker was first
                number = self._client.get_experiment_by_name(experiment).experiment_id
            return str(self._client.create_run(number, run_name=name, tags=dict(tags)).info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Parameters, metrics and tags of a run, in one request."""
        now_ms = int(time.time() * 1000)
        with self._clear():
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, float(value), now_ms, 0) for key, value in (metrics or {}).items()],
                params=[Param(key, str(value)[:MAX_PARAM]) for key, value in (params or {}).items()],
                tags=[RunTag(key, value) for key, value in (tags or {}).items()],
            )

    def log_datasets(self, run_id: str, datasets: list[tuple[str, str, str, str]]) -> None:
        """What a run read: (name, digest, source, context), e.g. a Delta table with its version as digest."""
        with self._clear():
            self._client.log_inputs(
                run_id,
                [
                    DatasetInput(
                        Dataset(name, digest[:36], "delta", source), [InputTag("mlflow.data.context", context)]
                    )
                    for name, digest, source, context in datasets
                ],
            )

    def upload(self, run_id: str, folder: Path) -> None:
        """All files under `folder`, as artifacts of the run under the same relative paths."""
        with self._clear():
            self._client.log_artifacts(run_id, str(folder))

    def download(self, run_id: str, path: str, into: Path) -> Path:
        """One artifact (file or folder) of a run; returns where it is."""
        into.mkdir(parents=True, exist_ok=True)
        with self._clear():
            return Path(self._client.download_artifacts(run_id, path, str(into)))

    def end_run(self, run_id: str, *, ok: bool) -> None:
        """Mark a run finished or failed."""
        with self._clear():
            self._client.set_terminated(run_id, status="FINISHED" if ok else "FAILED")

    def trim_runs(self, before: dt.datetime, *, dry_run: bool = False) -> int:
        """Mark runs that began before a time and made no version as deleted; returns how many.

        MLflow keeps them until `mlflow gc` removes them for good; till then `mlflow runs restore` brings them back.
        """
        used = {str(item.run_id) for item in self.versions()}
        with self._clear():
            experiments = [item.experiment_id for item in self._client.search_experiments()]
            old = f"attributes.start_time < {int(before.timestamp() * 1000)} and attributes.status != 'RUNNING'"
            found, token = list[str](), None
            while True:
                page = self._client.search_runs(experiments, old, max_results=1000, page_token=token)
                found += [item.info.run_id for item in page if item.info.run_id not in used]
                token = page.token
                if not token:
                    break
            for run_id in [] if dry_run else found:
                self._client.delete_run(run_id)
        return len(found)

    def create_version(self, name: str, run_id: str, path: str, tags: Mapping[str, str], description: str) -> str:
        """Register the run's artifact folder `path` as a new version of `name`; returns the version."""
        with self._clear():
            with contextlib.suppress(MlflowException):  # exists already
                self._client.create_registered_model(name)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{path}"
            made = self._client.create_model_version(
                name, source=source, run_id=run_id, tags=dict(tags), description=description, await_creation_for=0
            )
            return str(made.version)

    def version(self, name: str, version: str) -> Any:
        """One version (MLflow's entity)."""
        with self._clear():
            return self._client.get_model_version(name, version)

    def versions(self, name: str | None = None) -> list[Any]:
        """All versions, of one model or of all; newest first per model."""
        with self._clear():
            found, token = [], None
            while True:
                page = self._client.search_model_versions(
                    f"name = '{name}'" if name else None, max_results=200, page_token=token
                )
                found += list(page)
                token = page.token
                if not token:
                    return sorted(found, key=lambda item: (item.name, -int(item.version)))

    def tag_version(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._clear():
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, key, value)

    def alias(self, name: str, alias: str) -> Any | None:
        """The version an alias points to, None when there is no such model or alias."""
        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            with self._clear():
                raise

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version."""
        with self._clear():
            self._client.set_registered_model_alias(name, alias, version)
