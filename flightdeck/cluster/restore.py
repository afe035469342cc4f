"""Bring a backup back: checked first, refused where something is, and each part in place only when it is whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flightdeck.cluster.backup_folder import BUCKETS, DATABASES, Backup, Sums, check_folder, differences
from flightdeck.cluster.backup_stores import Objects, Postgres, objects_pod, require_inside
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.names import PLATFORM
from flightdeck.cluster.target import Refused

WRITERS = ("mlflow", "dagster-daemon", "dagster-webserver", "dagster-code")  # Deployments
CRON = ("upkeep", "mlflow-gc")  # CronJobs
GONE_S, READY_S = 120.0, 300

Tell = Callable[[str], None]


def refusal(tables: Mapping[str, int], objects: Mapping[str, int], *, replace: bool) -> str | None:
    """Why a restore into stores that hold this would be a mistake; None when it would not."""
    held = [f"database {name}: {count:,} tables" for name, count in tables.items() if count]
    held += [f"bucket {name}: {count:,} objects" for name, count in objects.items() if count]
    if not held or replace:
        return None
    return f"the target is not empty ({'; '.join(held)}); nothing was touched. To lose that, add --replace"


def too_old(server: str, dumped: str) -> bool:
    """Whether a server is of an earlier major version than the one that the dump is from."""
    return int(server.partition(".")[0]) < int(dumped.partition(".")[0])


def at_work(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the Jobs that have a running pod: pipelines' runs, migrations, upkeep."""
    return sorted(it["metadata"]["name"] for it in jobs if it.get("status", {}).get("active"))


def restore(
    kubectl: Kubectl, folder: Path, *, namespace: str = PLATFORM, replace: bool = False, tell: Tell = lambda _: None
) -> Backup:
    """Make the databases and buckets of a namespace what a backup says.

    Databases are filled beside the old ones, buckets next, and then the databases take their places together: until
    then a failure leaves the old databases, and the objects of both (the backup's, where both have a key). What only
    the old databases named is deleted last.

    Args:
        replace: also where something is, which is lost.
    Raises:
        BackupBroken: a check of the folder fails; nothing was touched.
        Refused: the target holds something, a Job is at work, the server is too old; nothing was touched.
        CommandFailed: a store failed on the way; restore again, with `replace`.
    """
    tell("check the folder")
    backup, sums = check_folder(folder)
    require_inside(kubectl, namespace)
    postgres = Postgres(kubectl, namespace)
    version = postgres.version()
    if too_old(version, backup.postgres):
        raise Refused(f"Postgres is {version}, the backup is of {backup.postgres}; nothing was touched")
    with objects_pod(kubectl, namespace) as objects:
        words = refusal(postgres.tables(), objects.count(BUCKETS), replace=replace)
        if words:
            raise Refused(words)
        with _without_writers(kubectl, namespace, tell):
            _bring(postgres, objects, backup, folder, sums=sums, tell=tell)
    return backup


def _bring(
    postgres: Postgres, objects: Objects, backup: Backup, folder: Path, *, sums: Mapping[str, Sums], tell: Tell
) -> None:
    try:
        for name in DATABASES:
            tell(f"database {name}")
            postgres.fill_beside(name, folder / backup.databases[name].name)
        for name in BUCKETS:
            put = objects.load(name, folder / backup.buckets[name].name)
            tell(f"bucket {name}: {put:,} objects; read it anew")
            found = {key: it for key, it in objects.sums(name).items() if key in sums[name]}  # others are pruned below
            if differ := differences(sums[name], found):
                raise CommandFailed(f"the bucket {name} is not what was restored: {differ}; does something else write?")
        postgres.put_in_place(DATABASES)
        for name in BUCKETS:  # not earlier: the old databases name them
            tell(f"bucket {name}: {objects.prune(name, sums[name]):,} other objects deleted")
    except CommandFailed as error:
        raise CommandFailed(
            f"{error}\nthe restore is not whole; restore again, with --replace", error.stderr
        ) from error
    finally:
        postgres.forget_beside()


@contextlib.contextmanager
def _without_writers(kubectl: Kubectl, namespace: str, tell: Tell) -> Iterator[None]:
    """Nothing writes to the stores while the block runs; afterwards everything is as it was, also when it fails.

    Raises:
        Refused: a Job is at work.
        CommandFailed: a pod does not end, or does not come back.
    """
    _refuse_jobs(kubectl, namespace)
    deployments = {
        name: int(found["spec"].get("replicas", 1))
        for name in WRITERS
        if (found := kubectl.find("deployment", name, namespace))
    }
    crons = {
        name: bool(found["spec"].get("suspend")) for name in CRON if (found := kubectl.find("cronjob", name, namespace))
    }
    if deployments:
        told = " ".join(f"{name}={replicas}" for name, replicas in deployments.items())
        tell(f"stop what writes; replicas were {told}")
    with contextlib.ExitStack() as back:  # each is tried, whatever becomes of the others
        for name, suspended in crons.items():
            back.callback(_suspend, kubectl, namespace, name, suspended)
            _suspend(kubectl, namespace, name, True)
        for name, replicas in deployments.items():
            back.callback(_scale, kubectl, namespace, name, replicas)
            _scale(kubectl, namespace, name, 0)
        _wait_gone(kubectl, namespace, list(deployments))
        _refuse_jobs(kubectl, namespace)  # the daemon may have started one meanwhile
        yield
    for name in deployments:
        tell(f"wait for {name}")
        kubectl(
            "-n", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={READY_S}s", timeout_s=READY_S + 10
        )


def _refuse_jobs(kubectl: Kubectl, namespace: str) -> None:
    busy = at_work(kubectl.get("jobs", "-n", namespace)["items"])
    if busy:
        raise Refused(f"at work in {namespace}: {', '.join(busy)}; wait for them or stop them. No store was touched")


def _scale(kubectl: Kubectl, namespace: str, name: str, replicas: int) -> None:
    kubectl("-n", namespace, "scale", f"deployment/{name}", f"--replicas={replicas}")


def _suspend(kubectl: Kubectl, namespace: str, name: str, yes: bool) -> None:
    kubectl("-n", namespace, "patch", "cronjob", name, "-p", f'{{"spec": {{"suspend": {str(yes).lower()}}}}}')


def _wait_gone(kubectl: Kubectl, namespace: str, names: Sequence[str]) -> None:
    deadline = time.monotonic() + GONE_S
    while names:
        pods = kubectl.get("pods", "-n", namespace, "-l", f"app.kubernetes.io/name in ({', '.join(names)})")["items"]
        if not pods:
            return
        if time.monotonic() > deadline:
            left = ", ".join(it["metadata"]["name"] for it in pods)
            raise CommandFailed(f"still there after {GONE_S:.0f} s: {left}; no store was touched")
        time.sleep(1)


def next_steps(namespace: str) -> list[str]:
    """What a restore does not do by itself, in commands."""
    in_code = f"kubectl -n {namespace} exec deployment/dagster-code -- flightdeck"
    migrations = "'flightdeck.dev/job in (mlflow-migrate, dagster-migrate)'"
    return [
        f"{in_code} clock show",
        f"{in_code} features materialize --full --until TIME  # the clock's: the online store is in no backup",
        f"kubectl -n {namespace} delete jobs -l {migrations}  # so that a backup of older code is migrated",
        "make up  # applies what is missing, and serves what is registered",
    ]
