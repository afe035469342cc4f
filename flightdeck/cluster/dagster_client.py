"""Adapter of Dagster's GraphQL: start a run, follow it to its end, say why it failed. Knows no Dagster package."""

from __future__ import annotations

import calendar
import dataclasses
import datetime as dt
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from flightdeck.cluster.dagster_events import Step, check_of, reasons_of, told, value_of
from flightdeck.cluster.dagster_queries import DELETE, EVENTS, IMAGES, JOBS, LAUNCH, LOCATIONS, RELOAD, RUN, RUNS

# The code location's own words: pipelines/orchestration/names.py.
TAKES_TAG, THEN_TAG, AFTER_TAG = "flightdeck/takes", "flightdeck/then", "flightdeck/after"
DAYS, UNTIL = "days", "until"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
WAITING = {"QUEUED", "NOT_STARTED", "STARTING"}
POLL_S = 1.0
LOADS_S = 90.0  # a code location imports that long on a busy small node
FOLLOWS_S = 120.0  # the daemon starts what follows within seconds; beyond that it is not running
QUEUED_S = 900.0  # the longest run of another job may have to end first; beyond that nobody starts it
AWAY_S = 120.0  # how long the page may be away while a run is followed: a deploy replaces it
LAST_LINES = 12
PAGE_RUNS, MOST_RUNS = 100, 10_000  # deleted per question, counted at most in a dry run

Tell = Callable[[str], None]


class DagsterError(RuntimeError):
    """Dagster does not answer, refuses what was asked, or the run failed; the words say which."""


class DagsterAway(DagsterError):
    """Its page, or the database behind it, is not there at this moment."""


class RunFailed(DagsterError):
    """A run failed or was cancelled, or one of its checks failed."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A job: its settings by step, its tags, and where it is from."""

    name: str
    description: str
    tags: Mapping[str, str]
    settings: Mapping[str, Sequence[str]]  # step -> names
    repository: str
    location: str

    @property
    def takes(self) -> str:
        """What of the calendar it takes: days, until, or nothing."""
        return self.tags.get(TAKES_TAG, "")


@dataclasses.dataclass
class Outcome:
    """A run that ended well, and the run that followed it."""

    run_id: str
    job: str
    seconds: float
    checks_failed: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    metadata: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)  # asset -> label -> value
    then: Outcome | None = None


class DagsterClient:
    """Dagster's webserver at one address.

    Raises:
        DagsterError: from every method, when it does not answer or refuses.
    """

    def __init__(self, url: str, *, timeout_s: float = 180) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def run(
        self,
        job: str,
        settings: Mapping[str, Any] | None = None,
        *,
        first: dt.date | None = None,
        last: dt.date | None = None,
        tags: Mapping[str, str] | None = None,
        tell: Tell = lambda _: None,
    ) -> Outcome:
        """Start a job, follow it to its end, and with it the job that follows by itself.

        Args:
            settings: by name, whichever step has it; times and dates as text.
            first, last: days of a job over days, inclusive.
            tell: gets a line for whatever happens.
        Raises:
            RunFailed: it failed, or a check of an asset failed; with the reasons and the last lines of its log.
        """
        found = self.job(job)
        return self.follow(self.start(found, settings, first=first, last=last, tags=tags), tell=tell)

    def start(
        self,
        job: Job,
        settings: Mapping[str, Any] | None = None,
        *,
        first: dt.date | None = None,
        last: dt.date | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start a job; returns the run's id."""
        all_tags = {**day_tags(job, first, last), **(tags or {})}
        answer = self._ask(
            LAUNCH,
            {
                "job": job.name, "repository": job.repository, "location": job.location,
                "config": run_config(job, settings or {}),
                "tags": [{"key": key, "value": value} for key, value in all_tags.items()],
            },
        )["launchRun"]  # fmt: skip
        if answer["__typename"] != "LaunchRunSuccess":
            told = [item["message"] for item in answer.get("errors", ())] or [answer.get("message", "")]
            raise DagsterError(f"Dagster refuses to start {job.name}: " + "; ".join(told))
        return str(answer["run"]["runId"])

    def follow(self, run_id: str, *, tell: Tell = lambda _: None) -> Outcome:
        """Until the run, and the one that follows it, ended.

        Raises:
            RunFailed: see `run`.
        """
        outcome, reasons, logged = Outcome(run_id, "", 0.0), list[str](), list[str]()
        cursor, status, begun = None, "", time.monotonic()
        run: Mapping[str, Any] = {}
        while True:
            run = self._patiently(lambda: self.describe(run_id), tell)
            if run["status"] != status:
                status = run["status"]
                tell(f"{run['jobName']} {run_id[:8]}: {status.lower().replace('_', ' ')}")
            for event, after in self._events(run_id, cursor, tell):
                cursor = after
                self._note(event, outcome, reasons, logged, tell)
            if status in ENDED:
                break
            if status in WAITING and time.monotonic() - begun > QUEUED_S:
                raise DagsterError(
                    f"{run['jobName']} (run {run_id}) is {status.lower()} for {QUEUED_S:.0f} s: does the daemon run, "
                    "and what is at work? `flightdeck pipeline runs` tells"
                )
            time.sleep(POLL_S)
        outcome.job = run["jobName"]
        outcome.seconds = (run["endTime"] or 0) - (run["startTime"] or 0) or time.monotonic() - begun
        if status != "SUCCESS" or outcome.checks_failed:
            what = "failed" if status == "FAILURE" else "was cancelled" if status == "CANCELED" else "ended, but"
            if outcome.checks_failed:  # they say more than the error that they lead to
                reasons = [line for line in reasons if "asset check failed" not in line]
            words = [
                f"{outcome.job} (run {run_id}) {what}:",
                *(f"  {line}" for line in reasons + outcome.checks_failed),
            ]
            if status != "SUCCESS":
                words += ["last lines of its log:", *(f"  {line}" for line in logged[-LAST_LINES:])]
            raise RunFailed("\n".join(words))
        tags = {item["key"]: item["value"] for item in run["tags"]}
        if following := tags.get(THEN_TAG):
            outcome.then = self.follow(self._following(run_id, following, tell), tell=tell)
        return outcome

    def _following(self, run_id: str, job: str, tell: Tell) -> str:
        deadline = time.monotonic() + FOLLOWS_S
        tell(f"{job} follows")
        while True:
            found = self._patiently(lambda: self.runs(limit=1, tags={AFTER_TAG: run_id}), tell)
            if found:
                return str(found[0]["runId"])
            if time.monotonic() > deadline:
                raise DagsterError(
                    f"run {run_id} ended well, but {job} did not start within {FOLLOWS_S:.0f} s: does the daemon run, "
                    "and is the sensor gate_follows_training on?"
                )
            time.sleep(POLL_S)

    def jobs(self) -> list[Job]:
        """Every job of every code location, by name."""
        answer = self._ask(JOBS, {})["repositoriesOrError"]
        if answer["__typename"] != "RepositoryConnection":
            raise DagsterError(f"Dagster at {self.url} does not tell its jobs: {answer.get('message')}")
        found = []
        for repository in answer["nodes"]:
            for item in repository["jobs"]:
                if item["name"].startswith("__"):
                    continue
                found.append(
                    Job(
                        item["name"], item["description"] or "", {it["key"]: it["value"] for it in item["tags"]},
                        {solid["name"]: names for solid in item["solids"] if (names := _fields(solid))},
                        repository["name"], repository["location"]["name"],
                    )
                )  # fmt: skip
        return sorted(found, key=lambda job: job.name)

    def job(self, name: str) -> Job:
        """One job by name; a code location that is still starting is waited for."""
        deadline = time.monotonic() + LOADS_S
        while not (found := self.jobs()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for job in found:
            if job.name == name:
                return job
        there = ", ".join(job.name for job in found) or f"none: {self.trouble() or 'the code location does not answer'}"
        raise DagsterError(f"no job {name!r}; there are: {there}")

    def trouble(self) -> str:
        """Why a code location does not load; empty when each does."""
        answer = self._ask(LOCATIONS, {})["workspaceOrError"]
        told = [answer.get("message")] + [
            f"{entry['name']}: {(entry['locationOrLoadError'] or {}).get('message') or 'still loads'}"
            for entry in answer.get("locationEntries", ())
            if "message" in (entry["locationOrLoadError"] or {"message": ""})
        ]
        return "; ".join(text.strip() for text in told if text)

    def images(self) -> dict[str, str]:
        """By code location the image that its runs get, as Dagster last read it; empty where it named none."""
        entries = self._ask(IMAGES, {})["workspaceOrError"].get("locationEntries", ())
        told = {entry["name"]: {it["key"]: it["value"] for it in entry["displayMetadata"]} for entry in entries}
        return {name: metadata.get("image", "") for name, metadata in told.items()}

    def reload(self, location: str) -> None:
        """Read a code location anew."""
        self._ask(RELOAD, {"location": location})

    def runs(self, *, limit: int = 20, tags: Mapping[str, str] | None = None) -> list[Mapping[str, Any]]:
        """Runs, newest first: runId, jobName, status, startTime, endTime, tags."""
        chosen = {"tags": [{"key": key, "value": value} for key, value in tags.items()]} if tags else {}
        return self._runs(chosen, limit)

    def _runs(self, chosen: Mapping[str, Any], limit: int) -> list[Mapping[str, Any]]:
        answer = self._ask(RUNS, {"filter": chosen, "limit": limit})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise DagsterError(f"Dagster at {self.url} does not tell its runs: {answer.get('message')}")
        return list(answer["results"])

    def trim(self, before: dt.datetime, *, dry_run: bool = False) -> int:
        """Delete the runs that ended before a time, with their logs and events; returns how many."""
        old: dict[str, Any] = {"statuses": sorted(ENDED), "updatedBefore": before.timestamp()}
        gone = 0
        while True:
            found = [it["runId"] for it in self._runs(old, MOST_RUNS if dry_run else PAGE_RUNS)]
            if dry_run or not found:
                return gone + len(found)
            for run_id in found:
                said = self._ask(DELETE, {"run": run_id})["deleteRun"]
                if said["__typename"] not in ("DeletePipelineRunSuccess", "RunNotFoundError"):
                    raise DagsterError(f"Dagster at {self.url} does not delete run {run_id}: {said.get('message')}")
            gone += len(found)

    def describe(self, run_id: str) -> Mapping[str, Any]:
        """One run: status, jobName, startTime, endTime, tags."""
        answer = self._ask(RUN, {"run": run_id})["runOrError"]
        if answer["__typename"] != "Run":
            raise DagsterError(f"no run {run_id}: {answer.get('message')}")
        return dict(answer)

    def log(self, run_id: str) -> Iterator[Step]:
        """Everything that a run has said so far, oldest first."""
        before = ""
        for event, _ in self._events(run_id, None, lambda _: None):
            step = told(event)
            if step and step.line != before:
                before = step.line
                yield step

    def _events(self, run_id: str, cursor: str | None, tell: Tell) -> Iterator[tuple[Mapping[str, Any], str]]:
        more = True
        while more:
            asked = {"run": run_id, "after": cursor}
            answer = self._patiently(functools.partial(self._ask, EVENTS, asked), tell)["logsForRun"]
            if answer["__typename"] != "EventConnection":
                raise DagsterError(f"no log of run {run_id}: {answer.get('message')}")
            cursor, more = answer["cursor"], answer["hasMore"]
            for event in answer["events"]:
                yield event, str(cursor)

    def _note(
        self, event: Mapping[str, Any], outcome: Outcome, reasons: list[str], logged: list[str], tell: Tell
    ) -> None:
        kind = event["__typename"]
        step = told(event)
        if step and step.line not in logged[-1:]:  # one event per day of a backfill, all alike
            logged.append(step.line)
            tell(step.line)
        if kind in {"ExecutionStepFailureEvent", "RunFailureEvent"}:
            reasons += [line for line in reasons_of(event) if line not in reasons]
        elif kind == "MaterializationEvent":
            name = "/".join(event["assetKey"]["path"])
            outcome.metadata[name] = {item["label"]: value_of(item) for item in event["metadataEntries"]}
        elif kind == "AssetCheckEvaluationEvent" and not event["evaluation"]["success"]:
            line = check_of(event["evaluation"])
            error = event["evaluation"]["severity"] == "ERROR"
            (outcome.checks_failed if error else outcome.warnings).append(line)

    def _patiently(self, ask: Callable[[], Any], tell: Tell) -> Any:
        """The page may be replaced by a deploy, and its database restart, while a run goes on."""
        deadline, said = time.monotonic() + AWAY_S, False
        while True:
            try:
                return ask()
            except DagsterAway:
                if time.monotonic() > deadline:
                    raise
                if not said:
                    tell("Dagster's page is away; the run goes on, waiting")
                    said = True
                time.sleep(POLL_S)

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self._http.post("/graphql", json={"query": query, "variables": dict(variables)})
            answer.raise_for_status()
            content = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            away = isinstance(error, httpx.TransportError) or (
                isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
            )
            kind = DagsterAway if away else DagsterError
            raise kind(f"Dagster at {self.url} does not answer: {error}") from error
        if content.get("errors"):
            words = content["errors"][0]["message"]
            kind = DagsterAway if "OperationalError" in words else DagsterError  # SQLAlchemy's: its database is away
            raise kind(f"Dagster at {self.url}: {words}")
        return dict(content["data"])


def train_job(model: str) -> str:
    """The job that trains a model; Dagster's names hold letters, digits and underscores only."""
    return "train_" + re.sub(r"[^A-Za-z0-9_]", "_", model)


def run_config(job: Job, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as Dagster's run configuration: each goes to every step that knows it.

    Raises:
        DagsterError: no step knows one.
    """
    steps: dict[str, Any] = {}
    for name, value in settings.items():
        knowing = [step for step, names in job.settings.items() if name in names]
        if not knowing:
            there = sorted({item for names in job.settings.values() for item in names})
            raise DagsterError(f"{job.name} has no setting {name!r}; it has: {', '.join(there) or 'none'}")
        plain = value.isoformat() if isinstance(value, dt.date) else value
        for step in knowing:
            steps.setdefault(step, {"config": {}})["config"][name] = plain
    return {"ops": steps} if steps else {}


def day_tags(job: Job, first: dt.date | None, last: dt.date | None) -> dict[str, str]:
    """Days as Dagster's tags: one partition, or a range of them in one run.

    Raises:
        DagsterError: the job needs days and got none, or takes none.
    """
    if job.takes != DAYS:
        if first or last:
            raise DagsterError(f"{job.name} takes no days")
        return {}
    first, last = first or last, last or first
    if first is None or last is None:
        raise DagsterError(f"{job.name} needs days: --from 2013-07-01 [--to 2013-07-31], or --month 2013-07")
    if first > last:
        raise DagsterError(f"{job.name}: {first} lies after {last}")
    if first == last:
        return {"dagster/partition": first.isoformat()}
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }


def month_days(month: str) -> tuple[dt.date, dt.date]:
    """First and last day of a month like 2013-07.

    Raises:
        DagsterError: it is no such month.
    """
    try:
        first = dt.date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise DagsterError(f"{month!r} is not a month like 2013-07") from error
    return first, first.replace(day=calendar.monthrange(first.year, first.month)[1])


def _fields(solid: Mapping[str, Any]) -> list[str]:
    """Names of a step's settings."""
    outer = ((solid["definition"] or {}).get("configField") or {}).get("configType") or {}
    return [field["name"] for field in outer.get("fields") or ()]
