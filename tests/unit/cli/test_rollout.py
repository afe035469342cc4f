"""`flightdeck rollout` on a state folder: a controller is played by writing its files."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flightdeck.cli import rollout as cli
from flightdeck.contracts.layout import STATE_ENV
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import load_rollout, to_yaml
from flightdeck.lab.rollout.store import Status, Store
from services.rollout_operator.plan import OrderKind, Phase, State, Transition
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict

SPEC = """
apiVersion: flightdeck.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  replicas: 3
  plan:
    - shadow: {minPairs: 500, deadline: 10m}
    - canary: {weight: 10, deadline: 10m}
  judge: {margins: {errorRate: 0.01, labelFlips: 0.05}}
  onDeadline: abort
  onNoData: hold
  onNewRelease: queueNewest
"""
RELEASE = """
  release: {image: 1a2b3c4d, model: {name: late, version: "VERSION", sha256: "SHA"}, featureService: late_v1}
"""


def release(version: int) -> Release:
    model = ModelRef(name="late", version=str(version), sha256=f"{version:064x}")
    return Release(image="1a2b3c4d", model=model, feature_service="late_v1")


def spec(version: int | None) -> str:
    return SPEC + RELEASE.replace("VERSION", str(version)).replace("SHA", f"{version:064x}") if version else SPEC


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(STATE_ENV, str(tmp_path / "state"))
    return Store(tmp_path / "state" / "rollouts")


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.app, list(args))


def apply(tmp_path: Path, version: int | None) -> Result:
    path = tmp_path / "late.rollout.yaml"
    path.write_text(spec(version))
    return run("apply", str(path))


METRIC = MetricVerdict(
    "labelFlips", Verdict.WATCHING, True, 0.05, 0.02, 0.0, 0.06, 480, "labelFlips 2.0 % of 480 pairs, margin 5.0 %"
)
JUDGEMENT = Judgement(Verdict.WATCHING, "labelFlips is not decided", (METRIC,))


def told(store: Store, phase: Phase, step: int | None = None, *, age_s: float = 0.0, **changes: Any) -> Status:
    """What a controller has written `age_s` ago: version 2 against champion 1."""
    now_s = time.time()
    values = {"champion": release(1), "candidate": release(2), "reason": "3 of 3 replicas ready after 12s"} | changes
    state = State(phase, now_s - 30.0, now_s - 60.0, step=step, **values)
    status = Status(
        "late", state, JUDGEMENT, to_yaml(store.wanted("late")), weight=10 if phase is Phase.CANARY else 0,
        mirrored=phase is Phase.SHADOW, champion_ready=3, candidate_ready=2, replicas=3, updated_at_s=now_s - age_s,
        releases=[release(1), release(5)],
    )  # fmt: skip
    store.write_status(status)
    return status


def test_apply_sets_the_wanted_state_and_says_that_nobody_acts_on_it(store: Store, tmp_path: Path):
    said = apply(tmp_path, 1)
    assert said.exit_code == 0
    assert f"rollout late created: {release(1).short}" in said.stdout
    assert "no controller is running; it waits for one: start one with `flightdeck lab up`" in said.stdout
    assert "unchanged" in apply(tmp_path, 1).stdout
    assert "configured" in apply(tmp_path, 2).stdout
    assert store.wanted("late").spec.release == release(2)
    assert "@" in store.applied("late")[0].who


def test_a_file_without_a_release_keeps_the_one_that_is_wanted(store: Store, tmp_path: Path):
    missing = apply(tmp_path, None)
    assert missing.exit_code == 1
    assert "spec.release: Field required" in missing.stderr
    apply(tmp_path, 2)
    assert apply(tmp_path, None).exit_code == 0
    assert store.wanted("late").spec.release == release(2)


def test_a_file_that_breaks_the_schema_changes_nothing(store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    path = tmp_path / "bad.yaml"
    path.write_text(spec(2).replace("replicas: 3", "replicas: 0"))
    said = run("apply", str(path))
    assert said.exit_code == 1
    assert "spec.replicas" in said.stderr
    assert store.wanted("late").spec.release == release(1)


def test_a_second_rollout_is_refused_since_there_is_one_gateway(store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    other = tmp_path / "delay.rollout.yaml"
    other.write_text(spec(1).replace("{name: late}", "{name: delay}"))
    refused = run("apply", str(other))
    assert (refused.exit_code, store.names()) == (1, ["late"])
    assert "the rollout late has it" in refused.output


def test_a_release_by_image_keeps_model_plan_and_judge(store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    before = store.wanted("late").spec
    assert run("release", "late", "--image", "1a2b3c4d+fault-unit").exit_code == 0
    after = store.wanted("late").spec
    assert (after.release.image, after.release.model) == ("1a2b3c4d+fault-unit", before.release.model)
    assert (after.plan, after.judge) == (before.plan, before.judge)


@pytest.mark.parametrize(
    "command", ["status", "watch", "history", "promote", "abort", "pause", "resume", "undo", "retry"]
)
def test_an_unknown_name_is_answered_with_the_known_ones(command: str, store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    said = run(command, "early")
    assert said.exit_code == 1
    assert "there are: late" in said.stderr


def test_status_tells_it_in_sentences_with_figures(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1)
    said = run("status", "late")
    assert said.exit_code == 0
    for words in (
        "canary 10 %, step 2 of 2, 30s of at most 10m",
        f"{release(1).short} [{release(1).id}], 3 of 3 replicas ready, answers 90 % of the users",
        f"{release(2).short} [{release(2).id}], 2 of 3 replicas ready, answers 10 % of the users",
        "watching: labelFlips is not decided",
        "3 of 3 replicas ready after 12s",
        METRIC.sentence,
    ):
        assert words in said.stdout
    assert "no controller" not in said.stdout


def test_status_says_when_no_controller_is_running(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    assert "no controller has looked at it yet" in run("status", "late").stdout
    told(store, Phase.SHADOW, 0, age_s=125.0)
    assert "no controller is running: what is shown is 2m5s old" in run("status", "late").stdout


def test_status_names_what_holds_waits_and_was_refused(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1, holding="no data", queued=release(3))
    run("abort", "late", "--note", "odd")
    said = run("status").stdout
    assert "until a verdict or an order: `flightdeck rollout promote late`" in said
    assert f"{release(3).short} begins after this rollout" in said
    assert "1, abort by " in said
    assert ": odd: not yet obeyed" in said
    told(store, Phase.ABORTED, candidate=None, refused=release(2))
    assert "`flightdeck rollout retry late` tries it again" in run("status").stdout


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DONE, Phase.ABORTED])
def test_status_shows_no_verdict_of_an_earlier_rollout(phase: Phase, store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, phase, candidate=release(2) if phase is Phase.PENDING else None)
    assert JUDGEMENT.reason not in run("status").stdout
    told(store, Phase.ABORTED, candidate=None, reason=f"aborted in canary 10 %: {JUDGEMENT.reason}")
    assert METRIC.sentence in run("status").stdout


def test_status_for_programs_is_json(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1)
    found = json.loads(run("status", "late", "--json").stdout)
    assert (found["state"]["phase"], found["weight"], found["controller_running"]) == ("canary", 10, True)
    assert found["wanted"]["model"]["version"] == "2"
    assert [item["name"] for item in json.loads(run("status", "--json").stdout)] == ["late"]


def test_several_rollouts_get_a_line_each(store: Store, tmp_path: Path):
    assert "no rollout in" in run("status").stdout
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1)
    path = tmp_path / "minutes.yaml"
    path.write_text(spec(1).replace("{name: late}", "{name: minutes}", 1))
    store.apply(load_rollout(path), "test")  # as somebody may who writes files; the command refuses a second one
    lines = run("status").stdout.splitlines()
    assert "canary 10 %, step 2 of 2" in lines[1]
    assert "watching" in lines[1]
    assert "no controller" in lines[2]


@pytest.mark.parametrize("kind", [*OrderKind])
def test_an_order_is_kept_with_who_and_why(kind: OrderKind, store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1)
    said = run(str(kind), "late", "--note", "as agreed")
    assert said.exit_code == 0
    assert "the controller acts within a second" in said.stdout
    [(number, order)] = store.orders_after("late", 0)
    assert (number, order.kind, order.note) == (1, kind, "as agreed")
    assert "@" in order.who


def test_undo_wants_the_release_before_again(store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    told(store, Phase.DONE, candidate=None)
    said = run("undo", "late", "--note", "complaints")
    assert said.exit_code == 0
    assert store.wanted("late").spec.release == release(5)
    assert store.applied("late")[-1].note == "undo: complaints"
    run("undo", "late", "--to", release(1).id)
    assert store.wanted("late").spec.release == release(1)


def test_undo_of_a_running_rollout_wants_the_champions_release(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    told(store, Phase.CANARY, 1)
    run("undo", "late")
    assert store.wanted("late").spec.release == release(1)


def test_undo_without_such_a_release_names_those_that_there_were(store: Store, tmp_path: Path):
    apply(tmp_path, 1)
    said = run("undo", "late")
    assert said.exit_code == 1
    assert "no other release" in said.stderr
    told(store, Phase.DONE, candidate=None)
    said = run("undo", "late", "--to", "zz")
    assert said.exit_code == 1
    assert release(5).id in said.stderr


def test_history_tells_who_did_what_in_order(store: Store, tmp_path: Path):
    apply(tmp_path, 2)
    ids = (release(1).id, release(2).id)
    later = time.time() + 5
    store.record("late", [
        Transition(1, later, Phase.DONE, Phase.PENDING, None, *ids, "candidate late v2", "controller"),
        Transition(2, later + 1, Phase.PENDING, Phase.ABORTING, None, *ids, "abort by ann@desk", "ann@desk"),
        Transition(3, later + 2, Phase.ABORTING, Phase.ABORTING, None, *ids, "pause by bob: no effect", "bob"),
    ])  # fmt: skip
    lines = run("history", "late").stdout.splitlines()[1:]
    for line, words in zip(lines, ["created", "done → pending", "pending → aborting", "aborting  "], strict=True):
        assert words in line
    assert [row["who"] for row in json.loads(run("history", "late", "--json").stdout)][1:] == [
        "controller",
        "ann@desk",
        "bob",
    ]


@pytest.mark.parametrize(("phase", "code"), [(Phase.DONE, 0), (Phase.ABORTED, 1)])
def test_watch_follows_to_the_end_and_its_exit_code_says_which(
    phase: Phase, code: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cli, "POLL_S", 0.02)
    apply(tmp_path, 2)
    told(store, Phase.DONE, candidate=None)  # of the release before: not yet the end of this one

    def controller() -> None:
        time.sleep(0.2)
        told(store, Phase.CANARY, 1)
        time.sleep(0.2)
        entry = Transition(1, time.time(), Phase.CANARY, phase, None, "a", "b", "as it was decided", "controller")
        store.record("late", [entry])
        end = {"champion": release(2)} if phase is Phase.DONE else {"refused": release(2)}
        told(store, phase, candidate=None, **end)

    player = threading.Thread(target=controller)
    player.start()
    said = run("watch", "late")
    player.join()
    assert said.exit_code == code
    assert "canary 10 %, step 2 of 2, weight 10 %, 2 of 3 candidate replicas ready, watching" in said.stdout
    assert f"{phase}: as it was decided (controller)" in said.stdout


def test_watch_waits_for_an_order_that_was_not_yet_obeyed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    apply(tmp_path, 2)
    told(store, Phase.ABORTED, candidate=None, refused=release(2))
    run("retry", "late")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", interrupt)
    assert run("watch", "late").exit_code == 130
