"""A backup is there whole or not at all; a restore refuses before it touches anything."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flightdeck.cli import cluster as cli
from flightdeck.cluster import backup, backup_stores, restore
from flightdeck.cluster.backup_folder import BUCKETS, DATABASES, BackupBroken, check_folder
from flightdeck.cluster.backup_stores import Objects, Postgres, image_of, objects_pod, with_image
from flightdeck.cluster.commands import CommandFailed, stream
from flightdeck.cluster.names import K8S
from flightdeck.cluster.target import Refused

from .test_backup_folder import LAKE, Store, objects, saved

IMAGE = "localhost:5001/flightdeck/mlflow@sha256:" + "a" * 64
Job = dict[str, Any]


def workload(container: str, image: str) -> Job:
    return {"spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}}


class Cluster:
    """Stands for kubectl before a namespace with both stores: databases as tables' counts, buckets in memory.

    A filled database has 99 tables. As in psql each `-c` is a transaction, whose renames are undone when one fails.
    """

    context = "test"

    def __init__(self, tables: int = 0, content: dict[str, bytes] | None = None, jobs: tuple[Job, ...] = ()) -> None:
        self.tables, self.jobs, self.calls = dict.fromkeys(DATABASES, tables), jobs, list[str]()
        self.stores = {name: Store(content or {}) for name in BUCKETS}
        self.deployments, self.locked, self.cut = {"mlflow": 2, "dagster-daemon": 1}, False, 0
        self.suspended = {"upkeep": False, "mlflow-gc": False}
        self.awake = set[str]()  # CronJobs that were not suspended while a store was fed
        self.breaks = ""  # what is in the words of the call, or of the SQL statement, that fails

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any:
        if kind == "statefulset":
            return {}
        if kind == "deployment" and name in self.deployments:
            return {"spec": {"replicas": self.deployments[name]}}
        return {"spec": {"suspend": self.suspended[name]}} if kind == "cronjob" else None

    def get(self, *args: str) -> Any:
        if args[0] == "deployments,jobs":
            return {"items": [workload("mlflow", IMAGE)]}
        return {"items": list(self.jobs) if args[0] == "jobs" else []}

    def __call__(self, *args: str, stdin: str | None = None, timeout_s: float = 0) -> str:
        words = " ".join(args)
        self.calls.append(words)
        if self.breaks and self.breaks in words and "psql" not in args:
            raise CommandFailed("planted")
        if args[0] == "create" and self.locked:
            raise CommandFailed("kubectl ended with 1", 'pods "backup" already exists (AlreadyExists)')
        if "scale" in args:
            name = next(it for it in args if it.startswith("deployment/")).removeprefix("deployment/")
            self.deployments[name] = int(args[-1].rpartition("=")[2])
        if "patch" in args:
            self.suspended[args[args.index("cronjob") + 1]] = json.loads(args[-1])["spec"]["suspend"]
        if "psql" in args:
            return self._sql(args)
        if "count" in args:
            return json.dumps({name: len(store.content) for name, store in self.stores.items()})
        if "prune" in args:
            return json.dumps(objects.prune(self.stores[args[-1]], args[-1], set(json.loads(stdin or ""))))
        return json.dumps(objects.sums(self.stores[args[-1]], args[-1])) if "sums" in args else ""

    def _sql(self, args: tuple[str, ...]) -> str:
        database, statement = args[args.index("-d") + 1], args[-1]
        for transaction in (after for way, after in itertools.pairwise(args) if way == "-c"):
            before = dict(self.tables)
            for one in transaction.split("; "):
                try:
                    self._change(one)
                except CommandFailed:
                    self.tables = before
                    raise
        if "server_version" in statement:
            return "17.11 (Debian)"
        if "pg_roles" in statement:
            return "\n".join(DATABASES)
        if "pg_database" in statement:
            return "\n".join(self.tables)
        return str(self.tables[database]) if "relkind" in statement else "0"

    def _change(self, statement: str) -> None:
        if self.breaks and self.breaks in statement:
            raise CommandFailed("planted")
        names = statement.split('"')[1::2]
        if statement.startswith("CREATE DATABASE"):
            self.tables[names[0]] = 99
        elif statement.startswith("DROP DATABASE"):
            self.tables.pop(names[0], None)
        elif "RENAME TO" in statement:
            assert names[1] not in self.tables, f"{names[1]} is there already"
            self.tables[names[1]] = self.tables.pop(names[0])

    def save(self, *args: str, to: Path, timeout_s: float) -> str:
        whole = saved(LAKE) if "save" in args else b"PGDMP" + args[-1].encode()
        to.write_bytes(whole[: len(whole) - self.cut])
        self.calls.append(f"save {args[-1]}")
        return f"Warning: of pg_dump\n{hashlib.sha256(whole).hexdigest()}  -\n"

    def feed(self, *args: str, source: Path, timeout_s: float) -> str:
        self.calls.append(f"feed {args[-1] if 'load' in args else args[args.index('-d') + 1]}")
        self.awake |= {name for name, suspended in self.suspended.items() if not suspended}
        if self.breaks and self.breaks in self.calls[-1]:
            raise CommandFailed("planted")
        if "load" in args:
            with source.open("rb") as file:
                return json.dumps(objects.load(self.stores[args[-1]], args[-1], file))
        return ""


@pytest.fixture(autouse=True)
def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = [it for it in yaml.safe_load_all((K8S / "backup" / "pod.yaml").read_text()) if it]
    monkeypatch.setattr(backup_stores.manifests, "kustomize", lambda folder: pod)


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    backup.take(Cluster(), tmp_path / "taken")  # type: ignore[arg-type]
    return tmp_path / "taken"


def test_databases_are_copied_before_the_objects_that_they_name(tmp_path: Path):
    cluster = Cluster()
    done = backup.take(cluster, tmp_path / "new")  # type: ignore[arg-type]
    assert [it for it in cluster.calls if it.startswith("save")] == [f"save {it}" for it in (*DATABASES, *BUCKETS)]
    assert check_folder(tmp_path / "new")[0] == done
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert any(it.startswith("delete pod/backup") for it in cluster.calls)


@pytest.mark.parametrize("cut", [1, 700])
def test_a_cut_stream_leaves_no_folder(tmp_path: Path, cut: int):
    cluster = Cluster()
    cluster.cut = cut
    with pytest.raises(BackupBroken, match="the dump of mlflow was cut on its way"):
        backup.take(cluster, tmp_path / "new")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_written_over(taken: Path):
    with pytest.raises(Refused, match="is there already"):
        backup.take(Cluster(), taken)  # type: ignore[arg-type]


def test_a_second_one_at_the_same_time_is_refused_and_the_firsts_pod_stays(tmp_path: Path):
    cluster = Cluster()
    cluster.locked = True
    with pytest.raises(Refused, match="another backup or restore is at work"):
        backup.take(cluster, tmp_path / "new")  # type: ignore[arg-type]
    assert not [it for it in cluster.calls if it.startswith("delete")]


def test_the_default_folder_is_named_by_its_time(tmp_path: Path):
    now = dt.datetime(2026, 3, 1, 3, 17, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert backup.default_folder(tmp_path, now) == tmp_path / "backups" / "20260301T021700Z"


def test_a_restore_into_empty_stores_brings_everything(taken: Path):
    cluster = Cluster()
    restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert all(store.content == LAKE for store in cluster.stores.values())
    assert cluster.tables == dict.fromkeys(DATABASES, 99)
    assert cluster.deployments == {"mlflow": 2, "dagster-daemon": 1}


def test_databases_take_their_places_after_the_objects_are_there(taken: Path):
    cluster = Cluster()
    restore.restore(cluster, taken)  # type: ignore[arg-type]
    loads = [n for n, it in enumerate(cluster.calls) if it.startswith("feed") or " sums " in it]
    assert min(n for n, it in enumerate(cluster.calls) if "RENAME TO" in it) > max(loads)


@pytest.mark.parametrize("breaks", ["feed quarantine", "sums mlflow", 'RENAME TO "optuna"'])
def test_until_the_databases_are_in_place_every_object_that_the_old_ones_name_is_there(taken: Path, breaks: str):
    cluster = Cluster(3, {"of another time": b"1"})
    cluster.breaks = breaks
    with pytest.raises(CommandFailed, match="planted"):
        restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert all(store.content["of another time"] == b"1" for store in cluster.stores.values())
    assert cluster.tables == dict.fromkeys(DATABASES, 3)


def test_a_restore_that_failed_while_it_pruned_is_whole_when_repeated(taken: Path):
    cluster = Cluster(3, {"of another time": b"1"})
    cluster.breaks = "prune quarantine"
    with pytest.raises(CommandFailed, match=r"planted[\s\S]*restore again, with --replace"):
        restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert cluster.tables == dict.fromkeys(DATABASES, 99)
    cluster.breaks = ""
    restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert all(store.content == LAKE for store in cluster.stores.values())


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_cannot_take_its_place_leaves_all_the_old_ones(taken: Path, name: str):
    cluster = Cluster(3)
    cluster.breaks = f'RENAME TO "{name}"'
    with pytest.raises(CommandFailed, match="planted"):
        restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert cluster.tables == dict.fromkeys(DATABASES, 3)


def test_a_filled_database_stays_where_nothing_has_its_place(taken: Path):
    cluster = Cluster(3)
    del cluster.tables["mlflow"]
    cluster.breaks = 'RENAME TO "mlflow"'
    with pytest.raises(CommandFailed, match="planted"):
        restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert cluster.tables == {"dagster": 3, "feast": 3, "optuna": 3, "mlflow_restoring": 99}


def test_what_a_killed_restore_left_is_in_no_ones_way(taken: Path):
    cluster = Cluster(3)
    cluster.tables |= {"mlflow_replaced": 1, "feast_restoring": 1}
    restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert cluster.tables == dict.fromkeys(DATABASES, 99)


@pytest.mark.parametrize("breaks", ["", "feed lake"])
def test_what_comes_by_the_clock_sleeps_meanwhile_and_is_then_as_it_was(taken: Path, breaks: str):
    cluster = Cluster()
    cluster.suspended["upkeep"], cluster.breaks = True, breaks  # by a person: it stays so
    with contextlib.suppress(CommandFailed):
        restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert "feed lake" in cluster.calls and not cluster.awake
    assert cluster.suspended == {"upkeep": True, "mlflow-gc": False}


@pytest.mark.parametrize(("tables", "content"), [(3, {}), (0, {"a": b"1"})])
def test_a_target_that_holds_something_is_refused(taken: Path, tables: int, content: dict[str, bytes]):
    cluster = Cluster(tables, content)
    with pytest.raises(Refused, match=r"not empty \(.*(mlflow: 3 tables|lake: 1 objects).*add --replace"):
        restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert not [it for it in cluster.calls if "scale" in it or it.startswith("feed") or "CREATE" in it]


def test_replace_loses_what_was_there(taken: Path):
    cluster = Cluster(3, {"of another time": b"1"})
    restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert all(store.content == LAKE for store in cluster.stores.values())
    assert set(cluster.tables.values()) == {99}


def test_a_store_that_holds_something_else_afterwards_fails_before_a_database_takes_its_place(taken: Path):
    cluster = Cluster()
    lake = cluster.stores["lake"]
    lake.upload_fileobj = lambda body, bucket, key: lake.content.update({key: body.read()[1:]})  # type: ignore[method-assign]
    with pytest.raises(
        CommandFailed, match=r"the bucket lake is not what was restored: 3 objects changed[\s\S]*--replace"
    ):
        restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert set(cluster.tables.values()) == {0}


def test_a_broken_folder_is_refused_before_the_cluster_is_asked(taken: Path):
    (taken / "bucket-lake.tar").write_bytes(b"")
    cluster = Cluster()
    with pytest.raises(BackupBroken, match="bucket-lake"):
        restore.restore(cluster, taken, replace=True)  # type: ignore[arg-type]
    assert not cluster.calls


def test_a_running_job_is_waited_for_by_people(taken: Path):
    cluster = Cluster(jobs=({"metadata": {"name": "dagster-run-1"}, "status": {"active": 1}},))
    with pytest.raises(Refused, match="at work in flightdeck-platform: dagster-run-1"):
        restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert not [it for it in cluster.calls if "scale" in it or it.startswith("feed")]


@pytest.mark.parametrize("breaks", ["feed feast_restoring", "feed lake", "RENAME TO", "suspend"])
def test_what_wrote_is_started_again_when_a_restore_fails(taken: Path, breaks: str):
    cluster = Cluster()
    cluster.breaks = breaks
    with pytest.raises(CommandFailed, match="planted"):
        restore.restore(cluster, taken)  # type: ignore[arg-type]
    assert cluster.deployments == {"mlflow": 2, "dagster-daemon": 1}
    assert set(cluster.tables.values()) == {0}, "a database took its place before all was there"


def test_a_server_that_is_older_than_the_dump_is_refused():
    assert restore.too_old("16.9", "17.11")
    assert not restore.too_old("17.2", "17.11") and not restore.too_old("18.0", "17.11")


def test_only_jobs_with_a_pod_are_at_work():
    jobs = [{"metadata": {"name": name}, "status": status} for name, status in (("a", {"succeeded": 1}), ("b", {}))]
    assert restore.at_work(jobs) == []


def test_roles_are_never_made_by_a_restore():
    cluster = Cluster()
    cluster._sql = lambda _: ""  # type: ignore[method-assign]
    with pytest.raises(Refused, match="has no role mlflow, dagster, feast, optuna"):
        Postgres(cluster, "elsewhere").tables()  # type: ignore[arg-type]


def test_the_pods_image_is_the_digest_that_runs():
    assert image_of([workload("pipelines", "x"), workload("make-buckets", "y")]) == "y"
    assert image_of([workload("make-buckets", "y"), workload("mlflow", IMAGE)]) == IMAGE
    assert image_of([workload("pipelines", "x")]) is None


def test_the_pod_is_shut_and_has_what_it_says():
    documents = [it for it in yaml.safe_load_all((K8S / "backup" / "pod.yaml").read_text()) if it]
    pod = next(it for it in with_image(documents, IMAGE, "elsewhere") if it["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert (pod["metadata"]["namespace"], container["image"]) == ("elsewhere", IMAGE)
    assert pod["metadata"]["labels"]["flightdeck.dev/uses-object-store"] == "true"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] and pod["spec"]["activeDeadlineSeconds"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert set(container["resources"]) == {"requests", "limits"}


def test_a_pod_that_is_over_is_no_lock():
    cluster = Cluster()
    cluster.find = lambda *_: {"status": {"phase": "Failed"}}  # type: ignore[method-assign]
    with objects_pod(cluster, "x") as found:  # type: ignore[arg-type]
        assert isinstance(found, Objects)
    assert cluster.calls[0].startswith("delete pod backup")


def test_a_stream_that_ends_with_an_error_fails_with_its_words(tmp_path: Path):
    with (tmp_path / "out").open("wb") as file:
        assert stream(("sh", "-c", "printf ab; echo beside >&2"), stdout=file, timeout_s=10) == "beside\n"
        with pytest.raises(CommandFailed, match="ended with 3:\n  it broke"):
            stream(("sh", "-c", "printf c; echo it broke >&2; exit 3"), stdout=file, timeout_s=10)
        with pytest.raises(CommandFailed, match="did not end within 0 s"):
            stream(("sleep", "5"), stdout=file, timeout_s=0.1)
    assert (tmp_path / "out").read_bytes() == b"abc"


@pytest.mark.parametrize("command", [("backup",), ("restore", "x")])
def test_a_context_that_looks_like_production_wants_yes(command: tuple[str, ...]):
    done = CliRunner().invoke(cli.app, [*command, "--context", "eu-prod-1"])
    assert done.exit_code == 1 and "looks like production; add --yes" in done.stderr
