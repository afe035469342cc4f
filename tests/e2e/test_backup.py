"""A backup of the stack at work, brought back into an empty namespace, is the same to the last row and byte."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from deltalake import DeltaTable

from flightdeck.cluster import champion, manifests
from flightdeck.cluster.backup import take
from flightdeck.cluster.backup_folder import BUCKETS, DATABASES, Backup, Sums, check_folder
from flightdeck.cluster.backup_stores import image_of, objects_pod
from flightdeck.cluster.commands import Kubectl, run
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import K8S, PLATFORM
from flightdeck.cluster.readiness import wait_ready
from flightdeck.cluster.restore import restore

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1200)]

ELSEWHERE = "flightdeck-restore"
Rows = dict[str, int]
# Of every table, counted and not estimated.
COUNT = """SELECT schemaname || '.' || tablename, (xpath('/row/c/text()', query_to_xml(
  format('SELECT count(*) AS c FROM %I.%I', schemaname, tablename), false, true, '')))[1]
  FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""


@dataclasses.dataclass(frozen=True)
class State:
    """What a namespace holds: rows of each table, size and sha256 of each object."""

    rows: dict[str, Rows]
    objects: dict[str, Sums]


@dataclasses.dataclass(frozen=True)
class Taken:
    """A backup, and what was there before and after it: the stack goes on meanwhile."""

    folder: Path
    says: Backup
    objects: dict[str, Sums]
    before: State
    after: State


def in_postgres(kubectl: Kubectl, namespace: str, *argv: str, stdin: str | None = None) -> str:
    way = ("-i",) if stdin else ()
    return kubectl("-n", namespace, "exec", *way, "statefulset/postgres", "-c", "postgres", "--", *argv, stdin=stdin)


def state_of(kubectl: Kubectl, namespace: str) -> State:
    rows = dict[str, Rows]()
    for name in DATABASES:
        said = in_postgres(kubectl, namespace, "psql", "-U", "postgres", "-d", name, "-XAt", "-F", " ", "-c", COUNT)
        rows[name] = {table: int(count) for table, count in (line.split() for line in said.splitlines())}
    with objects_pod(kubectl, namespace) as objects:
        return State(rows, {bucket: objects.sums(bucket) for bucket in BUCKETS})


def rows_in(kubectl: Kubectl, dump: Path) -> Rows:
    """Of each table in a dump, by its own text."""
    argv = ("-n", PLATFORM, "exec", "-i", "statefulset/postgres", "-c", "postgres", "--")
    text = kubectl.feed(*argv, "pg_restore", "--data-only", "-f", "-", source=dump, timeout_s=120)
    found, table = Rows(), ""
    for line in text.split("\n"):
        if begins := re.match(r"COPY (\S+) .*FROM stdin;$", line):
            table = begins[1].replace('"', "")
            found[table] = 0
        elif line == r"\.":
            table = ""
        elif table:
            found[table] += 1
    return found


@pytest.fixture(scope="module")
def taken(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("backup") / "taken"
    before = state_of(kubectl, PLATFORM)
    take(kubectl, folder, tell=print)
    says, objects = check_folder(folder)
    return Taken(folder, says, objects, before, state_of(kubectl, PLATFORM))


@pytest.fixture(scope="module")
def elsewhere(kubectl: Kubectl) -> Iterator[str]:
    """A namespace with both stores, empty, and shut as the platform's own is."""
    kubectl("delete", "namespace", ELSEWHERE, "--ignore-not-found", "--timeout=200s", timeout_s=210)
    try:
        kubectl("create", "-f", "-", stdin=manifests.as_yaml(stores(kubectl)))
        wait_ready(kubectl, (ELSEWHERE,), timeout_s=240)
        kubectl(
            "wait", "jobs", "--all", "-n", ELSEWHERE, "--for=condition=Complete", "--timeout=200s", timeout_s=210
        )  # fmt: skip
        yield ELSEWHERE
    finally:
        kubectl("delete", "namespace", ELSEWHERE, "--ignore-not-found", "--timeout=200s", timeout_s=210)


def stores(kubectl: Kubectl) -> list[dict[str, Any]]:
    base = K8S / "base" / "platform"
    (namespace,) = yaml.safe_load_all((base / "namespace.yaml").read_text())
    namespace["metadata"]["name"] = ELSEWHERE
    environment = kubectl.get("configmap", "flightdeck-env", "-n", PLATFORM)["data"]
    here = {key: value.replace(PLATFORM, ELSEWHERE) for key, value in environment.items()}
    passwords = {f"{name}-password": secrets.token_hex(20) for name in ("postgres", *DATABASES)}
    keys = {"access-key": "elsewhere", "secret-key": secrets.token_hex(20)}
    documents = [
        {"kind": "ConfigMap", "metadata": {"name": "flightdeck-env"}, "data": here},
        {"kind": "Secret", "metadata": {"name": "postgres"}, "stringData": passwords},
        {"kind": "Secret", "metadata": {"name": "object-store"}, "stringData": keys},
        *yaml.safe_load_all((base / "network-policies.yaml").read_text()),
    ]
    image = image_of(kubectl.get("deployments,jobs", "-n", PLATFORM)["items"])
    for name in ("postgres", "object-store"):
        rendered = run(("kubectl", "kustomize", str(K8S / "components" / name)))
        documents += yaml.safe_load_all(rendered.replace("image: flightdeck/mlflow", f"image: {image}"))
    for it in documents:
        it.setdefault("apiVersion", "v1")
        it["metadata"]["namespace"] = ELSEWHERE
    return [namespace, *documents]


@pytest.fixture(scope="module")
def restored(kubectl: Kubectl, taken: Taken, elsewhere: str) -> State:
    """What is elsewhere after a restore, without --replace: it was empty."""
    restore(kubectl, taken.folder, namespace=elsewhere, tell=print)
    return state_of(kubectl, elsewhere)


def within(count: int, least: int, most: int) -> bool:
    return least <= count <= most


def test_a_backup_of_a_stack_at_work_has_what_was_there_when_it_was_taken(kubectl: Kubectl, taken: Taken):
    for name in DATABASES:
        rows = rows_in(kubectl, taken.folder / taken.says.databases[name].name)
        before, after = taken.before.rows[name], taken.after.rows[name]
        spans = {table: sorted((before.get(table, 0), after.get(table, 0))) for table in rows}
        wrong = {table: (count, spans[table]) for table, count in rows.items() if not within(count, *spans[table])}
        assert not wrong, f"{name}: rows in the dump, before and after: {wrong}"
        assert set(before) <= set(rows)
    for name in BUCKETS:
        still = {key: it for key, it in taken.before.objects[name].items() if taken.after.objects[name].get(key) == it}
        missing = {key for key, it in still.items() if taken.objects[name].get(key) != it}
        assert not missing, f"{name}: not in the backup, or otherwise: {sorted(missing)[:5]}"
    assert sum(map(len, taken.objects.values())) and sum(taken.before.rows["dagster"].values()), "nothing to compare"


def test_every_table_comes_back_with_every_row(kubectl: Kubectl, taken: Taken, restored: State):
    dumps = {name: rows_in(kubectl, taken.folder / taken.says.databases[name].name) for name in DATABASES}
    assert restored.rows == dumps


def test_every_object_comes_back_to_the_last_byte(taken: Taken, restored: State):
    assert {name: dict(it) for name, it in restored.objects.items()} == {
        name: dict(it) for name, it in taken.objects.items()
    }


@contextlib.contextmanager
def lake_of(kubectl: Kubectl, namespace: str) -> Iterator[Callable[..., Any]]:
    """Opens Delta tables through a port-forward."""
    secret = kubectl.get("secret", "object-store", "-n", namespace)["data"]
    access, key = (base64.b64decode(secret[name]).decode() for name in ("access-key", "secret-key"))
    with forward(kubectl, namespace, "object-store", 7070) as url:
        options = {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": key,
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
        yield lambda table, **how: DeltaTable(f"s3://lake/{table}", storage_options=options, **how)


@pytest.mark.usefixtures("restored")
def test_every_delta_table_opens_at_its_version_with_the_same_rows(kubectl: Kubectl, taken: Taken, elsewhere: str):
    versions = dict[str, int]()
    for key in taken.objects["lake"]:
        if commit := re.fullmatch(r"(.+)/_delta_log/(\d{20})\.json", key):
            versions[commit[1]] = max(int(commit[2]), versions.get(commit[1], 0))
    assert versions, "the lake has no table"
    with lake_of(kubectl, PLATFORM) as live, lake_of(kubectl, elsewhere) as there:
        for table, version in versions.items():
            opened = there(table)
            assert opened.version() == version, table
            # Counting reads the foot of every file of the version: none is lacking.
            wanted = live(table, version=version).to_pyarrow_dataset().count_rows()
            assert opened.to_pyarrow_dataset().count_rows() == wanted, table


@pytest.mark.usefixtures("restored")
def test_each_role_owns_its_database_and_is_shut_out_of_the_others(kubectl: Kubectl, elsewhere: str):
    # By the pod's own address: from there a password is asked for.
    script = 'PGPASSWORD="$MLFLOW_PASSWORD" psql -X -v ON_ERROR_STOP=1 -h "$(hostname -i)" -U mlflow -d "$1" -c "$2"'
    writes = (
        "BEGIN; UPDATE experiments SET name = name; CREATE TABLE probe (); ALTER TABLE runs ADD probe int; ROLLBACK"
    )
    in_postgres(kubectl, elsewhere, "bash", "-c", script, "bash", "mlflow", writes)
    with pytest.raises(Exception, match="permission denied for database"):
        in_postgres(kubectl, elsewhere, "bash", "-c", script, "bash", "feast", "SELECT 1")


@pytest.mark.usefixtures("restored")
def test_a_second_restore_is_refused_and_touches_nothing(kubectl: Kubectl, taken: Taken, elsewhere: str):
    done = subprocess.run(
        (sys.executable, "-m", "flightdeck.cli", "cluster", "restore", str(taken.folder), "--namespace", elsewhere,
         "--context", kubectl.context),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the target is not empty (database mlflow: " in done.stderr and "add --replace" in done.stderr


def writers(kubectl: Kubectl) -> list[dict[str, Any]]:
    """MLflow as the platform has it, and an upkeep that never comes."""
    rendered = run(("kubectl", "kustomize", str(K8S / "base" / "platform" / "mlflow")))
    image = image_of(kubectl.get("deployments,jobs", "-n", PLATFORM)["items"])
    mlflow = [it for it in yaml.safe_load_all(rendered.replace("image: flightdeck/mlflow", f"image: {image}")) if it]
    pods = [it for it in yaml.safe_load_all((K8S / "backup" / "pod.yaml").read_text()) if it["kind"] == "Pod"]
    upkeep = {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "upkeep"},
        "spec": {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": {"template": {"spec": pods[0]["spec"]}}}},
    }  # fmt: skip
    documents = [it for it in (*mlflow, upkeep) if it["kind"] != "Job"]
    for it in documents:
        it["metadata"]["namespace"] = ELSEWHERE
    return documents


def test_replace_stops_what_writes_loses_what_is_there_and_starts_it_again(
    kubectl: Kubectl, taken: Taken, elsewhere: str, restored: State, model: str
):
    kubectl("create", "-f", "-", stdin=manifests.as_yaml(writers(kubectl)))
    wait_ready(kubectl, (elsewhere,), timeout_s=240)
    pods, told = pods_of(kubectl, elsewhere), list[str]()
    planted = "CREATE TABLE planted (a int); DELETE FROM model_version_tags"
    in_postgres(kubectl, elsewhere, "psql", "-U", "postgres", "-d", "mlflow", "-c", planted)
    with objects_pod(kubectl, elsewhere):
        put = "import boto3; boto3.client('s3').put_object(Bucket='quarantine', Key='planted', Body=b'1')"
        kubectl("-n", elsewhere, "exec", "pod/backup", "--", "python", "-c", put)
    restore(kubectl, taken.folder, namespace=elsewhere, replace=True, tell=told.append)
    assert "stop what writes; replicas were mlflow=1" in told
    assert "bucket quarantine: 1 other objects deleted" in told
    assert state_of(kubectl, elsewhere) == restored
    assert not pods & pods_of(kubectl, elsewhere), "the pod of a writer lived through the restore"
    for name in ("upkeep", "mlflow-gc"):
        assert not kubectl.get("cronjob", name, "-n", elsewhere)["spec"]["suspend"], name
    left = "SELECT datname FROM pg_database WHERE datname ~ '_(restoring|replaced)$'"
    assert not in_postgres(kubectl, elsewhere, "psql", "-U", "postgres", "-XAt", "-c", left).strip()
    with forward(kubectl, elsewhere, "mlflow", 5000) as url:
        assert any(it.image for it in champion.versions(url, model)), "MLflow tells no version that could serve"
        for key, (_, sha256) in taken.objects["mlflow"].items():
            answer = httpx.get(f"{url}/api/2.0/mlflow-artifacts/artifacts/{key}", timeout=30)
            assert hashlib.sha256(answer.content).hexdigest() == sha256, f"{key}: {answer.status_code}"


def pods_of(kubectl: Kubectl, namespace: str) -> set[str]:
    items = kubectl.get("pods", "-n", namespace, "-l", "app.kubernetes.io/name=mlflow")["items"]
    return {it["metadata"]["uid"] for it in items}
