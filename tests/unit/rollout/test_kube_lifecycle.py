"""Many releases, old releases, other versions of the operator, and a second rollout for the same users."""

from __future__ import annotations

import base64
import copy
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flightdeck.contracts.release import Release
from flightdeck.lab.rollout.sentences import NoSuchRelease, chosen_before
from services.rollout_operator.kube import status
from services.rollout_operator.kube.operator import IDLE_S, Loop
from services.rollout_operator.kube.platform import KubePlatform
from services.rollout_operator.tick import RELEASES_KEPT, Rollout
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served

GOLDEN = Path(__file__).parent / "golden_status.json"  # FLIGHTDECK_GOLDEN=write writes it anew
FIRST, COUNT = 2, 20


def on_new_release(cluster: Cluster, how: str) -> None:
    found = copy.deepcopy(cluster.rollout)
    found["spec"]["onNewRelease"] = how
    cluster.put(found)


def length(cluster: Cluster) -> int:
    """Ticks of one rollout, from the release to its end."""
    cluster.want("1001")
    before_s = cluster.now_s
    drive(cluster, champion_is(cluster, "1001"))
    return int(cluster.now_s - before_s)


def releases_at_half_a_length(cluster: Cluster) -> tuple[Rollout, list[str], int]:
    """Twenty of them; the operator, versions that became champion meanwhile, and the most that ever waited."""
    made, champions, half = cluster.start(), [], length(cluster) // 2
    for number in range(FIRST, FIRST + COUNT):
        cluster.want(str(number))
        for _ in range(half):
            made.tick(cluster.now_s)
            cluster.pass_time()
            version = cluster.status["championVersion"].removeprefix("v")
            champions += [version] if champions[-1:] != [version] else []
    return made, champions[1:], half


def test_of_twenty_releases_at_half_a_rollouts_length_the_newest_waits_and_every_second_one_serves():
    cluster = served(Cluster())
    made, champions, _half = releases_at_half_a_length(cluster)
    newest = str(FIRST + COUNT - 1)
    drive(cluster, champion_is(cluster, newest))
    assert len(champions) >= COUNT // 2 - 2, champions
    assert champions == sorted(champions, key=int), "never back to an older one"
    assert not [it for it in cluster.status["history"] if it["target"] in ("aborting", "aborted")]
    assert "queued" not in cluster.status
    for it in cluster.status["history"]:
        assert it["serial"] > 0 and it["reason"]
    platform = made.platform
    assert isinstance(platform, KubePlatform)
    assert len(platform.owners) <= 4, "addresses of releases that went are forgotten"


def test_a_release_that_supersedes_sends_the_running_one_home_and_the_last_one_serves():
    cluster = served(Cluster())
    on_new_release(cluster, "supersede")
    _made, champions, _half = releases_at_half_a_length(cluster)
    assert champions == [], "each was superseded half way"
    newest = str(FIRST + COUNT - 1)
    drive(cluster, champion_is(cluster, newest))
    reasons = [it["reason"] for it in cluster.status["history"] if it["target"] == "aborting"]
    assert reasons and all("superseded by late v" in it for it in reasons)


def test_history_and_releases_are_bounded_and_undo_goes_to_any_release_that_is_kept():
    cluster = served(Cluster())
    for number in range(FIRST, FIRST + RELEASES_KEPT + 3):
        cluster.want(str(number))
        drive(cluster, champion_is(cluster, str(number)))
    kept = [Release.model_validate(it) for it in cluster.status["releases"]]
    newest = FIRST + RELEASES_KEPT + 2
    assert [int(it.model.version) for it in kept] == list(range(newest, newest - RELEASES_KEPT, -1))
    assert len(cluster.status["history"]) == status.HISTORY_KEPT
    assert len(json.dumps(cluster.rollout)) < 100_000, "far from the 1.5 MB of an object"
    for to in (kept[-1], kept[RELEASES_KEPT // 2]):
        wanted = Release.model_validate(cluster.rollout["spec"]["release"])
        again = [Release.model_validate(it) for it in cluster.status["releases"]]
        found = chosen_before("late", wanted, again, to.id)
        assert found == to
        cluster.ask(found)
        drive(cluster, champion_is(cluster, to.model.version))
        assert cluster.status["releases"][0]["model"]["version"] == to.model.version
    with pytest.raises(NoSuchRelease, match="0 releases begin with"):
        chosen_before("late", kept[0], kept, cluster.release("1").id)


def test_undo_of_a_release_that_just_serves_is_the_one_before():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, champion_is(cluster, "2"))
    releases = [Release.model_validate(it) for it in cluster.status["releases"]]
    assert chosen_before("late", cluster.release("2"), releases, None) == cluster.release("1")


# -- two rollouts for the same users ----------------------------------------------------------------------------------


def second(cluster: Cluster) -> None:
    """A ModelRollout `x` whose release is of the model `late`."""
    spec = copy.deepcopy(cluster.rollout["spec"])
    spec["release"] = cluster.release("9").model_dump(mode="json", by_alias=True, exclude_none=True)
    meta = {"name": "x", "uid": "x123456789", "namespace": "n"}
    cluster.put({**cluster.rollout, "metadata": meta, "spec": spec, "status": {}})


def test_a_second_rollout_for_the_same_users_is_refused_with_words_and_the_first_goes_on(monkeypatch):
    cluster = served(Cluster())
    second(cluster)
    cluster.want("2")
    before = {key: it for key, it in cluster.objects.items() if key[0] in ("Deployment", "Service", "HTTPRoute")}
    loop = Loop("x", lambda: cluster.start("x"))
    for _ in range(5):
        loop.tick()
    x = cluster.objects["ModelRollout", "x"]
    assert [(it["type"], it["status"]) for it in x["status"]["conditions"]] == [("PlanAccepted", "False")]
    assert (
        "the release is of the model late; a rollout has the name of its model"
        in (x["status"]["conditions"][0]["message"])
    )
    assert set(x["status"]) == {"conditions"}, "nothing is under way"
    told = [it for (kind, _), it in cluster.objects.items() if kind == "Event" and it["reason"] == "Refused"]
    assert [(it["type"], it["involvedObject"]["name"]) for it in told] == [("Warning", "x")]
    assert {key: cluster.objects[key] for key in before} == before
    assert loop.tick() == IDLE_S, "it is not looked at each second for ever"
    drive(cluster, champion_is(cluster, "2"))


def test_the_refusal_goes_when_the_spec_is_mended():
    cluster = served(Cluster())
    broken = copy.deepcopy(cluster.rollout)
    broken["spec"]["release"]["model"]["name"] = "early"
    cluster.put(broken)
    made = cluster.start()
    for _ in range(3):
        made.tick(cluster.now_s)
        cluster.pass_time()
    cluster.want("2")
    drive(cluster, champion_is(cluster, "2"))
    accepted = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    assert accepted["status"] == "True"
    told = [it for (kind, _), it in cluster.objects.items() if kind == "Event" and it["reason"] == "Refused"]
    assert len(told) == 1 and "early" in told[0]["message"]


# -- another version of the operator ----------------------------------------------------------------------------------


def half_way() -> Cluster:
    """In the 10 % step, with a release that was sent home, one that waits, and an order that was obeyed."""
    cluster = served(Cluster())
    cluster.want("7")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.annotate("abort by=ann looks odd")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    cluster.want("8")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and 10 in cluster.routed().values())
    cluster.want("9")
    drive(cluster, lambda: "queued" in cluster.status)
    return cluster


def golden() -> Any:
    if os.environ.get("FLIGHTDECK_GOLDEN") == "write":
        cluster = half_way()
        evidence = {key: base64.b64encode(it).decode() for key, it in cluster.values.items()}
        text = json.dumps({"status": cluster.status, "evidence": evidence}, indent=1, sort_keys=True)
        GOLDEN.write_text(text + "\n")
    return json.loads(GOLDEN.read_text())


def test_an_operator_goes_on_in_mid_rollout_from_what_an_earlier_version_of_it_wrote():
    """Who breaks this breaks an upgrade under way: read the old form as well, and only then write the file anew."""
    kept, cluster = golden(), half_way()
    cluster.put({**cluster.rollout, "status": kept["status"]})
    cluster.values = {key: base64.b64decode(it) for key, it in kept["evidence"].items()}
    made = cluster.start()
    made.tick(cluster.now_s)
    cluster.pass_time()
    assert made.collector is not None
    pairs = made.collector.evidence().tallies[0].pairs
    assert pairs >= 100, "what was seen in the shadow still counts"
    serials = [it["serial"] for it in kept["status"]["history"]]
    assert [it["serial"] for it in cluster.status["history"]][: len(serials)] == serials
    phases = drive(cluster, champion_is(cluster, "8"))
    assert "aborting" not in phases
    drive(cluster, champion_is(cluster, "9"))
    after = [it["serial"] for it in cluster.status["history"]]
    assert after == sorted(set(after)) and "v8 " in " ".join(it["reason"] for it in cluster.status["history"])


def test_all_that_an_earlier_version_remembered_is_remembered():
    kept = golden()["status"]
    found = status.remembered("late", kept, 0.0)
    assert found is not None and found.state is not None and found.judgement is not None
    written = status.document(
        found, kept, found.state.queued, [], order=kept.get("order", ""), generation=1, refusal="", now_s=1.0
    )
    written = json.loads(json.dumps(written))
    for key in ("state", "judgement", "inForce", "releases", "history", "weight", "mirrored", "refused", "queued"):
        assert written[key] == kept[key], key


def test_evidence_of_another_version_is_begun_anew_and_nothing_fails():
    cluster = half_way()
    key = next(iter(cluster.values))
    known = msgspec.msgpack.decode(cluster.values[key])
    for broken in (b"\xc1", msgspec.msgpack.encode({**known, "dump": b"\xc1"})):
        cluster.values[key] = broken
        made = cluster.start()
        made.tick(cluster.now_s)
        cluster.pass_time()
        assert made.collector is not None, "no evidence, yet it goes on counting"
    drive(cluster, champion_is(cluster, "8"))
