"""What the operator makes of a cluster's documents: pods, routes, counters, orders, status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flightdeck.cluster import names
from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator import workloads
from services.rollout_operator.evidence import Attempts
from services.rollout_operator.kube import api, counters, orders, replicas, routes, status
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.remembered import Status
from services.rollout_operator.state import Order, OrderKind, Paused, Phase, State, Transition
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict


def release(version: str = "7") -> Release:
    model = ModelRef(name="late", version=version, sha256="a" * 64, image=f"r/late@sha256:{'d' * 64}")
    return Release.model_validate({"image": "code", "model": model, "featureService": "late_v1"})


def pod(name: str, of: str = "r1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {replicas.RELEASE: of}}, "status": status}


def endpoint_slice(*endpoints: tuple[str, dict[str, bool]], of: str = "r1") -> dict[str, Any]:
    return {
        "metadata": {"name": "s", "labels": {replicas.RELEASE: of}},
        "endpoints": [{"addresses": [address], "conditions": conditions} for address, conditions in endpoints],
    }


def test_the_field_manager_is_that_of_the_first_champion():
    assert api.RELEASER == names.RELEASER


# -- replicas ---------------------------------------------------------------------------------------------------------


def test_a_replica_is_ready_where_the_gateway_would_send_a_request():
    slices = [
        endpoint_slice(
            ("10.0.0.1", {"ready": True}), ("10.0.0.2", {"ready": False}),
            ("10.0.0.3", {"ready": True, "terminating": True}),
        ),
        endpoint_slice(("10.0.0.4", {"ready": True}), of="r2"),
    ]  # fmt: skip
    found = replicas.seen("r1", [pod("a"), pod("b"), pod("c"), pod("d", "r2")], slices)
    assert (found.ready, found.running, found.deaths) == (1, 3, 0)
    assert replicas.owners(slices) == {f"10.0.0.{n}": "r1" for n in (1, 2, 3)} | {"10.0.0.4": "r2"}


def test_restarts_are_deaths_and_the_last_one_says_how():
    crashed = {
        "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "Traceback\n  no model\n"}},
    }  # fmt: skip
    found = replicas.seen("r1", [pod("a", containerStatuses=[crashed]), pod("b")], [])
    assert found.deaths == 2
    assert found.last_death == "a: CrashLoopBackOff: back-off 20s; Error, exit code 3: no model"


def test_an_image_that_is_not_there_is_no_death_but_is_told():
    waiting = {"restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
    found = replicas.seen("r1", [pod("a", containerStatuses=[waiting])], [])
    assert (found.deaths, found.last_death) == (0, "a: ImagePullBackOff: not found")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_beginning_is_no_trouble(reason):
    waiting = {"restartCount": 0, "state": {"waiting": {"reason": reason}}}
    assert not replicas.seen("r1", [pod("a", containerStatuses=[waiting])], []).last_death


def test_what_never_becomes_ready_says_what_it_waits_for():
    running = {"restartCount": 0, "ready": False, "state": {"running": {}}}
    assert replicas.seen("r1", [pod("a", containerStatuses=[running])], []).last_death == (
        "a: it runs, but its readiness probe does not pass"
    )
    full = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: Insufficient cpu",
    }
    assert replicas.seen("r1", [pod("b", conditions=[full])], []).last_death == (
        "b: Unschedulable: 0/1 nodes: Insufficient cpu"
    )
    ready = {"restartCount": 0, "ready": True, "state": {"running": {}}}
    assert not replicas.seen("r1", [pod("c", containerStatuses=[ready])], []).last_death


# -- routes -----------------------------------------------------------------------------------------------------------


def taken(document: dict[str, Any], generation: int = 3, seen: int = 3) -> dict[str, Any]:
    """As the API server and the Gateway leave it: defaults filled in, accepted."""
    filled = json.loads(json.dumps(document))
    filled["metadata"]["generation"] = generation
    for rule in filled["spec"].get("rules", []):
        for backend in rule["backendRefs"]:
            backend |= {"group": "", "kind": "Service"}
        for item in rule.get("filters", []):
            item["requestMirror"]["backendRef"] |= {"group": "", "kind": "Service"}
    accepted = {"type": "Accepted", "status": "True", "observedGeneration": seen}
    filled["status"] = {"parents": [{"conditions": [accepted]}]}
    return filled


def test_a_shadow_never_answers_a_user():
    with pytest.raises(ValueError, match="a shadow answers nobody"):
        workloads.http_route("late", {"a": 90, "b": 10}, namespace="n", mirror="b")


def test_weight_and_copies_are_read_back():
    shadow = workloads.http_route("late", {"a": 100}, namespace="n", mirror="b")
    canary = workloads.http_route("late", {"a": 90, "b": 10}, namespace="n")
    assert routes.routed(taken(shadow), "b") == (0, True)
    assert routes.routed(taken(canary), "b") == (10, False)
    assert routes.routed(taken(canary), None) == (0, False)
    assert routes.names(shadow) == {"a", "b"}


def test_what_the_api_server_fills_in_is_no_difference_and_a_hand_edit_is():
    wanted = workloads.http_route("late", {"a": 90, "b": 10}, namespace="n")
    found = taken(wanted)
    assert routes.same(found, wanted)
    found["spec"]["rules"][0]["backendRefs"][0]["weight"] = 50
    assert not routes.same(found, wanted)
    assert not routes.same(taken(workloads.http_route("late", {"a": 100}, namespace="n", mirror="b")), wanted)


def test_a_route_that_no_gateway_has_taken_says_nothing():
    route = workloads.http_route("late", {"a": 100}, namespace="n")
    for untold in (taken(route, generation=4), {**taken(route), "status": {}}, None):
        with pytest.raises(Unavailable):
            routes.routed(untold, "b")


# -- counters ---------------------------------------------------------------------------------------------------------

ROUTE = "httproute/n/late/rule/0"


def line(kind: str, cluster: str, address: str, count: int) -> str:
    labels = f'envoy_cluster_name="{cluster}",envoy_endpoint_address="{address}:3000"'
    return f"envoy_cluster_endpoint_rq_{kind}{{{labels}}} {count}"


PAGE = "\n".join(
    [
        "# TYPE envoy_cluster_endpoint_rq_success counter",
        line("success", ROUTE, "10.0.0.1", 90), line("success", ROUTE, "10.0.0.2", 7),
        line("error", ROUTE, "10.0.0.2", 3), line("success", f"{ROUTE}-mirror-0", "10.0.0.2", 40),
        line("success", "httproute/n/other/rule/0", "10.0.0.1", 5), line("total", ROUTE, "10.0.0.1", 90),
    ]
)  # fmt: skip


def of(release_id: str, *, copies: bool = False) -> list[Attempts]:
    owners = {"10.0.0.1": "r1", "10.0.0.2": "r2"}
    found = counters.of_release(counters.parse(PAGE, "p"), owners, release_id, "n/late", copies=copies)
    return list(found.values())


def test_attempts_are_joined_to_releases_by_address_copies_apart():
    assert of("r1") == [Attempts(90, 0)]
    assert of("r2") == [Attempts(10, 3)]
    assert of("r2", copies=True) == [Attempts(40, 0)]
    assert of("r3") == []


class Proxies:
    namespace = "n"

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)

    def list(self, kind: str, selector: str, *, namespace: str = "") -> list[dict[str, Any]]:
        assert (kind, namespace) == ("Pod", counters.GATEWAY_NAMESPACE)
        return self.pods


def proxy(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": "Running", "podIP": f"10.9.0.{name}"}}


def test_no_proxy_and_no_counter_are_errors_and_no_zeros():
    with pytest.raises(Unavailable, match="no pod in envoy-gateway-system"):
        counters.scrape(Proxies(), lambda url: PAGE)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="enablePerEndpointStats"):
        counters.scrape(Proxies(proxy("1")), lambda url: "envoy_up 1\n")  # type: ignore[arg-type]


def test_a_silent_proxy_is_missing_and_the_others_count():
    def fetch(url: str) -> str:
        if "10.9.0.1" in url:
            raise Unavailable("away")
        return PAGE

    found = counters.scrape(Proxies(proxy("1"), proxy("2")), fetch)  # type: ignore[arg-type]
    assert {name for name, _, _ in found} == {"2"}


# -- orders -----------------------------------------------------------------------------------------------------------


def annotated(text: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {orders.ANNOTATION: text}}}


def test_an_order_is_a_word_and_why():
    found = orders.order_of(annotated("abort numbers look odd"))
    assert found and (str(found.kind), found.note) == ("abort", "numbers look odd")
    assert orders.order_of({"metadata": {}}) is None
    told = Order(OrderKind.PAUSE, "ann@desk", "the network is worked on")
    assert orders.order_of(annotated(orders.text(told))) == told
    with pytest.raises(ValueError, match="'stop' is no order; there are: promote, abort"):
        orders.order_of(annotated("stop"))


def test_only_the_obeyed_text_is_taken_away():
    assert orders.removal("abort")[0] == {
        "op": "test", "path": "/metadata/annotations/flightdeck.dev~1order", "value": "abort"
    }  # fmt: skip


# -- status -----------------------------------------------------------------------------------------------------------


def full() -> Status:
    state = State(
        Phase.PAUSED, 10.0, 5.0, champion=release(), candidate=release("8"), queued=release("9"), step=1,
        paused=Paused(Phase.CANARY, 3.5), reason="paused by ann", serial=4,
    )  # fmt: skip
    metric = MetricVerdict("errorRate", Verdict.WATCHING, True, 0.02, 0.01, None, 0.03, 120, "so far")
    judged = Judgement(Verdict.WATCHING, "errorRate needs more", (metric,))
    return Status("late", state, judged, rollout="spec: {}\n", weight=10, champion_ready=3, releases=[release()])


def written(found: Status, before: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"order": "", "generation": 2, "refusal": "", "now_s": 100.0} | more
    return status.document(found, before or {}, release("8"), [], **known)


def test_what_is_written_is_what_the_next_operator_goes_on_from():
    through_json = json.loads(json.dumps(written(full(), order="pause")))
    found = status.remembered("late", through_json, 0.0)
    assert found is not None
    assert (found.state, found.judgement, found.releases) == (full().state, full().judgement, full().releases)
    assert (found.rollout, found.weight, found.orders_done) == ("spec: {}\n", 10, orders.number_of("pause"))
    assert "null" not in json.dumps(through_json["state"])


def test_one_line_of_kubectl_tells_the_story():
    found = written(full())
    shown = [found[key] for key in ("championVersion", "candidateVersion", "phase", "weight", "verdict", "reason")]
    assert shown == ["v7", "v8", "paused", 10, "watching", "paused by ann"]


def test_a_champion_that_a_deploy_made_serves_and_nothing_is_under_way():
    made = workloads.first_champion_status(release(), replicas=3, at="2026-01-01T00:00:00Z")
    found = status.remembered("late", made, 50.0)
    assert found and found.state and found.state.phase is Phase.DONE and found.state.champion == release()
    assert status.remembered("late", {}, 0.0) is None


def test_a_status_of_another_version_is_never_taken_for_none():
    with pytest.raises(ValueError, match="not of this version"):
        status.remembered("late", {"state": {"phase": "sleeping"}}, 0.0)


def test_a_condition_keeps_its_time_while_it_says_the_same():
    first = written(full())
    again = written(full(), first, now_s=200.0)
    assert again["conditions"] == first["conditions"]
    done = State(Phase.DONE, 1.0, 1.0, champion=release("8"), reason="v8 is champion")
    after = {it["type"]: it for it in written(Status("late", done), first, now_s=200.0)["conditions"]}
    assert (after["Complete"]["status"], after["Progressing"]["status"]) == ("True", "False")
    assert after["Complete"]["lastTransitionTime"] == "1970-01-01T00:03:20Z"
    assert after["PlanAccepted"]["lastTransitionTime"] == "1970-01-01T00:01:40Z"


def test_the_history_is_bounded_and_keeps_the_newest():
    new = [Transition(n, float(n), None, Phase.DONE, None, None, None, "r", "w") for n in range(80)]
    kept = status.history([], new)
    assert len(kept) == status.HISTORY_KEPT and kept[-1]["serial"] == 79


@pytest.mark.parametrize(
    ("answered", "body", "kind"),
    [
        (409, "", api.Conflict), (422, "the JSON Patch test operation failed", api.Conflict),
        (422, "invalid", api.Refused), (403, "quota", api.Refused), (500, "", Unavailable), (429, "", Unavailable),
    ],
)  # fmt: skip
def test_answers_of_the_api_server_become_our_errors(answered, body, kind):
    assert type(api.told("PUT", "/x", answered, body)) is kind
