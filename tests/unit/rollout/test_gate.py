"""Nothing serves that the gate did not let pass, unless a person says why: tried to walk around in every way."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts import approval
from flightdeck.contracts.release import Release
from services.rollout_operator import gate
from services.rollout_operator.gate import Memory, Said, Trust, admit
from services.rollout_operator.kube import gatekeeper, orders
from services.rollout_operator.kube.operator import Loop
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.state import Phase, State
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import workload_name
from tests.unit.rollout.kube_cluster import GATE, Cluster, Killed, approved, key_of

STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
OURS = Trust((key_of(GATE),))
Forge = Callable[[Release], Release]


def bare(release: Release) -> Release:
    return release.model_copy(update={"model": release.model.model_copy(update={"approval": None})})


def changed(release: Release, **model: Any) -> Release:
    return release.model_copy(update={"model": release.model.model_copy(update=model)})


def statement_of(release: Release) -> bytes:
    model = release.model
    return approval.statement(model.name, model.version, model.sha256, release.feature_service, "c" * 64)


def forged_verdict(release: Release) -> Release:
    held = statement_of(release).replace(b'"PROMOTE"', b'"HOLD"')
    assert held != statement_of(release)
    return approved(release, said=held)


def another_purpose(release: Release) -> Release:
    return approved(release, said=statement_of(release).removeprefix(approval.DOMAIN))


def moved(release: Release) -> Release:
    """The word on version 1, under another version."""
    return changed(release, approval=Cluster().release("1").model.approval)


FORGERIES: dict[str, Forge] = {
    "no approval": bare,
    "signed by a stranger": lambda it: approved(it, STRANGER),
    "of another version": moved,
    "another artefact": lambda it: changed(it, sha256="e" * 64),
    "other features": lambda it: it.model_copy(update={"feature_service": "late_v2"}),
    "a card that says HOLD": forged_verdict,
    "signed for another purpose": another_purpose,
    "zeros": lambda it: changed(it, approval=it.model.approval.model_copy(update={"signature": "0" * 128})),  # type: ignore[union-attr]
    "another card": lambda it: changed(it, approval=it.model.approval.model_copy(update={"card_sha256": "d" * 64})),  # type: ignore[union-attr]
}


def tick(cluster: Cluster, times: int = 1, made: Rollout | None = None) -> Rollout:
    made = made or cluster.start()
    for _ in range(times):
        made.tick(cluster.now_s)
        cluster.pass_time()
    return made


def drive(cluster: Cluster, until: Callable[[], bool], ticks: int = 90) -> None:
    made: Rollout | None = None
    for _ in range(ticks):
        try:
            made = made or cluster.start()
            made.tick(cluster.now_s)
        except (Killed, Unavailable):
            made = None
        cluster.pass_time()
        if until():
            return
    raise AssertionError(f"never came: {cluster.status}")


def serves(cluster: Cluster, version: str) -> bool:
    return (
        cluster.status.get("phase") == "done"
        and cluster.status["championVersion"] == f"v{version}"
        and cluster.routed() == {workload_name(cluster.release(version)): 100}
    )


def served() -> Cluster:
    cluster = Cluster()
    cluster.want("1")
    drive(cluster, lambda: serves(cluster, "1"))
    return cluster


@pytest.fixture
def cluster() -> Cluster:
    return served()


def accepted(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    return found


def events(cluster: Cluster, reason: str) -> list[dict[str, Any]]:
    return [it for (kind, _), it in cluster.objects.items() if kind == "Event" and it["reason"] == reason]


def entries(cluster: Cluster) -> list[dict[str, Any]]:
    return [it for it in cluster.status["history"] if it.get("event") == gatekeeper.BROKEN]


def deployed(cluster: Cluster) -> set[str]:
    return {name for kind, name in cluster.objects if kind == "Deployment"}


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", FORGERIES)
def test_what_the_gate_did_not_sign_never_starts(cluster: Cluster, how: str):
    asked = FORGERIES[how](cluster.release("2"))
    cluster.ask(asked)
    before, there = copy.deepcopy(cluster.status), deployed(cluster)
    tick(cluster, 5)
    tick(cluster, 2)  # a new operator
    assert deployed(cluster) == there and cluster.routed() == {workload_name(cluster.release("1")): 100}
    for key in ("state", "champion", "releases", "history", "inForce"):
        assert cluster.status[key] == before[key], key
    assert not {"candidate", "queued"} & set(cluster.status)
    said = accepted(cluster)
    assert (said["status"], said["reason"]) == ("False", "Unapproved") and asked.id in said["message"]
    (told,) = events(cluster, "Unapproved")
    assert told["type"] == "Warning" and told["message"] == said["message"]
    complete = next(it for it in cluster.status["conditions"] if it["type"] == "Complete")
    assert complete["status"] == "False", "what is asked for does not serve"


@pytest.mark.parametrize("how", FORGERIES)
def test_nor_as_the_very_first_release(how: str):
    cluster = Cluster()
    cluster.ask(FORGERIES[how](cluster.release("2")))
    loop = Loop("late", cluster.start)
    for _ in range(3):
        loop.tick()
        cluster.pass_time()
    assert not deployed(cluster) and not cluster.routed() and "state" not in cluster.status
    assert accepted(cluster)["reason"] == "Unapproved" and len(events(cluster, "Unapproved")) == 1


def test_an_approval_that_is_not_even_hex_is_refused_and_what_serves_goes_on(cluster: Cluster):
    cluster.ask(cluster.release("2"))
    cluster.rollout["spec"]["release"]["model"]["approval"]["signature"] = "no hex"
    tick(cluster, 3)
    assert serves(cluster, "1") and "signature" in accepted(cluster)["message"]
    assert accepted(cluster)["status"] == "False" and deployed(cluster) == set(cluster.routed())


def test_an_approval_that_arrives_later_lets_it_start(cluster: Cluster):
    cluster.ask(bare(cluster.release("2")))
    made = tick(cluster, 3)
    cluster.want("2")
    tick(cluster, 1, made)
    assert cluster.status["candidateVersion"] == "v2"
    assert accepted(cluster)["status"] == "True" and not entries(cluster)


def test_without_a_key_nothing_is_approved_and_a_key_that_comes_is_taken(cluster: Cluster):
    cluster.trust = Trust(problem="no key is trusted, /etc/flightdeck/signing.pub: No such file")
    cluster.want("2")
    made = tick(cluster, 3)
    assert serves(cluster, "1") and "signing.pub: No such file" in accepted(cluster)["message"]
    cluster.trust = Trust((key_of(STRANGER), key_of(GATE)))
    tick(cluster, 1, made)
    assert cluster.status["candidateVersion"] == "v2"


def test_a_rollout_under_way_goes_on_as_if_the_other_had_not_been_asked_for():
    for on_new_release in ("queueNewest", "supersede"):
        cluster = served()
        cluster.rollout["spec"]["onNewRelease"] = on_new_release
        cluster.want("2")
        drive(cluster, lambda it=cluster: it.status["phase"] == "canary")  # type: ignore[misc]
        cluster.ask(bare(cluster.release("3")))
        tick(cluster)
        assert cluster.status["phase"] == "canary" and "queued" not in cluster.status, on_new_release
        assert accepted(cluster)["reason"] == "Unapproved"
        drive(cluster, lambda it=cluster: serves(it, "2"))  # type: ignore[misc]
        assert "superseded" not in json.dumps(cluster.status["history"])
        tick(cluster, 3)
        assert serves(cluster, "2"), "and not the one before either"


def test_what_was_queued_stays_queued(cluster: Cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.want("3")
    tick(cluster)
    cluster.ask(bare(cluster.release("4")))
    tick(cluster)
    assert cluster.status["queued"]["model"]["version"] == "3"
    drive(cluster, lambda: serves(cluster, "3"))


def test_what_was_set_back_does_not_come_again(cluster: Cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.want("1")
    tick(cluster)
    assert cluster.status["phase"] == "aborting"
    cluster.ask(bare(cluster.release("3")))
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    tick(cluster, 3)
    assert cluster.status["phase"] == "aborted" and "candidate" not in cluster.status


def test_a_key_that_is_withdrawn_stops_no_rollout_but_starts_none_that_waits(cluster: Cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.want("3")
    made = tick(cluster)
    assert cluster.status["queued"]["model"]["version"] == "3"
    cluster.trust = Trust((key_of(STRANGER),))
    tick(cluster, 1, made)
    assert cluster.status["candidateVersion"] == "v2" and cluster.status["phase"] in ("shadow", "canary")
    drive(cluster, lambda: serves(cluster, "2"))
    tick(cluster, 3)
    assert serves(cluster, "2")


def test_no_order_starts_what_is_refused(cluster: Cluster):
    cluster.scores = lambda _: 0.9
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    cluster.ask(bare(cluster.release("3")))
    for order in ("promote", "retry"):
        cluster.annotate(order)
        tick(cluster, 3)
        assert cluster.status["phase"] == "aborted" and deployed(cluster) == set(cluster.routed()), order
    assert cluster.rollout["metadata"]["annotations"][orders.ANNOTATION] == "retry", "it waits for the approval"
    cluster.want("2")
    tick(cluster)
    assert cluster.status["candidateVersion"] == "v2"


# -- needs no new word ------------------------------------------------------------------------------------------------


def test_an_undo_and_other_code_need_no_new_approval(cluster: Cluster):
    cluster.want("2")
    drive(cluster, lambda: serves(cluster, "2"))
    cluster.trust = Trust((key_of(STRANGER),))  # what signed the old words is not trusted any more
    cluster.ask(bare(cluster.release("1")))
    drive(cluster, lambda: serves(cluster, "1"))
    other = bare(cluster.release("1")).model_copy(update={"image": f"r/predictor@sha256:{'9' * 64}"})
    cluster.ask(other)
    tick(cluster, 2)
    assert cluster.status["candidateRelease"] == other.id and not entries(cluster)


def test_a_champion_of_before_is_no_licence_for_other_content(cluster: Cluster):
    for other in (
        changed(bare(cluster.release("1")), sha256="e" * 64),
        bare(cluster.release("1")).model_copy(update={"feature_service": "late_v2"}),
    ):
        cluster.ask(other)
        tick(cluster, 2)
        assert accepted(cluster)["reason"] == "Unapproved" and serves(cluster, "1")


def test_the_id_of_a_release_knows_no_approval():
    release = Cluster().release("1")
    assert release.id == bare(release).id == approved(release, STRANGER).id


# -- break glass ------------------------------------------------------------------------------------------------------


def test_a_broken_glass_lets_in_and_is_told_once(cluster: Cluster):
    cluster.ask(bare(cluster.release("2")))
    tick(cluster, 2)
    cluster.break_glass("by=ann the gate's cluster burns")
    drive(cluster, lambda: serves(cluster, "2"))
    (entry,) = entries(cluster)
    assert entry["who"] == "ann" and "the gate's cluster burns" in entry["reason"]
    assert entry["candidate"] == cluster.release("2").id
    (told,) = events(cluster, gatekeeper.BROKEN)
    assert told["type"] == "Warning" and told["message"] == entry["reason"]
    serials = [it["serial"] for it in cluster.status["history"]]
    assert serials == sorted(set(serials)) and cluster.status["state"]["serial"] == serials[-1]
    begun = next(it for it in cluster.status["history"] if it["target"] == "pending" and it["serial"] > serials[2])
    assert entry["serial"] == begun["serial"] - 1, "told before what follows from it"


def test_the_first_release_may_break_the_glass_as_well():
    cluster = Cluster()
    cluster.ask(bare(cluster.release("1")))
    cluster.break_glass("demo")
    drive(cluster, lambda: serves(cluster, "1"))
    (entry,) = entries(cluster)
    assert entry["who"] == "kubectl" and entry["serial"] == 1


def test_killed_before_any_of_its_writes_the_broken_glass_is_told_exactly_once():
    whole = served()
    whole.effects = 0
    whole.ask(bare(whole.release("2")))
    whole.break_glass("by=ann haste")
    drive(whole, lambda: whole.status["phase"] == "shadow")
    for kill_at in range(1, whole.effects + 1):
        cluster = served()
        cluster.effects, cluster.kill_at = 0, kill_at
        cluster.ask(bare(cluster.release("2")))
        cluster.break_glass("by=ann haste")
        drive(cluster, lambda it=cluster: it.status["phase"] == "shadow")  # type: ignore[misc]
        assert len(entries(cluster)) == 1, kill_at
        serials = [it["serial"] for it in cluster.status["history"]]
        assert serials == sorted(set(serials)), (kill_at, serials)


@pytest.mark.parametrize("text", ["", "  ", "by=ann", "by=ann  "])
def test_a_broken_glass_without_a_reason_lets_nothing_in(cluster: Cluster, text: str):
    cluster.ask(bare(cluster.release("2")))
    cluster.break_glass(text)
    tick(cluster, 3)
    assert serves(cluster, "1") and "gives no reason" in accepted(cluster)["message"] and not entries(cluster)


def test_the_reason_counts_for_one_release_only(cluster: Cluster):
    cluster.ask(bare(cluster.release("2")))
    cluster.break_glass("by=ann haste")
    drive(cluster, lambda: serves(cluster, "2"))
    cluster.ask(bare(cluster.release("3")))
    tick(cluster, 3)
    said = accepted(cluster)
    assert serves(cluster, "2") and said["reason"] == "Unapproved"
    assert f"'haste' was for release {cluster.release('2').id}" in said["message"]
    cluster.break_glass("by=ann still in haste")
    tick(cluster)
    assert cluster.status["candidateVersion"] == "v3" and len(entries(cluster)) == 2


def test_a_reason_that_was_not_needed_is_no_open_door(cluster: Cluster):
    cluster.break_glass("by=ann to be sure")
    cluster.want("2")
    drive(cluster, lambda: serves(cluster, "2"))
    assert not entries(cluster), "the gate had approved it"
    cluster.ask(bare(cluster.release("3")))
    tick(cluster, 3)
    assert serves(cluster, "2") and not entries(cluster)
    assert "give a reason for this one" in accepted(cluster)["message"]


def test_a_broken_glass_that_was_taken_away_still_counts_for_what_it_let_in(cluster: Cluster):
    cluster.ask(bare(cluster.release("2")))
    cluster.break_glass("by=ann haste")
    tick(cluster, 2)
    del cluster.rollout["metadata"]["annotations"][gatekeeper.ANNOTATION]
    drive(cluster, lambda: serves(cluster, "2"))
    assert len(entries(cluster)) == 1


def test_a_reason_taken_away_before_it_was_needed_counts_for_nothing():
    cluster = Cluster()
    approved_one, later = cluster.release("2"), bare(cluster.release("2"))
    first = admit(approved_one, Memory(), None, (), trust=OURS, said=Said("why", "ann", "why"))
    assert first.release == approved_one and first.broken is None
    again = admit(later, first.memory, None, (), trust=OURS, said=None)
    assert again.release is None and again.refusal
    used = admit(later, first.memory, None, (), trust=OURS, said=Said("why", "ann", "why"))
    assert used.release == later and used.broken and used.memory.glass and used.memory.glass.used


# -- the pure parts ---------------------------------------------------------------------------------------------------


def test_a_champion_needs_nothing_and_others_need_a_key():
    champion, other = Cluster().release("1"), Cluster().release("2")
    assert gate.refusal(bare(champion), Trust(), [champion]) == ""
    assert "no key is trusted" in gate.refusal(other, Trust(), [champion])
    assert gate.refusal(other, OURS, [champion]) == ""


def test_with_nothing_to_go_on_with_there_is_no_release():
    state = State(Phase.ABORTED, 1.0, 1.0, refused=Cluster().release("1"))
    found = admit(bare(Cluster().release("2")), Memory(), state, (), trust=OURS, said=None)
    assert found.release is None and found.refusal
