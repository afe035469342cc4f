"""The tick's platform on Kubernetes: a Deployment and a Service per release, one HTTPRoute, Envoy's counters."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from flightdeck.contracts.artefact import ArtefactError, ModelManifest
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import workloads
from services.rollout_operator.evidence import Attempts
from services.rollout_operator.kube import counters, replicas, routes
from services.rollout_operator.kube.api import Api, Document, Refused
from services.rollout_operator.kube.rate import Rate
from services.rollout_operator.ports import Seen, Unavailable
from services.rollout_operator.state import Phase, State, Wanted
from services.rollout_operator.workloads import NotPlaceable, workload_name

logger = logging.getLogger("flightdeck.rollout")
TEMPLATE = "predictor"
MANIFEST_PAGE = "/v1/manifest"


class KubePlatform:
    """The releases of one model."""

    def __init__(
        self, api: Api, model: str, owner: Callable[[], Mapping[str, object]],
        fetch: Callable[[str], str] = counters.fetch, rate: Rate | None = None,
    ) -> None:  # fmt: skip
        """Nothing is asked yet.

        Args:
            owner: the ownerReference of the ModelRollout. fetch: of a page inside the cluster. rate: measured so far.
        """
        self.api, self.model, self.owner, self.fetch = api, model, owner, fetch
        self.pods: list[Document] = []
        self.slices: list[Document] = []
        self.route: Document | None = None
        self.scraped: counters.Counters = {}  # by the gateway's word, `scraped_s` in the process's own seconds
        self.scraped_s = float("-inf")
        self.owners: dict[str, str] = {}  # address -> release id, also of those that just went
        self.manifests: dict[str, ModelManifest] = {}
        self.unplaceable: dict[str, tuple[int, str]] = {}  # release id -> how often it was refused, and why
        self.left = 1  # what the last tick had to do, or to leave to the next one; 0: all was as it shall be
        self.rate = rate or Rate(f"{api.namespace}/{model}")

    @property
    def selector(self) -> str:
        """Of everything that belongs to a release of the model."""
        return f"{replicas.MODEL}={self.model}"

    def look(self) -> None:
        """Pods, endpoints and route, once per tick."""
        self.pods = self.api.list("Pod", self.selector)
        self.slices = self.api.list("EndpointSlice", self.selector)
        self.route = self.api.read("HTTPRoute", self.model)
        self.owners |= replicas.owners(self.slices)
        if self.rate.due:
            with contextlib.suppress(Unavailable, Refused):
                self._scraped()

    def forget(self) -> None:
        """What the next look reads anew: of a thousand idle rollouts it is a third of all memory."""
        self.pods, self.slices, self.route, self.scraped, self.owners = [], [], None, {}, {}

    def _scraped(self) -> counters.Counters:
        """The gateway's counters; each time they are read, the users' rate is renewed."""
        try:
            found = counters.scrape(self.api, self.fetch)
        except (Unavailable, Refused):
            self.rate.missed()
            raise
        self.rate.saw(found)
        return found

    def seen(self, release: Release | None) -> Seen:
        """As pods and EndpointSlices say; a release that can never be placed dies once per try."""
        if release is None:
            return Seen()
        if release.id in self.unplaceable:
            deaths, why = self.unplaceable[release.id]
            return Seen(deaths=deaths, last_death=why)
        return replicas.seen(release.id, self.pods, self.slices)

    def routed(self, candidate: Release | None) -> tuple[int, bool]:
        """By the route's newest version, once the Gateway has taken it."""
        return routes.routed(self.route, workload_name(candidate) if candidate else None)

    def attempts(
        self, champion: Release, candidate: Release, *, copies: bool
    ) -> tuple[Mapping[str, Attempts], Mapping[str, Attempts]]:
        """By proxy, cluster and endpoint.

        Raises:
            Unavailable: nothing is counted for a release that the route names: an empty selection is no zero.
        """
        scraped, route = self._scraped(), f"{self.api.namespace}/{self.model}"
        self.scraped, self.scraped_s = scraped, time.monotonic()
        found = []
        for release, of_copies in ((champion, False), (candidate, copies)):
            mine = counters.of_release(scraped, self.owners, release.id, route, copies=of_copies)
            if not mine and workload_name(release) in routes.names(self.route):
                raise Unavailable(f"no proxy counts attempts at {workload_name(release)}, which the HTTPRoute names")
            found.append(mine)
        return found[0], found[1]

    def manifest(self, release: Release) -> ModelManifest:
        """A replica tells it; the digest in the release proves it.

        Raises:
            Unavailable: no replica is ready. ArtefactError: it serves another model.
        """
        sha256 = release.model.sha256
        if sha256 not in self.manifests:
            ready = replicas.addresses(release.id, self.slices)
            if not ready:
                raise Unavailable(f"no replica of {release.short} is ready to tell its model's manifest")
            content = self.fetch(replicas.page(ready[0], MANIFEST_PAGE))
            found = hashlib.sha256(content.encode()).hexdigest()
            if found != sha256:
                raise ArtefactError(f"{ready[0]} serves a manifest with sha256 {found}; {release.short} has {sha256}")
            self.manifests[sha256] = ModelManifest.model_validate_json(content)
        return self.manifests[sha256]

    # -- what shall be ----------------------------------------------------------------------------------------------

    def make_true(self, spec: RolloutSpec, state: State, wanted: Wanted) -> None:
        """Pods before the route names them, and no pod goes before the Gateway has taken a route without it."""
        pairs = ((state.champion, wanted.champion_replicas), (state.candidate, wanted.candidate_replicas))
        kept = {release.id: (release, count) for release, count in pairs if release and count}
        self.left = 1  # until it is known: the API server may be away
        there = {it["metadata"]["name"]: it for it in self.api.list("Deployment", self.selector)}
        self.left = 0
        for release, count in kept.values():
            self._place(release, count, there.get(workload_name(release)))
        self._route(self.wanted_route(state, wanted))
        for name, deployment in there.items():
            if name not in {workload_name(release) for release, _ in kept.values()}:
                self._retire(name, deployment, state)
        if state.candidate is None:
            self._forget(state.champion)

    def _forget(self, champion: Release | None) -> None:
        """Nothing is under way: of releases that went nothing is kept in memory."""
        self.unplaceable, self.owners = {}, replicas.owners(self.slices)
        if champion:
            self.manifests = {key: it for key, it in self.manifests.items() if key == champion.model.sha256}

    def wanted_route(self, state: State, wanted: Wanted) -> Document | None:
        """The rules that shall be; None when the present ones stay."""
        champion = workload_name(state.champion) if state.champion else ""
        candidate = workload_name(state.candidate) if state.candidate else ""
        weights = {champion: 100}
        if not champion:
            if state.phase is Phase.ABORTING:
                weights = {}
            elif candidate and wanted.weight == 100:  # the first release: nobody else could answer
                weights = {candidate: 100}
            else:
                return None
        elif candidate and wanted.weight:
            weights = {champion: 100 - wanted.weight, candidate: wanted.weight}
        mirror = candidate if champion and wanted.mirror and not wanted.weight else ""
        weights = {name: weight for name, weight in weights.items() if weight}
        return workloads.http_route(self.model, weights, namespace=self.api.namespace, mirror=mirror)

    def _place(self, release: Release, count: int, there: Document | None) -> None:
        """A release's pods never change: what stands is only made larger or smaller."""
        name = workload_name(release)
        if there is not None:
            if self.owner().get("uid") not in _owners(there):
                self.left += 1
                self._adopt(name)
            if not replicas.has_service(name, self.slices):  # each has a slice, even without an endpoint
                self.left += 1
                self.api.apply(self._objects(release, count, self.owner())[1])
            if there["spec"].get("replicas") != count:
                self.left += 1
                self.api.patch("Deployment", name, {"spec": {"replicas": count}})
            return
        self.left += 1
        try:
            for document in reversed(self._objects(release, count, self.owner())):  # the Deployment last, as above
                self.api.apply(document)
            self.unplaceable.pop(release.id, None)
        except (NotPlaceable, Refused) as error:
            tries = self.unplaceable.get(release.id, (0, ""))[0] + 1
            self.unplaceable[release.id] = (tries, str(error))

    def _objects(self, release: Release, count: int, owner: Mapping[str, object] | None) -> list[Document]:
        template = self.api.read("PodTemplate", TEMPLATE)
        if template is None:
            raise Unavailable(f"there is no PodTemplate {TEMPLATE}; Git owns it: `flightdeck deploy` makes it")
        return workloads.release_objects(
            template, release, namespace=self.api.namespace, replicas=count, owner=owner
        )  # fmt: skip

    def _route(self, wanted: Document | None) -> None:
        """By levels: whatever a hand left there is put back."""
        if wanted is None or (self.route is not None and routes.same(self.route, wanted)):
            return
        self.left += 1
        if self.route is None:
            raise Unavailable(f"there is no HTTPRoute {self.model}; Git owns it: `flightdeck deploy` makes it")
        if not wanted["spec"] and not routes.names(self.route):
            self.left -= 1
            return  # let go already: what stands there is the API server's own
        self.route = self.api.apply(wanted)

    def _retire(self, name: str, deployment: Document, state: State) -> None:
        """What this rollout made and nobody wants, once no user can be sent there."""
        serves = state.champion is not None and name == workload_name(state.champion)
        if serves or self.owner().get("uid") not in _owners(deployment):
            return
        self.left += 1
        if self.route is not None and (name in routes.names(self.route) or not routes.taken(self.route)):
            return
        self.api.delete("Service", name)
        self.api.delete("Deployment", name)  # last: as long as it is there, the next tick comes back to both

    def leave(self, champion: Release | None) -> None:
        """The ModelRollout goes: the champion keeps all users and stays, as nobody's; candidates go with the object.

        Safe to repeat.
        """
        if champion is None:
            return
        self.look()
        self._route(workloads.http_route(self.model, {workload_name(champion): 100}, namespace=self.api.namespace))
        self._own(workload_name(champion), [])

    def _adopt(self, name: str) -> None:
        """A champion that an earlier ModelRollout left behind becomes this one's; never of one that goes itself.

        A slow tick may come here after `leave`: it must not take the champion into the grave.
        """
        mine = self.api.read("ModelRollout", self.model)
        if mine is None or mine["metadata"].get("deletionTimestamp"):
            return
        self._own(name, [dict(self.owner())])

    def _own(self, name: str, mine: list[Document]) -> None:
        """Deployment and Service of a release, with this owner of ours; others' stay."""
        for kind in ("Deployment", "Service"):
            found = self.api.read(kind, name)
            if found is None:
                continue
            uid = self.owner().get("uid")
            others = [it for it in found["metadata"].get("ownerReferences", ()) if it.get("uid") != uid]
            meta = {"ownerReferences": others + mine, "resourceVersion": found["metadata"].get("resourceVersion")}
            self.api.patch(kind, name, {"metadata": meta})


def _owners(document: Mapping[str, Any]) -> set[str]:
    return {it.get("uid", "") for it in document["metadata"].get("ownerReferences", ())}
