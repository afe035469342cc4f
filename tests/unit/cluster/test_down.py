"""Which cluster is taken down, and what of it: only what was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightdeck.cluster import down, record
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.down import choose, take_down
from flightdeck.cluster.record import Record
from flightdeck.cluster.target import Refused

KIND, TWO = Record("kind-flightdeck", made_cluster=True, made_registry=True), Record("kind-two", made_namespaces=True)


def test_contexts_are_kept_beside_each_other_and_forgotten_one_by_one(tmp_path: Path):
    record.write(tmp_path, KIND)
    record.write(tmp_path, TWO)
    assert record.read(tmp_path, "kind-flightdeck") == KIND
    record.forget(tmp_path, "kind-two")
    assert record.known(tmp_path) == {"kind-flightdeck": KIND}
    record.forget(tmp_path, "kind-flightdeck")
    assert not record.path_of(tmp_path).exists()


def test_a_record_that_cannot_be_read_is_an_error_and_not_forgotten(tmp_path: Path):
    record.path_of(tmp_path).write_text("{")
    with pytest.raises(ValueError, match="not a record"):
        record.write(tmp_path, KIND)


def test_the_one_that_is_known_is_meant_whatever_the_current_context_is():
    assert choose({"kind-flightdeck": KIND}, None, "staging", sure=False) == KIND
    assert choose({}, None, "staging", sure=False) is None


def test_of_several_the_current_one_is_meant_else_it_asks():
    both = {KIND.context: KIND, TWO.context: TWO}
    assert choose(both, None, "kind-two", sure=False) == TWO
    with pytest.raises(Refused, match="kind-flightdeck, kind-two; name one"):
        choose(both, None, "staging", sure=False)


def test_a_cluster_of_which_nothing_is_known_is_left_alone_without_yes():
    with pytest.raises(Refused, match="nothing is known here of what"):
        choose({}, "staging", "staging", sure=False)
    assert choose({}, "staging", "staging", sure=True) == Record("staging", made_namespaces=True)
    with pytest.raises(Refused, match="looks like production"):
        choose({"prod": Record("prod", made_gateway=True)}, "prod", None, sure=False)


def test_a_cluster_that_does_not_answer_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record.write(tmp_path, TWO)
    monkeypatch.setattr(down, "current_context", lambda: "kind-two")
    monkeypatch.setattr(down.Kubectl, "answers", lambda self: False)
    with pytest.raises(CommandFailed, match="does not answer"):
        take_down(tmp_path, context=None, sure=False, tell=lambda _: None)
    assert record.known(tmp_path) == {"kind-two": TWO}


def test_the_registry_stays_while_another_cluster_may_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = Record("kind-other", made_cluster=True)
    for item in (other, KIND):
        record.write(tmp_path, item)
    gone: list[str] = []
    monkeypatch.setattr(down, "current_context", lambda: None)
    monkeypatch.setattr(down.kind, "delete_kind", gone.append)
    monkeypatch.setattr(down.registry, "remove", lambda tell: gone.append("registry"))
    take_down(tmp_path, context="kind-flightdeck", sure=False, tell=lambda _: None)
    assert gone == ["flightdeck"]
    take_down(tmp_path, context="kind-other", sure=False, tell=lambda _: None)
    assert gone == ["flightdeck", "other", "registry"]


class Rollouts:
    """kubectl before a cluster with rollouts, whose operator may be gone."""

    def __init__(self, *names: str, finished: bool) -> None:
        self.names, self.finished, self.said = list(names), finished, []  # type: ignore[var-annotated]

    def get(self, *_: str) -> dict[str, object]:
        return {"items": [{"metadata": {"name": name}} for name in self.names]}

    def __call__(self, *args: str, timeout_s: float = 0) -> str:
        self.said.append(args[0])
        if args[0] == "delete" and not self.finished:
            raise CommandFailed("timed out")
        return ""


@pytest.mark.parametrize(("finished", "said"), [(True, ["delete"]), (False, ["delete", "patch", "patch"])])
def test_rollouts_go_first_and_without_an_operator_they_are_let_go(finished: bool, said: list[str]):
    kubectl = Rollouts("late", "early", finished=finished)
    assert down._without_rollouts(kubectl, lambda _: None) == ["deleted 2 rollouts"]  # type: ignore[arg-type]
    assert kubectl.said == said
    assert down._without_rollouts(Rollouts(finished=True), lambda _: None) == []  # type: ignore[arg-type]


class TwoEnvironments:
    """kubectl before a cluster with the namespaces of two environments."""

    context = "ours"

    def __init__(self, *spaces: str) -> None:
        self.spaces, self.deleted = set(spaces), list[str]()

    def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, object] | None:
        return {"metadata": {"name": name}} if name in self.spaces else None

    def get(self, *_: str) -> dict[str, object]:
        return {"items": []}

    def __call__(self, *args: str, timeout_s: float = 0) -> str:
        self.deleted.append(" ".join(args[1:3]))
        return ""


def test_what_environments_share_stays_while_another_one_is_there():
    kubectl = TwoEnvironments("flightdeck-platform", "flightdeck-serving", "flightdeck-staging-platform")
    known = Record("ours", made_namespaces=True, made_gateway=True)
    said = down._from_foreign(kubectl, known, lambda _: None)  # type: ignore[arg-type]
    assert kubectl.deleted == ["namespace flightdeck-serving", "namespace flightdeck-platform"]
    assert said[-1] == "left what environments share, and Envoy Gateway: staging is still there"
