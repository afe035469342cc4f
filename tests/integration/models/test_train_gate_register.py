"""From a joined frame to a served version and back, against a real MLflow server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import polars as pl
import pytest

from flightdeck.cli.main import main
from flightdeck.contracts.artefact import ArtefactError, verify_artefact
from flightdeck.contracts.champion_card import RegisteredObject
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.delivery.champion_card import CardRefused, collect, registered_cards
from pipelines.features.training_frame import TrainingFrame
from pipelines.gates.evidence import Truncated
from pipelines.gates.gate import GateReport, gate_candidate
from pipelines.registry.mlflow_adapter import MlflowRegistry, RegistryRefused
from pipelines.registry.signing import KEY_ENV, SignatureRefused, trusted_keys
from pipelines.registry.versions import (
    NotPromotable,
    fetch,
    find_version,
    load_champion,
    promote,
    promoted_version,
    register,
    verify_version,
)
from pipelines.training.candidate import Candidate, load_candidate
from pipelines.training.train import train_candidate

UNTIL = datetime(2013, 7, 1, tzinfo=UTC)
Run = Callable[..., tuple[Candidate, GateReport]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> StateLayout:
    return StateLayout(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def run(layout: StateLayout, spec: ModelSpec, frame: TrainingFrame, join: Any, mlflow_server: str) -> Run:
    """Train and judge; the lake of this small world has no future to take away, which the tests of features cover."""

    def make(champion: ModelRef | None = None, **options: Any) -> tuple[Candidate, GateReport]:
        candidate = train_candidate(
            spec, layout, until_utc=UNTIL, tracking_uri=mlflow_server, frame=frame, **{"trials": 0, **options}
        )
        return candidate, gate_candidate(candidate, champion, join=join, truncate=lambda _: Truncated(10, ""))

    return make


@pytest.fixture(scope="module")
def first(run: Run) -> tuple[Candidate, GateReport]:
    return run(trials=2)


@pytest.fixture(scope="module")
def champion(first: tuple[Candidate, GateReport], layout: StateLayout, mlflow_server: str) -> ModelRef:
    assert load_champion("trips", tracking_uri=mlflow_server) is None
    ref = register(*first)
    promote(ref, layout=layout, tracking_uri=mlflow_server)
    return ref


def verdicts(report: GateReport) -> dict[str, Verdict]:
    return {item.gate: item.verdict for item in report.results}


def test_the_first_candidate_passes_and_becomes_champion(
    first: tuple[Candidate, GateReport], champion: ModelRef, mlflow_server: str
):
    assert first[1].verdict is Verdict.PROMOTE, first[1].reason
    assert load_champion("trips", tracking_uri=mlflow_server) == champion


def test_the_champion_card_holds_the_signed_card_of_what_serves(
    champion: ModelRef, layout: StateLayout, mlflow_server: str
):
    release = Release(image="code", model=champion, feature_service="trips_v1")  # type: ignore[call-arg]
    trusted = trusted_keys(layout.keys)
    for releases in (None, {"trips": release}):
        (signed,) = registered_cards(["trips"], mlflow_server, trusted, releases)
        service = RegisteredObject(kind="feature service", name="trips_v1", facts={"features of yard": "sight, queue"})
        made = collect(
            [signed], (service,), environment="dev", trusted=trusted, releases=releases, now_utc=datetime.now(UTC)
        )
        assert made.models["trips"].version == champion.version
        assert made.models["trips"].metrics["auc"].low is not None
    other = release.model_copy(update={"model": champion.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(CardRefused, match="its card is about"):
        registered_cards(["trips"], mlflow_server, trusted, {"trips": other})
    with pytest.raises(CardRefused, match="has no champion yet"):
        registered_cards(["nothing"], mlflow_server, trusted)


def test_the_run_tells_what_it_was_made_from(
    first: tuple[Candidate, GateReport], champion: ModelRef, mlflow_server: str
):
    client = mlflow.MlflowClient(mlflow_server)
    run = client.get_run(first[0].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["feature_service"] == "trips_v1"
    assert run.data.tags["flightdeck.sha256"] == champion.sha256
    assert run.data.tags["flightdeck.verdict"] == "PROMOTE"
    assert {"flightdeck.git_commit", "flightdeck.lock_sha256", "flightdeck.spec_sha256"} <= set(run.data.tags)
    assert run.data.metrics["holdout.auc"] == pytest.approx(first[0].metrics["auc"])
    named = {item.dataset.name: item.dataset.digest for item in run.inputs.dataset_inputs}
    assert named["trips"] == "version 7"
    assert first[0].facts.digests.holdout_sha256.startswith(named["holdout"])
    files = {
        item.path for folder in ("", "artefact", "plots") for item in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"artefact/manifest.json", "artefact/model.onnx", "card.json", "card.html", "gates.json"} <= files
    assert {"plots/roc.png", "plots/calibration.png", "plots/importances.png"} <= files


def test_importance_finds_the_feature_that_matters(first: tuple[Candidate, GateReport]):
    lost = first[0].facts.importances
    assert next(iter(lost)) == "queue"
    assert abs(lost["noise"]) < 0.02 < lost["queue"]


def test_the_artefact_holds_defaults_policies_and_fallback(first: tuple[Candidate, GateReport], frame: TrainingFrame):
    candidate = first[0]
    manifest = verify_artefact(candidate.folder, candidate.sha256)
    assert [item.name for item in manifest.features] == frame.names
    assert {item.name: item.default for item in manifest.features}["queue"] == pytest.approx(0, abs=0.1)
    assert manifest.views["yard"].max_age_s == 86400
    assert manifest.fallback_score == pytest.approx(candidate.facts.base_rate)


def test_a_search_that_was_done_is_not_done_again(first: tuple[Candidate, GateReport], run: Run):
    again, _ = run(trials=2)
    assert again.facts.search_trials == first[0].facts.search_trials == 2
    assert again.sha256 == first[0].sha256, "same data, same spec, same seeds: the same bytes"


def test_a_planted_column_from_the_future_is_refused_and_cannot_be_promoted(
    run: Run, champion: ModelRef, layout: StateLayout, mlflow_server: str
):
    def plant(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(landed=pl.col("label_late").cast(pl.Float32) + pl.col("noise") * 0.1)

    candidate, report = run(champion, plant=plant)
    assert report.verdict is Verdict.REJECT
    found = verdicts(report)
    assert {found[name] for name in ("leak_metric", "leak_join", "signature")} == {Verdict.REJECT}
    assert "landed" in report.reason
    ref = register(candidate, report)
    with pytest.raises(NotPromotable, match="REJECT"):
        promote(ref, layout=layout, tracking_uri=mlflow_server)
    assert load_champion("trips", tracking_uri=mlflow_server) == champion


def test_a_forged_verdict_tag_does_not_help(run: Run, champion: ModelRef, layout: StateLayout, mlflow_server: str):
    candidate, report = run(champion, spoil=lambda rows: rows.with_columns(pl.col("label_late").shuffle(seed=1)))
    ref = register(candidate, report)
    MlflowRegistry(mlflow_server).tag_version(ref.name, ref.version, {"verdict": "PROMOTE"})
    with pytest.raises(NotPromotable, match="signed card says REJECT"):
        promote(ref, layout=layout, tracking_uri=mlflow_server)
    assert promoted_version("trips", ref.version, tracking_uri=mlflow_server)[0].approval is None
    assert champion.approval
    moved = champion.approval.model_dump_json(by_alias=True)
    MlflowRegistry(mlflow_server).tag_version(ref.name, ref.version, {"approval": moved})
    found = verify_version("trips", ref.version, layout, tracking_uri=mlflow_server)
    assert "its approval is of the card" in found.unapproved


def test_a_known_feature_with_the_outcome_mixed_in_is_found_by_joining_again(run: Run, champion: ModelRef):
    def plant(rows: pl.DataFrame) -> pl.DataFrame:  # faint: the metric alone would not tell
        return rows.with_columns(sight=pl.col("sight") + pl.col("label_late").cast(pl.Float32) * 0.3)

    _, report = run(champion, plant=plant)
    assert verdicts(report)["leak_metric"] is Verdict.PROMOTE
    assert verdicts(report)["leak_join"] is Verdict.REJECT
    assert "sight" in report.reason


def test_a_plainly_worse_candidate_is_refused_with_both_figures(run: Run, champion: ModelRef):
    _, report = run(champion, spoil=lambda rows: rows.with_columns(pl.col("label_late").shuffle(seed=1)))
    assert report.verdict is Verdict.REJECT
    assert verdicts(report)["quality"] is Verdict.REJECT
    assert f"champion {champion.version}" in report.reason


def test_a_candidate_as_good_as_the_champion_passes(run: Run, champion: ModelRef):
    _, report = run(champion)
    assert report.verdict is Verdict.PROMOTE, report.reason
    assert report.card.champion_version == champion.version


def test_a_champion_whose_artefact_is_gone_holds_the_candidate(run: Run, champion: ModelRef):
    _, report = run(champion.model_copy(update={"sha256": "0" * 64}))
    assert report.verdict is Verdict.HOLD
    assert "no artefact" in report.reason


def test_another_machine_can_verify_fetch_and_judge(  # noqa: PLR0917  fixtures
    champion: ModelRef, first: tuple[Candidate, GateReport], join: Any, layout: StateLayout, mlflow_server: str,
    tmp_path: Path,
):  # fmt: skip
    there = StateLayout(tmp_path / "there")
    there.keys.mkdir(parents=True)
    shutil.copy(layout.keys / "signing.pub", there.keys)
    assert find_version("trips", "champion", tracking_uri=mlflow_server) == champion
    verified = verify_version("trips", champion.version, there, tracking_uri=mlflow_server)
    assert verified.card.verdict is Verdict.PROMOTE and not verified.unapproved
    assert verified.folder == there.artefacts / champion.sha256
    candidate = load_candidate(first[0].run_id, there, mlflow_server)
    report = gate_candidate(candidate, None, join=join, truncate=lambda _: Truncated(10, ""), log=False)
    assert report.verdict is Verdict.PROMOTE, report.reason


def test_a_stranger_trusts_nothing(champion: ModelRef, mlflow_server: str, tmp_path: Path, monkeypatch: Any):
    monkeypatch.delenv(KEY_ENV, raising=False)
    with pytest.raises(SignatureRefused, match="no key is trusted"):
        verify_version("trips", champion.version, StateLayout(tmp_path), tracking_uri=mlflow_server)


def test_a_model_altered_in_mlflow_is_not_fetched(
    run: Run, champion: ModelRef, mlflow_server: str, artifacts_root: Path, tmp_path: Path
):
    candidate, report = run(champion, sample_rows=1500)
    ref = register(candidate, report)
    stored = next(artifacts_root.glob(f"**/{candidate.run_id}/artifacts/artefact/model.onnx"))
    stored.write_bytes(stored.read_bytes() + b"x")
    with pytest.raises(ArtefactError, match="refusing"):
        fetch(ref, StateLayout(tmp_path), tracking_uri=mlflow_server)
    assert not (tmp_path / "artefacts" / ref.sha256).exists()


def test_an_unknown_version_is_told(mlflow_server: str):
    with pytest.raises(RegistryRefused, match="trips"):
        find_version("trips", "999", tracking_uri=mlflow_server)


def test_a_training_that_fails_leaves_a_failed_run(run: Run, spec: ModelSpec, mlflow_server: str):
    def empty(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.head(0)

    with pytest.raises(ValueError, match="no train rows"):
        run(plant=empty, note="empty")
    client = mlflow.MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name(spec.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`flightdeck.note` = 'empty'")
    assert [item.info.status for item in runs] == ["FAILED"]


def cli(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_commands_list_show_verify_and_fetch(
    champion: ModelRef, layout: StateLayout, mlflow_server: str, monkeypatch: Any, capsys: Any
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("FLIGHTDECK_STATE", str(layout.root))
    assert cli("models", "list", "trips") == 0
    listed = capsys.readouterr().out
    assert f"trips v{champion.version}  PROMOTE champion" in listed
    assert cli("models", "show", "trips", "champion") == 0
    assert f'"sha256": "{champion.sha256}"' in capsys.readouterr().out
    assert cli("models", "verify", "trips", champion.version) == 0
    assert "approved by the gate" in capsys.readouterr().out
    assert cli("models", "fetch", "trips", "champion") == 0
    assert str(layout.artefacts / champion.sha256) in capsys.readouterr().out
    assert cli("models", "verify", "trips", champion.version, "--public-key", "00" * 32) == 5
    assert "signed by" in capsys.readouterr().err


def test_the_gate_command_holds_what_it_cannot_join_again(  # noqa: PLR0917  fixtures
    first: tuple[Candidate, GateReport], champion: ModelRef, layout: StateLayout, mlflow_server: str,
    monkeypatch: Any, capsys: Any,
):  # fmt: skip
    """This world has no feature store: the real join and the real truncation fail, and so the verdict is HOLD."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("FLIGHTDECK_STATE", str(layout.root))
    assert cli("gate", "trips", champion.version, "--promote") == 4
    out = capsys.readouterr().out
    assert "HOLD    leak_join" in out and "HOLD    leak_truncation" in out
    assert "champion of" not in out


def test_a_command_without_a_server_ends_with_words(monkeypatch: Any, capsys: Any):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli("models", "list") == 5
    assert "--tracking-uri" in capsys.readouterr().err


def test_upkeep_removes_old_runs_but_for_those_that_made_a_version(champion: ModelRef, mlflow_server: str):
    registry = MlflowRegistry(mlflow_server)
    unused = registry.start_run("trips", "a try", {})
    registry.end_run(unused, ok=True)
    running = registry.start_run("trips", "still at work", {})
    made = {item.run_id for item in registry.versions()}
    before = datetime.now(UTC) + timedelta(minutes=1)
    counted = registry.trim_runs(before, dry_run=True)
    client = mlflow.MlflowClient(mlflow_server)
    assert counted >= 1
    assert client.get_run(unused).info.lifecycle_stage == "active"
    assert registry.trim_runs(datetime(2013, 1, 1, tzinfo=UTC)) == 0
    assert registry.trim_runs(before) == counted
    assert client.get_run(unused).info.lifecycle_stage == "deleted"
    assert {client.get_run(run_id).info.lifecycle_stage for run_id in (*made, running)} == {"active"}
    assert registry.trim_runs(before) == 0
    registry.end_run(running, ok=True)
