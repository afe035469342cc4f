"""Adapters: Postgres by `kubectl exec` into its pod, the buckets by a pod that lives as long as a block."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flightdeck.cluster import manifests
from flightdeck.cluster.backup_folder import DATABASES, Sums
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.names import K8S, PLATFORM
from flightdeck.cluster.readiness import explain, troubles_of
from flightdeck.cluster.target import Refused

STREAM_S = 3600.0  # of one database or bucket
POD, START_S = "backup", 120
FIELD_MANAGER = "flightdeck-backup"
BESIDE = "_restoring"  # a database that is being filled, until it takes the other's place
REPLACED = "_replaced"  # the other, until it is dropped
# What is dumped is summed where it cannot be cut yet. The pipe is bash's own: it may be opened again.
DUMP = """set -o pipefail
exec 3> >(sha256sum >&2); sum=$!
pg_dump -U postgres --format=custom -- "$1" | tee /dev/fd/3; code=$?
exec 3>&-; wait $sum; exit $code"""
RELATIONS = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND "
)
TABLES = f"{RELATIONS} c.relkind IN ('r', 'p')"
NAMES = "SELECT datname FROM pg_database"
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname"


@dataclasses.dataclass(frozen=True)
class Postgres:
    """The server that the component `postgres` runs in a namespace."""

    kubectl: Kubectl
    namespace: str

    def version(self) -> str:
        """Such as `17.11`.

        Raises:
            CommandFailed: it does not answer.
        """
        return self._ask("postgres", "SHOW server_version").split()[0]

    def save(self, database: str, to: Path) -> str:
        """Dump one to a file; returns the sha256 that the pod has counted.

        Raises:
            CommandFailed: pg_dump or the connection failed.
        """
        said = self.kubectl.save(*self._exec("bash", "-c", DUMP, "bash", database), to=to, timeout_s=STREAM_S)
        found = re.search(r"^([0-9a-f]{64})  -$", said, re.MULTILINE)
        if found is None:
            raise CommandFailed(f"the dump of {database} was cut: its pod told no sha256; it said: {said.strip()}")
        return found[1]

    def tables(self) -> dict[str, int]:
        """Tables of each of our databases; one that is not there has none.

        Raises:
            Refused: a role is not there: passwords belong to roles, so they are made by the component, not by us.
        """
        roles, there = self._names("SELECT rolname FROM pg_roles"), self._names(NAMES)
        if missing := [name for name in DATABASES if name not in roles]:
            raise Refused(
                f"Postgres in {self.namespace} has no role {', '.join(missing)}; the component's first start makes "
                "them: deploy it first. Nothing was touched"
            )
        return {name: int(self._ask(name, TABLES)) if name in there else 0 for name in DATABASES}

    def fill_beside(self, database: str, source: Path) -> None:
        """Restore a dump into a new database beside the one of that name, all of it owned by the role of that name.

        Raises:
            CommandFailed: pg_restore refuses; the database itself is as it was.
        """
        beside = f"{database}{BESIDE}"
        self._do(
            _drop(beside),
            f'CREATE DATABASE "{beside}" OWNER "{database}"',
            f'REVOKE CONNECT, TEMPORARY ON DATABASE "{beside}" FROM PUBLIC',  # as make-databases.sh
        )
        argv = ("pg_restore", "-U", "postgres", "-d", beside, "--no-owner", "--no-privileges", f"--role={database}")
        self.kubectl.feed(*self._exec(*argv, "--exit-on-error", stdin=True), source=source, timeout_s=STREAM_S)
        strange = self._ask(beside, f"{RELATIONS} pg_get_userbyid(c.relowner) <> '{database}'")
        if strange != "0":
            raise CommandFailed(f"{strange} relations of {beside} are not owned by {database}; {database} is as it was")

    def put_in_place(self, databases: Sequence[str]) -> None:
        """Let those that were filled take the others' places, all or none; whoever is connected is cut off.

        The others are renamed away and dropped only when the new ones have their names: whatever fails, each database
        is there, as it was or as it was filled.

        Raises:
            CommandFailed: Postgres refuses; when it is to drop the others, the new ones are in place.
        """
        there = self._names(NAMES)
        old = [name for name in databases if name in there]
        if old:
            self._do(*(_drop(f"{name}{REPLACED}") for name in old))  # of a restore that was killed before it did
        users = ", ".join(f"'{name}'" for name in databases)
        swap = [f"{CUT_OFF} IN ({users})"]  # a database in use gets no other name
        swap += [f'ALTER DATABASE "{name}" RENAME TO "{name}{REPLACED}"' for name in old]
        swap += [f'ALTER DATABASE "{name}{BESIDE}" RENAME TO "{name}"' for name in databases]
        self._do("; ".join(swap))  # as one -c it is one transaction: Postgres undoes the first when a later one fails
        self._do(*(_drop(f"{name}{REPLACED}") for name in databases))

    def forget_beside(self) -> None:
        """Drop what was filled and did not get its place, but where nothing has that place: it may be the only copy."""
        with contextlib.suppress(CommandFailed):
            for name in sorted(self._names(NAMES).intersection(DATABASES)):
                self._do(_drop(f"{name}{BESIDE}"))

    def _names(self, query: str) -> set[str]:
        return set(self._ask("postgres", query).splitlines())

    def _do(self, *statements: str) -> None:
        self._ask("postgres", *statements)

    def _ask(self, database: str, *statements: str) -> str:
        argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]
        for statement in statements:
            argv += ["-c", statement]
        return self.kubectl(*self._exec(*argv), timeout_s=300).strip()

    def _exec(self, *argv: str, stdin: bool = False) -> tuple[str, ...]:
        way = ("-i",) if stdin else ()
        return ("-n", self.namespace, "exec", *way, "statefulset/postgres", "-c", "postgres", "--", *argv)


def _drop(database: str) -> str:
    return f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'


@dataclasses.dataclass(frozen=True)
class Objects:
    """The buckets, through the pod that `objects_pod` holds."""

    kubectl: Kubectl
    namespace: str

    def save(self, bucket: str, to: Path) -> None:
        """Its objects as a tar; whether that is whole, `check_tar` says.

        Raises:
            CommandFailed: the store or the connection failed.
        """
        self.kubectl.save(*self._exec("save", bucket), to=to, timeout_s=STREAM_S)

    def load(self, bucket: str, source: Path) -> int:
        """Put what a tar holds; returns how many objects. Others stay: `prune` deletes them.

        Raises:
            CommandFailed: the store or the connection failed, or not all of the tar came through; restore again.
        """
        said = self.kubectl.feed(*self._exec("load", bucket, stdin=True), source=source, timeout_s=STREAM_S)
        return int(json.loads(said)["put"])

    def prune(self, bucket: str, keep: Collection[str]) -> int:
        """Delete every object that is not in `keep`; returns how many. It may be repeated.

        Raises:
            CommandFailed: the store or the connection failed; some may be deleted.
        """
        argv = self._exec("prune", bucket, stdin=True)
        return int(json.loads(self.kubectl(*argv, stdin=json.dumps(sorted(keep)), timeout_s=STREAM_S))["deleted"])

    def count(self, buckets: Sequence[str]) -> dict[str, int]:
        """Objects of each bucket.

        Raises:
            CommandFailed: the store does not answer, or has no such bucket.
        """
        found: dict[str, int] = json.loads(self.kubectl(*self._exec("count", *buckets), timeout_s=600))
        return found

    def sums(self, bucket: str) -> Sums:
        """What every object holds now, read anew.

        Raises:
            CommandFailed: the store or the connection failed.
        """
        said = json.loads(self.kubectl(*self._exec("sums", bucket), timeout_s=STREAM_S))
        return {key: (int(size), str(sha)) for key, (size, sha) in said.items()}

    def _exec(self, *argv: str, stdin: bool = False) -> tuple[str, ...]:
        way = ("-i",) if stdin else ()
        script = ("python", "/scripts/objects.py", *argv)
        return ("-n", self.namespace, "exec", *way, f"pod/{POD}", "-c", POD, "--", *script)


def require_inside(kubectl: Kubectl, namespace: str) -> None:
    """Both stores are the components' own.

    Raises:
        Refused: one is not in the namespace.
    """
    for name in ("postgres", "object-store"):
        if kubectl.find("statefulset", name, namespace) is None:
            raise Refused(
                f"{namespace} has no StatefulSet {name}: deploy first, or, when it is a managed store, use the backups "
                "of whoever manages it. Nothing was touched"
            )


@contextlib.contextmanager
def objects_pod(kubectl: Kubectl, namespace: str) -> Iterator[Objects]:
    """The pod, started and taken away again. It is also the lock: one backup or restore at a time.

    Raises:
        Refused: another one is at work, or the cluster runs no image that the pod could have.
        CommandFailed: it does not start, with the reason.
    """
    documents = with_image(manifests.kustomize(K8S / "backup"), _image(kubectl, namespace), namespace)
    there = kubectl.find("pod", POD, namespace)
    if there and there.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        kubectl("delete", "pod", POD, "-n", namespace, "--ignore-not-found")
    kubectl(  # harmless beside another one at work: it has the same
        "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-",
        stdin=manifests.as_yaml([it for it in documents if it["kind"] != "Pod"]),
    )  # fmt: skip
    try:
        kubectl("create", "-f", "-", stdin=manifests.as_yaml([it for it in documents if it["kind"] == "Pod"]))
    except CommandFailed as error:
        if "AlreadyExists" not in error.stderr:
            raise
        raise Refused(
            f"another backup or restore is at work in {namespace}; nothing was touched. "
            f"When it is dead: kubectl -n {namespace} delete pod {POD}"
        ) from error
    try:
        _wait_started(kubectl, namespace)
        yield Objects(kubectl, namespace)
    finally:
        for document in documents:
            with contextlib.suppress(CommandFailed):
                name = f"{document['kind'].lower()}/{document['metadata']['name']}"
                kubectl("delete", name, "-n", namespace, "--ignore-not-found", "--timeout=60s")


def with_image(documents: Sequence[dict[str, Any]], image: str, namespace: str) -> list[dict[str, Any]]:
    """The documents of k8s/backup in a namespace, the pod with its image."""
    for document in documents:
        document["metadata"]["namespace"] = namespace
        if document["kind"] == "Pod":
            document["spec"]["containers"][0]["image"] = image
    return list(documents)


def _image(kubectl: Kubectl, namespace: str) -> str:
    for place in dict.fromkeys((namespace, PLATFORM)):
        if image := image_of(kubectl.get("deployments,jobs", "-n", place)["items"]):
            return image
    raise Refused(
        f"neither {namespace} nor {PLATFORM} runs MLflow or make-buckets, whose image is needed; deploy first"
    )


def image_of(workloads: Sequence[Mapping[str, Any]]) -> str | None:
    """The image of MLflow, or of the Job that makes the buckets, as they run; None when neither is there."""
    found = {
        container["name"]: str(container["image"])
        for it in workloads
        for container in it["spec"]["template"]["spec"]["containers"]
    }
    return found.get("mlflow") or found.get("make-buckets")


def _wait_started(kubectl: Kubectl, namespace: str) -> None:
    try:
        kubectl(
            "wait", f"pod/{POD}", "-n", namespace, "--for=condition=Ready", f"--timeout={START_S}s",
            timeout_s=START_S + 10,
        )  # fmt: skip
    except CommandFailed as error:
        words = explain(kubectl, troubles_of([kubectl.get("pod", POD, "-n", namespace)]))
        raise CommandFailed(f"the pod {POD} in {namespace} did not start within {START_S} s\n{words}") from error
