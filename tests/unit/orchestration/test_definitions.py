from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import yaml

from feature_repo.transforms import BUILDS
from flightdeck.contracts.model_spec import model_specs, specs_folder
from pipelines.gates.decisions import GATES
from pipelines.orchestration import names
from pipelines.orchestration.definitions import defs
from pipelines.orchestration.jobs import SIGNING
from pipelines.use_case import load_use_case

REPOSITORY = Path(__file__).resolve().parents[3]
INSTANCE = yaml.safe_load((REPOSITORY / "k8s/base/platform/dagster/dagster.yaml").read_text())
HEAVY = {"feast", "mlflow", "sklearn", "optuna", "pandas", "pandera", "matplotlib", "dagster_k8s"}


def test_every_table_view_and_model_is_an_asset(graph):
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    use_case, specs = load_use_case(), model_specs(specs_folder())
    wanted = {f"lake/{table.name}" for table in use_case.tables} | {f"features/{view}" for view in BUILDS}
    wanted |= {f"{kind}/{spec.name}" for kind in ("candidate", "version") for spec in specs}
    assert wanted | {"online_features", "lake/predictions", "lake/upkeep"} == keys


def test_days_are_the_use_cases_in_its_zone_and_static_tables_have_none(graph):
    use_case = load_use_case()
    for table in use_case.tables:
        days = graph.get(dg.AssetKey(["lake", table.name])).partitions_def
        if table.static:
            assert days is None
        else:
            assert isinstance(days, dg.DailyPartitionsDefinition)
            assert days.timezone == use_case.time_zone.key
            found = days.get_partition_keys()
            assert (found[0], found[-1]) == (str(use_case.first_day), str(use_case.last_day))


def test_months_are_one_run_not_a_pod_per_day(graph):
    for node in graph.asset_nodes:
        if node.partitions_def is not None:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), node.key


def test_a_table_has_a_check_that_blocks_and_a_version_one_per_gate(graph):
    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    tables = {(f"lake/{table.name}", "fit_for_the_lake") for table in load_use_case().tables}
    gates = {(f"version/{spec.name}", gate) for spec in model_specs(specs_folder()) for gate in GATES}
    assert checks == tables | gates


def test_a_candidate_stands_on_the_views_that_its_spec_reads(graph):
    for spec in model_specs(specs_folder()):
        parents = graph.get(dg.AssetKey(["candidate", spec.name])).parent_keys
        assert parents == {dg.AssetKey(["features", view]) for view in spec.features}


def test_only_the_gates_jobs_are_given_the_signing_key(jobs):
    with_key = {name for name, job in jobs.items() if "signing-key" in json.dumps(job.tags)}
    assert with_key == {names.gate_job(spec.name) for spec in model_specs(specs_folder())}


def test_the_gates_pod_has_the_key_beside_everything_that_every_run_has():
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import UserDefinedDagsterK8sConfig

    every_run = UserDefinedDagsterK8sConfig.from_dict(INSTANCE["run_launcher"]["config"]["run_k8s_config"])
    gate = UserDefinedDagsterK8sConfig.from_dict(SIGNING)
    merged = K8sContainerContext(run_k8s_config=every_run).merge(K8sContainerContext(run_k8s_config=gate))
    pod, container = merged.run_k8s_config.pod_spec_config, merged.run_k8s_config.container_config
    assert {item["name"] for item in pod["volumes"]} == {"scratch", "tmp", "public-key", "signing-key"}
    assert {item["name"] for item in container["volume_mounts"]} == {"scratch", "tmp", "public-key", "signing-key"}
    assert container["env"][-1]["name"] == "FLIGHTDECK_SIGNING_KEY_FILE"
    assert container["security_context"]["read_only_root_filesystem"]


def test_the_cluster_runs_one_training_per_model_and_one_writer_of_days(jobs):
    limits = {item["key"]: item for item in INSTANCE["concurrency"]["runs"]["tag_concurrency_limits"]}
    assert set(limits) == {names.MODEL_TAG, names.WRITES_TAG}
    assert all(item["limit"] == 1 and item["value"]["applyLimitPerUniqueValue"] for item in limits.values())
    assert jobs[names.DAILY].tags[names.WRITES_TAG] == jobs[names.BACKFILL].tags[names.WRITES_TAG]
    for name, job in jobs.items():
        if not name.startswith("__"):
            assert job.tags.keys() & limits.keys(), f"{name} is in no lane"
            assert int(job.tags[names.MAX_RUNTIME_TAG]) <= INSTANCE["run_monitoring"]["max_runtime_seconds"]


def test_a_run_takes_the_image_of_the_code_location_that_started_it():
    launcher = INSTANCE["run_launcher"]
    assert launcher["class"] == "K8sRunLauncher"
    assert "job_image" not in launcher["config"], "it would override the image that a run was started with"


def test_nothing_runs_by_itself_but_the_gate_after_a_training():
    started = {
        item.name
        for item in [*(defs.schedules or ()), *(defs.sensors or ())]
        if getattr(item, "default_status", None) in {dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING}
    }
    assert started == {"gate_follows_training"}


def test_loading_the_definitions_loads_nothing_that_only_a_step_needs():
    script = f"import sys, pipelines.orchestration.definitions; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
