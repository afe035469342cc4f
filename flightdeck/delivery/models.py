"""Entry point of the gate `models`: train what the checkout says, without search, and judge it by all gates.

The training is the pipeline's own, on the spec's whole window, so no margin is another one here; only the search is
left out, for time. All happens in a folder of this run; no server is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib.metadata
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flightdeck.contracts.card import ModelCard
from flightdeck.contracts.champion_card import ChampionCard
from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.contracts.model_spec import CHECKOUT, ModelSpec
from flightdeck.delivery import champion_card, model_gate
from flightdeck.delivery.feature_gate import LABELS_ENV, labels_of
from flightdeck.delivery.outcome import Finding, Outcome
from pipelines.training.dataset import Window

CARD_FILE = "model-card.json"
WORLD = "ci-models"  # under the state folder, made anew by each run
LOCK = CHECKOUT / "requirements" / "pipeline.txt"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """One model to train, as if the day were `until_utc`."""

    spec: ModelSpec
    until_utc: dt.datetime
    window: Window
    champion: ModelCard | None


def check(
    specs: Sequence[ModelSpec], state: Path, *, until_utc: dt.datetime, trials: int = 0, tell: Tell = lambda _: None
) -> Outcome:
    """Train and judge each spec; compare with what serves where a champion card tells of it.

    Args:
        specs: those to train.
        state: the state folder; the run works in a folder of it.
        until_utc: the training's time for a model without champion; with one it is trained on the champion's days.
        trials: of the search.
    """
    if findings := off_lock(LOCK.read_text() if LOCK.is_file() else "", _installed):
        return Outcome(gate=model_gate.GATE, findings=tuple(findings))
    try:
        card = champion_card.wanted()
        unchecked = champion_card.unverified(card) if card else champion_card.UNSET
    except (champion_card.CardUnreadable, ValueError) as error:
        finding = Finding(what=str(error), do=champion_card.DO_WHEN_UNREADABLE)
        return Outcome(gate=model_gate.GATE, findings=(finding,))
    layout = StateLayout(state / WORLD)
    shutil.rmtree(layout.root, ignore_errors=True)
    layout.root.mkdir(parents=True)
    found = [Outcome(gate=model_gate.GATE, not_run=(unchecked,) if unchecked else ())]
    with _quiet(), own_state(layout.root):
        try:
            tasks = [task_of(spec, card, until_utc) for spec in specs]
            _fill(layout, max(it.until_utc for it in tasks), tell)
        except Exception as error:  # features, checks and source are the checkout's own code
            finding = Finding(
                what=f"no features to train on: {type(error).__name__}: {error}",
                do="run `flightdeck ci data` and `flightdeck ci features`; they say more",
            )
            return found[0].model_copy(update={"findings": (finding,)})
        found += _judged(tasks, layout, trials, tell)
    return together(found)


@contextlib.contextmanager
def own_state(root: Path) -> Iterator[None]:
    """The folder that feature definitions read from; afterwards the one that keeps the outcome again."""
    before = os.environ.get(STATE_ENV)
    os.environ[STATE_ENV] = str(root)
    try:
        yield
    finally:
        os.environ.pop(STATE_ENV)
        if before is not None:
            os.environ[STATE_ENV] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecations of libraries among themselves: a log of CI is for what a developer can change."""
    import feast  # it asks for such warnings as it is imported

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert feast
        yield


def task_of(spec: ModelSpec, card: ChampionCard | None, until_utc: dt.datetime) -> Task:
    """The training of one model: on the champion's days where there is one, so that both are measured on the same."""
    from pipelines.training.dataset import window
    from pipelines.use_case import load_use_case

    serving = card.models.get(spec.name) if card else None
    champion = serving.model_card if serving else None
    until = champion.holdout_until + spec.split.maturity if champion else until_utc
    return Task(spec, until, window(until, spec.split, load_use_case().time_zone), champion)


def _fill(layout: StateLayout, until_utc: dt.datetime, tell: Tell) -> None:
    """The source's days into a lake of this run, their features, and a registry of the checkout's definitions."""
    from pipelines.data.ingest import ingest_days
    from pipelines.data.lake import Lake
    from pipelines.features import registry
    from pipelines.features.build import build_features
    from pipelines.features.export import export
    from pipelines.use_case import load_use_case

    use_case, lake = load_use_case(), Lake(layout.lake)
    last = (until_utc - dt.timedelta(microseconds=1)).astimezone(use_case.time_zone).date()
    if last > use_case.last_day:
        raise ValueError(
            f"the source ends on {use_case.last_day}, the training is as of {until_utc:%Y-%m-%d %H:%M} UTC"
        )
    tell(f"ingest the source to {last}")
    for _ in ingest_days(use_case, lake, layout.quarantine, last=last, days_per_commit=31):
        pass
    tell("build features")
    build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), until_utc)
    export(lake, layout)
    registry.apply(layout)


def _judged(tasks: Sequence[Task], layout: StateLayout, trials: int, tell: Tell) -> Iterator[Outcome]:
    """Models over the same days share a join: the one with the most features first."""
    from pipelines.features.registry import open_store
    from pipelines.features.training_frame import service_features

    frames: dict[Window, Any] = {}
    try:
        store = open_store(layout)
        features = {it.spec.name: service_features(store, it.spec.feature_service) for it in tasks}
    except Exception as error:
        yield _broken("a feature service", error)
        return
    for task in sorted(tasks, key=lambda it: -len(features[it.spec.name])):
        try:
            yield _one(task, layout, frames, features[task.spec.name], trials=trials, tell=tell)
        except Exception as error:  # a model that cannot be trained or judged has not passed
            yield _broken(task.spec.name, error)


def _one(
    task: Task, layout: StateLayout, frames: dict[Window, Any], features: list[Any], *, trials: int, tell: Tell
) -> Outcome:
    from pipelines.gates.gate import gate_candidate
    from pipelines.training.train import joined_frame, made_candidate

    spec = task.spec
    whole, names = frames.get(task.window), [it.name for it in features]
    if whole is not None and set(names) <= set(whole.names):
        kept = whole.frame.drop(set(whole.names) - set(names))
        frame = dataclasses.replace(whole, frame=kept, features=features, feature_service=spec.feature_service)
    else:
        tell(f"{spec.name}: join features as of prediction time")
        frame = frames[task.window] = joined_frame(spec, layout, task.window, task.until_utc)
    tell(f"{spec.name}: train")
    candidate, _ = made_candidate(
        spec, layout, frame, task.window, until_utc=task.until_utc, run_id=f"ci-{spec.name}", trials=trials, note="ci"
    )
    tell(f"{spec.name}: gates")
    report = gate_candidate(candidate, None, log=False)
    (report.page.parent / CARD_FILE).write_text(report.card.model_dump_json(indent=1) + "\n")  # not signed
    found = model_gate.judge(spec, report.card, task.champion, labels_of((), os.environ.get(LABELS_ENV, "")))
    return found.model_copy(update={"says": (*found.says, f"{spec.name}: the page with pictures is {report.page}")})


def _broken(what: str, error: Exception) -> Outcome:
    finding = Finding(
        what=f"{what} cannot be trained or judged: {type(error).__name__}: {error}",
        do="mend what the message names; docs/model-spec.md and docs/features.md say what each may be",
    )
    return Outcome(gate=model_gate.GATE, findings=(finding,))


def together(parts: Sequence[Outcome]) -> Outcome:
    """One outcome of several."""
    tables: dict[str, tuple[tuple[str, ...], ...]] = {}
    for part in parts:
        tables |= part.tables
    return Outcome(
        gate=model_gate.GATE,
        findings=tuple(it for part in parts for it in part.findings),
        says=tuple(it for part in parts for it in part.says),
        tables=tables,
        not_run=tuple(it for part in parts for it in part.not_run),
    )


def off_lock(lock: str, installed: Callable[[str], str | None]) -> list[Finding]:
    """Packages that are installed in another version than the lock says: their model would not be the lock's.

    Args:
        lock: the text of requirements/pipeline.txt.
        installed: name -> version, None when absent (a package for other systems).
    """
    pins: dict[str, set[str]] = {}
    for name, version in PIN.findall(lock):
        pins.setdefault(name, set()).add(version)
    if not pins:
        return [Finding(what=f"no lock to train from: {LOCK} pins nothing", do="run `make lock` and commit it")]
    other = {name: found for name, versions in pins.items() if (found := installed(name)) and found not in versions}
    if not other:
        return []
    named = ", ".join(f"{name} {version} (lock: {', '.join(sorted(pins[name]))})" for name, version in other.items())
    return [Finding(what=f"the environment is not the lock's: {named}", do="run `make setup-dev`, then again")]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
