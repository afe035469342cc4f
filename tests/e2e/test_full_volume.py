"""Volumes fill up: a write into a full object store is refused whole, a predictor with a full volume is replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pyarrow.fs
import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import K8S, SERVING
from flightdeck.contracts.layout import StateLayout
from pipelines import stores
from pipelines.data.files import Files
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake, LakeError
from pipelines.use_case import load_use_case
from tests.contract.k8s.conftest import render
from tests.e2e.conftest import first_failure, predictor_pods, until_ready

pytestmark = pytest.mark.exhaustive
NAMESPACE, BUCKETS, TABLE = "full-volume", ("lake", "quarantine", "filler"), "flights"
USE_CASE = load_use_case()
KEY = USE_CASE.table(TABLE).key
ROOM_MIB = 24
SIZES = (1 << 20, 1 << 16, 1 << 12)  # of what fills the store, in bytes
FULL = "it is full: make room there"
EVICTED_WITHIN_S = 180.0  # the kubelet measures volumes once a minute
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class State:
    """What a reader finds: version, rows, and files with rows in the folder, whether a commit names them or not."""

    version: int
    rows: pl.DataFrame
    files: int


class Store:
    """An object store of its own on a small volume in memory, which is really full when it is full."""

    def __init__(self, kubectl: Kubectl, patch: pytest.MonkeyPatch, layout: StateLayout) -> None:
        self._kubectl, self._patch, self._layout = kubectl, patch, layout
        self._way = contextlib.ExitStack()
        self._enter()

    def _enter(self) -> None:
        self.close()
        at = self._way.enter_context(forward(self._kubectl, NAMESPACE, "object-store", 7070))
        self._patch.setenv("AWS_ENDPOINT_URL", at)

    def close(self) -> None:
        self._way.close()

    def do(self, what: Callable[[], T]) -> T:
        """Run it; again when the port-forward broke, as it does when a server hangs up in mid-request."""
        for _ in range(4):
            try:
                return what()
            except (LakeError, OSError) as error:
                if "is AWS_ENDPOINT_URL right" not in str(error):
                    raise
                self._enter()
        return what()

    @property
    def lake(self) -> Lake:
        """As the environment names it now."""
        return stores.lake(self._layout)

    def ingest(self, first: dt.date, last: dt.date) -> int:
        """Days of the real source, each a commit; returns the rows written.

        Raises:
            LakeError: as the lake says it.
        """

        def once() -> int:
            done = ingest_days(
                USE_CASE, self.lake, stores.quarantine(self._layout), first, last, tables=[TABLE], days_per_commit=1
            )
            return sum(it.written for it in done)

        return self.do(once)

    def state(self) -> State:
        def once() -> State:
            rows = pl.DataFrame(self.lake.read(TABLE)).sort(*KEY, "ingested_at")
            names = Files(self.lake.root).below(TABLE)
            return State(self.lake.version(TABLE), rows, sum(it.endswith(".parquet") for it in names))

        return self.do(once)

    def fill(self) -> list[str]:
        """Until nothing goes in any more; returns the names of the fillers, small ones last."""
        names: list[str] = []
        for size in SIZES:
            while self.put(f"{size}-{len(names)}", size):
                names.append(f"{size}-{len(names)}")
            if size == SIZES[-2]:
                for _ in range(3):  # room for many small ones, to be freed one by one
                    self.free(names.pop())
        return names

    def put(self, name: str, size: int) -> bool:
        """Whether a filler still goes in."""
        content = secrets.token_bytes(size)
        try:
            self.do(lambda: Files("s3://filler").write(name, content))
        except OSError as error:
            assert FULL in str(error), f"a full store is not told as such: {error}"
            return False
        return True

    def free(self, name: str) -> None:
        self.do(lambda: Files("s3://filler").delete(name))


@pytest.fixture
def store(kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    user, password = "full-volume", secrets.token_hex(16)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", user), ("AWS_SECRET_ACCESS_KEY", password),
        (stores.LAKE_ENV, "s3://lake"), (stores.QUARANTINE_ENV, "s3://quarantine"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        kubectl("apply", "-f", "-", stdin=json.dumps(documents(user, password)))
        kubectl("rollout", "status", "statefulset/object-store", "-n", NAMESPACE, "--timeout=120s", timeout_s=130)
        with forward(kubectl, NAMESPACE, "object-store", 7070) as at:
            made = pyarrow.fs.S3FileSystem(
                access_key=user, secret_key=password, region="us-east-1", scheme="http",
                endpoint_override=at.removeprefix("http://"), allow_bucket_creation=True,
            )  # fmt: skip
            for bucket in BUCKETS:
                made.create_dir(bucket)
        found = Store(kubectl, monkeypatch, StateLayout(tmp_path))
        yield found
        found.close()
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=180)


def documents(user: str, password: str) -> dict[str, Any]:
    """The component's object store, its volume a small one in memory."""
    kinds = ("ServiceAccount", "Service", "StatefulSet")
    component = [it for it in render(K8S / "components" / "object-store") if it["kind"] in kinds]
    items = [json.loads(json.dumps(it)) for it in component if it["metadata"]["name"] == "object-store"]
    for it in items:
        it["metadata"]["namespace"] = NAMESPACE
        if it["kind"] == "StatefulSet":
            (claim,) = it["spec"].pop("volumeClaimTemplates")
            volume = {"name": claim["metadata"]["name"], "emptyDir": {"medium": "Memory", "sizeLimit": f"{ROOM_MIB}Mi"}}
            it["spec"]["template"]["spec"]["volumes"].append(volume)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "object-store", "namespace": NAMESPACE},
        "stringData": {"access-key": user, "secret-key": password},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, secret, *items]}


def test_a_write_into_a_full_object_store_is_refused_whole_and_succeeds_once_there_is_room(
    store: Store, note: Callable[..., None]
):
    first = USE_CASE.first_day
    day = first + dt.timedelta(days=3)
    store.ingest(first, day - dt.timedelta(days=1))
    before, fillers = store.state(), store.fill()
    began, refused, cut, written = time.monotonic(), 0, 0, 0
    files = before.files
    while not written:  # a little more room for each try, so that it fails at every point at which it can
        try:
            written = store.ingest(day, day)
        except LakeError as error:
            assert "nothing was written" in str(error) and FULL in str(error), error
            refused += 1
            found = store.state()
            assert found.version == before.version, f"try {refused} was refused and made version {found.version}"
            assert found.rows.equals(before.rows), f"after try {refused} the table does not read as before"
            cut, files = cut + (found.files > files), found.files  # the rows went in, the commit did not
            assert fillers, "everything was freed, and the write is still refused"
            store.free(fillers.pop())
    took = time.monotonic() - began
    assert refused, "the store was never full"
    after = store.state().rows
    assert after.height == before.rows.height + written, (before.rows.height, written, after.height)
    assert not after.select(KEY).is_duplicated().any(), "a row is there twice"
    assert after.filter(pl.col("day") < day).equals(before.rows), "an earlier row was lost or changed"
    assert store.ingest(day, day) == 0, "the same day once more wrote rows"
    store.do(lambda: store.lake.vacuum(TABLE, keep_versions=(), keep_days=0, dry_run=False))
    tidy = store.state()
    assert tidy.files == before.files + 1, f"{tidy.files} files with rows after a vacuum, of {before.files + 1} days"
    assert tidy.rows.equals(after)
    words = f"refused {refused} times, {cut} of them between rows and commit; then {written:,} rows, none twice"
    note("a full object store (one of its own)", [], took, words)


@pytest.mark.usefixtures("settled")
def test_a_predictor_whose_volume_is_full_is_evicted_and_replaced(
    kubectl: Kubectl, model: str, load: Callable[..., Load], note: Callable[..., None]
):
    selector = f"flightdeck.dev/model={model}"
    name = predictor_pods(kubectl, model)[0]
    users = load()
    users.more(80)
    began = time.monotonic()
    try:
        kubectl("exec", name, "-n", SERVING, "--", "python", "-c", FILL)
        pod = until_evicted(kubectl, name)
        until_ready(kubectl)
        took = time.monotonic() - began
        users.more(80)
    finally:  # what is left of an evicted pod is its name and the reason
        kubectl("delete", "pod", "-n", SERVING, "-l", selector, "--field-selector=status.phase=Failed")
        with contextlib.suppress(CommandFailed):  # gone, when all went well
            kubectl("exec", name, "-n", SERVING, "--", "rm", "-f", "/tmp/filler")
    note("a predictor's volume filled beyond its limit", users.answers, took, pod["status"]["message"].strip()[:120])
    assert "exceeds" in pod["status"]["message"], pod["status"]["message"]
    assert not users.failed, first_failure(users.answers)


FILL = """
with open("/tmp/filler", "wb") as file:
    for _ in range(80):
        file.write(bytes(1 << 20))
"""


def until_evicted(kubectl: Kubectl, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + EVICTED_WITHIN_S
    while True:
        pod = kubectl.get("pod", name, "-n", SERVING)
        if pod["status"].get("reason") == "Evicted":
            return pod
        assert time.monotonic() < deadline, f"{name} was not evicted within {EVICTED_WITHIN_S:.0f} s: {pod['status']}"
        time.sleep(1)
